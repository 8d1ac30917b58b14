package cost

import (
	"bytes"
	"testing"
	"time"
)

// size is the input of the functions that are measured, in bytes.
const size = 16 << 10

func TestLinearWorkPasses(t *testing.T) {
	text := bytes.Repeat([]byte("x"), size)
	Assert(t, size, func() {
		for range text {
			kept = make([]byte, 64)
		}
	})
}

func TestCostlyWorkFails(t *testing.T) {
	text := bytes.Repeat([]byte("x"), size)
	for _, test := range []struct {
		name string
		work func()
	}{
		{"CPU time", func() {
			for start := threadTime(); threadTime()-start < 2*constantCPU; {
			}
		}},
		{"memory", func() {
			for i := range text {
				kept = make([]byte, i)
			}
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			if used := Measure(test.work); used.check(size/32) == nil {
				t.Errorf("%+v passes as linear work on %d bytes", used, size/32)
			}
		})
	}
}

func TestUsageAtTheLimitAndOneAbove(t *testing.T) {
	const n = 1000
	most := Usage{CPU: constantCPU + n*cpuPerByte, Allocated: constantBytes + n*bytesPerByte}
	if err := most.check(n); err != nil {
		t.Errorf("at the limit: %v", err)
	}
	if (Usage{CPU: most.CPU + time.Nanosecond}).check(n) == nil {
		t.Error("CPU time above the limit passes")
	}
	if (Usage{Allocated: most.Allocated + 1}).check(n) == nil {
		t.Error("memory above the limit passes")
	}
}

// kept keeps the compiler from dropping an allocation.
var kept []byte
