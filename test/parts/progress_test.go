package parts

import (
	"bytes"
	"testing"
	"testing/synctest"
	"time"
)

func TestProgressOnATerminalIsOneLine(t *testing.T) {
	if got, want := progressAt(true, 2*time.Second), "\rbuilding it … 0 s\rbuilding it … 2 s"; got != want {
		t.Errorf("wrote %q; want %q", got, want)
	}
}

func TestProgressElsewhereIsALineEachTime(t *testing.T) {
	if got, want := progressAt(false, 30*time.Second), "building it … 0 s\nbuilding it … 30 s\n"; got != want {
		t.Errorf("wrote %q; want %q", got, want)
	}
}

func progressAt(terminal bool, later time.Duration) string {
	var out bytes.Buffer
	begin := time.Now()
	p := &progress{w: &out, title: "building it", terminal: terminal, begin: begin}
	p.write(begin)
	p.write(begin.Add(later))
	return out.String()
}

func TestProgressOfWhatEndsAtOnceIsNothing(t *testing.T) {
	var out bytes.Buffer
	startProgress(&out, "building it")()
	if out.Len() > 0 {
		t.Errorf("wrote %q", out.String())
	}
}

func TestProgressEndsWithItsTotal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		stop := startProgress(&out, "building it")
		time.Sleep(40 * time.Second)
		stop()
		if got, want := out.String(), "building it … 3 s\nbuilding it … 33 s\nbuilding it … 40 s\n"; got != want {
			t.Errorf("wrote %q; want %q", got, want)
		}
	})
}
