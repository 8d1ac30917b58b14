package render

import (
	"errors"
	"fmt"
	"regexp"
	"strings"
)

// withheld stands for a reason that may quote a secret: text/template prints
// values into many of its errors, and functions print their arguments.
const withheld = "the reason is not shown, since it may hold a secret value"

// executionFailure says where a template went wrong. Of what text/template
// reports, the place is the author's own text; the reason is shown only if it is
// known to hold names and types alone.
func executionFailure(t Template, err, own error) error {
	message := err.Error()
	if strings.HasPrefix(message, "parse: ") {
		// Nothing was executed yet, so no data was near.
		return fmt.Errorf("%w: %s", ErrInvalid, strings.Replace(message, "parse: template: :", "template: "+t.Name+":", 1))
	}
	place, reason := splitExecutionError(message)
	if own != nil && errors.Is(own, ErrInvalid) {
		return fmt.Errorf("%w: %s: %s", ErrInvalid, place, strings.TrimPrefix(own.Error(), ErrInvalid.Error()+": "))
	}
	if !isSafeReason(reason) {
		reason = withheld
	}
	return fmt.Errorf("%w: %s: %s", ErrData, place, reason)
}

// splitExecutionError takes apart what text/template reports:
// template: NAME:LINE:COLUMN: executing "NAME" at <CODE>: REASON
func splitExecutionError(message string) (place, reason string) {
	form := regexp.MustCompile(`(?s)^execute: template: [^:]*:(\d+):(\d+): executing "[^"]*" at <(.*?)>: (.*)$`)
	parts := form.FindStringSubmatch(message)
	if parts == nil {
		return "in execution", ""
	}
	return fmt.Sprintf("line %s, column %s, at <%s>", parts[1], parts[2], parts[3]), parts[4]
}

func isSafeReason(reason string) bool {
	safe := []string{
		`^map has no entry for key "[^"]*"$`,
		`^nil pointer evaluating [\w.*{}\[\] ]+$`,
		`^nil data; no entry for key "[^"]*"$`,
		`^can't evaluate field \w+ in type [\w.*{}\[\] ]+$`,
		`^wrong type for value; expected [\w.*{}\[\] ]+; got [\w.*{}\[\] ]+$`,
		`^wrong number of args for \w+: want (at least )?\d+ got \d+$`,
		`^template "[^"]*" not defined$`,
		`^exceeded maximum template depth \(\d+\)$`,
	}
	for _, pattern := range safe {
		if regexp.MustCompile(pattern).MatchString(reason) {
			return true
		}
	}
	return false
}
