package volume

import (
	"errors"
	"fmt"

	"github.com/vaultmount/vaultmount/provider/limits"
)

// AttributeError names the one attribute that is wrong, and says what to write
// instead. It repeats no template and at most the start of another value:
// what a user needs to find the mistake is the key.
type AttributeError struct {
	// Key is the attribute as the user wrote it.
	Key string
	// Problem is what is wrong and the way out.
	Problem string
	// Err is the cause, and may be nil. Its text is part of Problem.
	Err error
}

// Error implements error.
func (e *AttributeError) Error() string {
	return fmt.Sprintf("volume attribute %q: %s", limits.Truncate(e.Key, enoughOfKey), e.Problem)
}

// Unwrap returns the cause.
func (e *AttributeError) Unwrap() error { return e.Err }

// wrong is for problems that no other error describes.
func wrong(key, format string, arguments ...any) error {
	return &AttributeError{Key: key, Problem: fmt.Sprintf(format, arguments...)}
}

// blame names the attribute whose value err complains about.
func blame(key string, err error) error {
	var already *AttributeError
	if err == nil || errors.As(err, &already) {
		return err
	}
	return &AttributeError{Key: key, Problem: err.Error(), Err: err}
}

// quote shows enough of a value to recognise it, and no more: the message goes
// into an Event and a log line, and the value may be a template gone astray.
func quote(value string) string { return fmt.Sprintf("%q", cut(value)) }

// cut is quote without quotes, for a part of a key.
func cut(value string) string { return limits.Truncate(value, enoughOfValue) }

// An error has 400 bytes, and the problem comes after the key. So a key and two values
// leave half of them to the words.
const (
	enoughOfKey   = 96
	enoughOfValue = 48
)
