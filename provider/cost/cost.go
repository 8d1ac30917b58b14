// Package cost asserts in tests that a function costs CPU time and memory in
// proportion to its input. It measures CPU time and allocations, never wall time,
// so a busy machine does not fail a test. Only tests import it.
package cost

import (
	"fmt"
	"runtime"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// What Assert allows: a constant part, for initialization, and a part for each byte
// of input. The parts leave a wide margin to the parser of templates, the most
// expensive one, with the race detector on. Quadratic work on 2 KiB exceeds them.
const (
	constantCPU   = 100 * time.Millisecond
	cpuPerByte    = 5 * time.Microsecond
	constantBytes = 4 << 20
	bytesPerByte  = 512
)

// Usage is what a function has used.
type Usage struct {
	// CPU is the user and system time of the calling thread.
	CPU time.Duration
	// Allocated is the bytes that the process has allocated, garbage included.
	Allocated uint64
}

// Measure runs f and returns its usage. CPU does not include other goroutines that f
// starts. Allocated includes whatever runs at the same time: do not call it in a
// parallel test.
func Measure(f func()) Usage {
	// The kernel counts CPU time for each thread.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	start := threadTime()
	f()
	used := Usage{CPU: threadTime() - start}
	runtime.ReadMemStats(&after)
	used.Allocated = after.TotalAlloc - before.TotalAlloc
	return used
}

// Assert runs f, which works on an input of so many bytes, and fails the test if f
// used more than linear work can use. It suits fuzz targets: the fuzzing engine runs one
// input at a time.
func Assert(t testing.TB, inputBytes int, f func()) {
	t.Helper()
	if err := Measure(f).check(inputBytes); err != nil {
		t.Error(err)
	}
}

func (u Usage) check(inputBytes int) error {
	maxCPU := constantCPU + time.Duration(inputBytes)*cpuPerByte
	maxAllocated := uint64(constantBytes + inputBytes*bytesPerByte)
	if u.CPU <= maxCPU && u.Allocated <= maxAllocated {
		return nil
	}
	return fmt.Errorf("an input of %d bytes takes %s of CPU time and %d allocated bytes; linear work takes at most %s and %d bytes",
		inputBytes, u.CPU, u.Allocated, maxCPU, maxAllocated)
}

func threadTime() time.Duration {
	var usage unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_THREAD, &usage); err != nil {
		panic(fmt.Sprintf("read the CPU time of the thread: %v", err)) // no kernel that we run on
	}
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}
