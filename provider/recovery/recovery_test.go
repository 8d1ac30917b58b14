package recovery

import (
	"errors"
	"io"
	"strings"
	"testing"
)

func TestDo(t *testing.T) {
	const secret = "s3cr3t-canary"
	for _, test := range []struct {
		name string
		work func() error
		want string
	}{
		{"an index", func() error { return errors.New(secret[len(secret):][0:1]) }, "slice bounds out of range [:1] with length 0"},
		{"a nil map", func() error { none()[secret] = 1; return nil }, "assignment to entry in nil map"},
		{"a value", func() error { panic("it holds " + secret) }, "panic with a string"},
		{"an error", func() error { panic(errors.New(secret)) }, "panic with a *errors.errorString"},
	} {
		t.Run(test.name, func(t *testing.T) {
			var p *PanicError
			err := Do(test.work)
			if !errors.As(err, &p) || !strings.Contains(err.Error(), test.want) {
				t.Fatalf("got %v, want %s", err, test.want)
			}
			if !strings.HasPrefix(p.Stack, "recovery.TestDo.func") || !strings.Contains(p.Stack, " testing.tRunner:") {
				t.Errorf("the stack is %s", p.Stack)
			}
			if strings.Contains(err.Error()+p.Stack, "canary") {
				t.Errorf("a secret is in %v, %s", err, p.Stack)
			}
		})
	}
}

func none() map[string]int { return nil }

func TestDoWithoutPanic(t *testing.T) {
	if err := Do(func() error { return nil }); err != nil {
		t.Errorf("got %v", err)
	}
	if err := Do(func() error { return io.EOF }); !errors.Is(err, io.EOF) {
		t.Errorf("got %v", err)
	}
}

func TestStackIsBounded(t *testing.T) {
	var deep func(n int) error
	deep = func(n int) error {
		if n == 0 {
			panic("the end")
		}
		return deep(n - 1)
	}
	var p *PanicError
	if err := Do(func() error { return deep(1000) }); !errors.As(err, &p) || len(p.Stack) > maxStackBytes || len(p.Stack) < maxStackBytes/2 {
		t.Errorf("a stack of %d bytes", len(p.Stack))
	}
}
