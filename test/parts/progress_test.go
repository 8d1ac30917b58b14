package parts

import (
	"bytes"
	"testing"
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

func TestProgressEndsWithItsTotal(t *testing.T) {
	var out bytes.Buffer
	startProgress(&out, "building it")()
	if got, want := out.String(), "building it … 0 s\nbuilding it … 0 s\n"; got != want {
		t.Errorf("wrote %q; want %q", got, want)
	}
}
