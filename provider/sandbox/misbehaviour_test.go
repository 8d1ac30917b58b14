package sandbox

import (
	"bytes"
	"encoding/binary"
	"errors"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/vaultmount/vaultmount/provider/fairqueue"
	"github.com/vaultmount/vaultmount/provider/limits"
	"github.com/vaultmount/vaultmount/provider/template"
)

// misbehaviours are what a worker may do with its pipes in place of answering.
func misbehaviours() map[string]func() reply {
	sendAndWait := func(bytes []byte) reply {
		_, _ = os.Stdout.Write(bytes) // the other end may be gone
		return hang()
	}
	frame := func(payload []byte) []byte {
		return append(binary.BigEndian.AppendUint32(nil, uint32(len(payload))), payload...)
	}
	return map[string]func() reply{
		"hang": hang,
		"hang in the first worker": func() reply {
			if isFirst {
				return hang()
			}
			return reply{Result: template.Result{Output: []byte("done by another")}}
		},
		"promise 4 GiB":    func() reply { return sendAndWait([]byte{255, 255, 255, 255}) },
		"promise too much": func() reply { return sendAndWait(binary.BigEndian.AppendUint32(nil, replyLimit+1)) },
		"half a message":   func() reply { _, _ = os.Stdout.Write(frame([]byte(`{"Failure":""}`))[:9]); os.Exit(0); return reply{} },
		"no JSON":          func() reply { return sendAndWait(frame([]byte("\x00"))) },
		"another type":     func() reply { return sendAndWait(frame([]byte(`{"Result":[]}`))) },
		"deep JSON":        func() reply { return sendAndWait(frame(bytes.Repeat([]byte("["), replyLimit/2))) },
		"many elements": func() reply {
			return sendAndWait(frame([]byte(`{"Result":{"Missing":[{}` + strings.Repeat(`,{}`, elementsLimit+1) + `]}}`)))
		},
		"no query": func() reply { return sendAndWait(frame([]byte(`{"Result":{"Missing":["x"]}}`))) },
		"ask for a write": func() reply {
			return reply{Result: template.Result{Missing: []template.Dependency{template.NewWrite("sys/policies/acl/x", nil)}}}
		},
		"make a file":     func() reply { return reply{Result: template.Result{Files: []template.WrittenFile{{Path: "x"}}}} },
		"unknown failure": func() reply { return reply{Failure: "worse", Message: "x"} },
		"long failure": func() reply {
			return sendAndWait(frame([]byte(`{"Failure":"data","Message":"` + strings.Repeat("x", limits.ErrorBytes.Max()+1) + `"}`)))
		},
		"panic": func() reply { panic("a secret") },
		"exit":  func() reply { os.Exit(0); return reply{} },
		"crash": func() reply {
			go func() { panic("a secret") }()
			return hang()
		},
		"write to standard error": func() reply {
			for range 10_000 {
				_, _ = os.Stderr.WriteString(strings.Repeat("a secret", 1000))
			}
			return reply{Result: template.Result{Output: []byte("done")}}
		},
		"many threads": func() reply {
			for range 1000 {
				go func() { runtime.LockOSThread(); hang() }()
			}
			return hang()
		},
	}
}

// hang sleeps rather than block: Go ends a program in which all are blocked.
func hang() reply {
	for {
		time.Sleep(time.Hour)
	}
}

// Whatever a worker sends, the parent has a short error and a new worker.
func TestMisbehaviour(t *testing.T) {
	t.Parallel()
	pool := startPool(t, generous())
	tests := map[string]struct {
		kind error
		want string
	}{
		"promise 4 GiB":    {template.ErrInvalid, "invalid template: the message is too long: 4294967295 bytes of at most 8388608"},
		"promise too much": {template.ErrInvalid, "invalid template: the message is too long: 8388609 bytes of at most 8388608"},
		"half a message":   {template.ErrInvalid, "invalid template: it makes the renderer crash"},
		"no JSON":          {template.ErrInvalid, "invalid template: the answer of the worker cannot be read"},
		"another type":     {template.ErrInvalid, "invalid template: the answer of the worker cannot be read"},
		"deep JSON":        {template.ErrInvalid, "invalid template: the answer of the worker cannot be read"},
		"many elements":    {template.ErrInvalid, "invalid template: the answer of the worker cannot be read"},
		"no query":         {template.ErrInvalid, "invalid template: the answer of the worker cannot be read"},
		"ask for a write":  {template.ErrNotAsked, "invalid template: its process returned what the template does not ask for"},
		"make a file":      {template.ErrNotAsked, "invalid template: its process returned what the template does not ask for"},
		"unknown failure":  {template.ErrInvalid, "invalid template: the answer of the worker cannot be read"},
		"long failure":     {template.ErrInvalid, "invalid template: the answer of the worker cannot be read"},
		"panic":            {template.ErrInvalid, "invalid template: it makes the renderer crash"},
		"exit":             {template.ErrInvalid, "invalid template: it makes the renderer crash"},
		"crash":            {template.ErrInvalid, "invalid template: it makes the renderer crash"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			result, err := attack(t, pool, name)
			if result != "" || !errors.Is(err, test.kind) || err.Error() != test.want {
				t.Fatalf("got  %v\nwant %s", err, test.want)
			}
			requireWorking(t, pool)
		})
	}
}

// Threads are limited; which of the limits is the first depends on their stacks.
func TestManyThreads(t *testing.T) {
	t.Parallel()
	pool := startPool(t, generous())
	if _, err := attack(t, pool, "many threads"); !errors.Is(err, template.ErrInvalid) {
		t.Errorf("got %v", err)
	}
	requireWorking(t, pool)
}

func TestStandardErrorIsDrained(t *testing.T) {
	t.Parallel()
	if got, err := attack(t, startPool(t, generous()), "write to standard error"); err != nil || got != "done" {
		t.Errorf("got %q, %v", got, err)
	}
}

func requireWorking(t testing.TB, pool *Pool) {
	t.Helper()
	requireWorkingFor(t, pool, "")
}

func requireWorkingFor(t testing.TB, pool *Pool, tenant string) {
	t.Helper()
	result, err := render(pool, fairqueue.WithTenant(t.Context(), tenant), template.Template{Name: "file", Text: `{{ "works" | toUpper }}`}, nil)
	if err != nil || string(result.Output) != "WORKS" {
		t.Fatalf("got %q, %v", result.Output, err)
	}
}
