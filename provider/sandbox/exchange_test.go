package sandbox

import (
	"context"
	"errors"
	"io"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/vaultmount/vaultmount/provider/cost"
	"github.com/vaultmount/vaultmount/provider/fairqueue"
	"github.com/vaultmount/vaultmount/provider/template"
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
	if err := p.converse(nil, newReceiver(template.Template{}).read); !errors.Is(err, errNonsense) {
		t.Errorf("got %v", err)
	}
}

// A call that waits for its turn takes no memory for its request. Not parallel: it counts
// what the whole process allocates.
func TestRequestIsMadeInItsTurn(t *testing.T) {
	pool := New(newLogger(t), Config{Program: "/nowhere"})
	for _, tenant := range []string{"a", "b", "c"} {
		if err := pool.places.Acquire(t.Context(), tenant, fairqueue.Foreground, 1); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	answers := template.Values{{Verb: template.Read, Path: "kv"}: {Names: []string{strings.Repeat("x", requestLimit/2)}}}
	used := cost.Measure(func() {
		if _, err := render(pool, ctx, file("x"), answers); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v", err)
		}
	})
	if used.Allocated > requestLimit/8 {
		t.Errorf("a call that waits allocates %d bytes", used.Allocated)
	}
}
