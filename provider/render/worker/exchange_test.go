package worker

import (
	"errors"
	"io"
	"os"
	"testing"
)

// The driver may fail to wait for a process, and does not know then how it ended.
func TestCauseWithoutState(t *testing.T) {
	t.Parallel()
	p := &process{words: &words{}}
	if err := p.cause(io.ErrUnexpectedEOF); !errors.Is(err, errKilled) {
		t.Errorf("got %v", err)
	}
}

type panickingReader struct{}

func (panickingReader) Read([]byte) (int, error) { panic("a secret") }

func TestPanicOnReplyIsAnError(t *testing.T) {
	t.Parallel()
	requests, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer requests.Close()
	p := &process{requests: requests, replies: panickingReader{}}
	if _, err := p.converse(nil); !errors.Is(err, errNonsense) {
		t.Errorf("got %v", err)
	}
}
