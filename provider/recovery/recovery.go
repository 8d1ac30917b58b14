// Package recovery turns a panic into an error of the work that panicked. The driver
// serves all tenants of a node in one process, and a panic on the input of one of them
// must not end it: the kubelet repeats the call, and the process would end again.
// The package never shows the value of a panic, which may hold a secret.
package recovery

import (
	"fmt"
	"runtime"
	"strings"
)

// PanicError is a panic of some work.
type PanicError struct {
	// Stack is the functions that were running, the one that panicked first, each with
	// its line. It has at most 1 KiB, so it fits into a log line.
	Stack string

	cause string
}

// Error implements error.
func (e *PanicError) Error() string {
	return fmt.Sprintf("internal error of vaultmount (%s); report it with the stack in the log of vaultmount", e.cause)
}

// Do calls work. If that panics, the error is a *PanicError.
func Do(work func() error) (err error) {
	defer func() {
		if value := recover(); value != nil {
			err = &PanicError{Stack: stack(), cause: cause(value)}
		}
	}()
	return work()
}

// cause says what panicked. The Go runtime's own errors hold numbers and types, any
// other value only shows its type.
func cause(value any) string {
	if err, ok := value.(runtime.Error); ok {
		return err.Error()
	}
	return fmt.Sprintf("panic with a %T", value)
}

const (
	maxFrames     = 32
	maxStackBytes = 1 << 10
)

// stack is that of the panic which is being recovered from.
func stack() string {
	callers := make([]uintptr, maxFrames)
	// Without runtime.Callers, stack, and the deferred function of Do.
	frames := runtime.CallersFrames(callers[:runtime.Callers(3, callers)])
	var text strings.Builder
	for {
		frame, more := frames.Next()
		line := fmt.Sprintf("%s:%d", frame.Function[strings.LastIndexByte(frame.Function, '/')+1:], frame.Line)
		if text.Len()+len(line) >= maxStackBytes {
			break
		}
		// The runtime's own functions come first, and say nothing of the cause.
		if text.Len() > 0 || !strings.HasPrefix(line, "runtime.") {
			text.WriteString(line + " ")
		}
		if !more {
			break
		}
	}
	return strings.TrimSpace(text.String())
}
