package volume

import (
	"errors"
	"fmt"
)

// AttributeError names the one attribute that is wrong, and says what to write
// instead. It repeats no template and at most the start of another value:
// what a user needs to find the mistake is the key.
type AttributeError struct {
	// Key is the attribute as the user wrote it.
	Key string
	// Problem is what is wrong and the way out.
	Problem string
}

// Error implements error.
func (e *AttributeError) Error() string {
	return fmt.Sprintf("volume attribute %s: %s", shorten(e.Key, enoughOfKey), e.Problem)
}

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
	return &AttributeError{Key: key, Problem: err.Error()}
}

// quote shows enough of a value to recognise it, and no more: the message goes
// into an Event and a log line, and the value may be a template gone astray.
func quote(value string) string { return shorten(value, enoughOfValue) }

// A key may hold the longest name of a file; the kubelet cuts an Event off, and the
// problem comes behind the key.
const (
	enoughOfKey   = 300
	enoughOfValue = 48
)

func shorten(text string, enough int) string {
	if len(text) > enough {
		return fmt.Sprintf("%q…", text[:enough])
	}
	return fmt.Sprintf("%q", text)
}
