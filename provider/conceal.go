package provider

import (
	"errors"
	"slices"
	"strings"

	"github.com/vaultmount/vaultmount/provider/limits"
	render "github.com/vaultmount/vaultmount/provider/template"
	"github.com/vaultmount/vaultmount/provider/vault"
)

// concealed is an error about what a template has put together out of secrets. It is
// of the same kinds as the error itself, which nobody gets at: a message holds a path
// in whatever form url.Parse, net/http or Vault's own words have given it, so no
// search finds all of them.
type concealed struct {
	err  error
	text string
}

func (c *concealed) Error() string        { return c.text }
func (c *concealed) Is(target error) bool { return errors.Is(c.err, target) }

// conceal keeps the values of secrets out of an error about an answer: a path goes
// into messages, and {{ secret .Data.password }} is a slip that must not show the
// password to whoever may read events.
func (a *answer) conceal(err error) error {
	// Why there is no token has nothing to do with what was to be asked with it.
	if !a.hidden || errors.As(err, new(*tokenError)) {
		return err
	}
	return &concealed{err, "a path made of a secret: " + wordsFor(err) +
		"; the template computes the path or an argument, so it may hold the value of a secret and is not shown: see Vault's audit log for the request"}
}

// wordsFor is what may be said about an error that holds a secret.
func wordsFor(err error) string {
	if errors.Is(err, vault.ErrDenied) {
		return vault.ErrDenied.Error() + ": permission denied"
	}
	if exceeded := (*limits.ExceededError)(nil); errors.As(err, &exceeded) {
		return exceeded.Error() // which is of numbers
	}
	for _, kind := range []error{ErrInvalid, ErrTooLarge, ErrRefused, ErrNotFound, ErrUnavailable} {
		if errors.Is(err, kind) {
			return kind.Error()
		}
	}
	return "no answer"
}

// shownPath is the path as far as an operator may see it.
func (a *answer) shownPath() string {
	if a.hidden {
		return "[made of a secret]"
	}
	return a.query.Path
}

// newAnswer returns the answer to a query that is to be asked now.
func (a *access) newAnswer(query render.Dependency) *answer {
	return &answer{query: query, hidden: a.isHidden(query)}
}

// isHidden reports whether the value of a secret may be in a query: a template has
// computed it, and knew a value. The value itself is not searched for, since a template
// can encode it in any way, and the search took time for each query and each value.
func (a *access) isHidden(query render.Dependency) bool {
	switch {
	case a.volume.hasSecretKeys(): // which the first pass knows as well
	case !a.knowsSecret, a.firstPass[query]:
		return false
	}
	if a.literals == nil {
		a.literals = literalsOf(a.volume.outputs)
	}
	if !a.literals[query.Path] {
		return true
	}
	for key, value := range query.Data() {
		if text := value.(string); !a.literals[key] || text != "" && !a.literals[text] {
			return true
		}
	}
	return false
}

func (v *volume) hasSecretKeys() bool {
	return slices.ContainsFunc(v.outputs, func(o FileSpec) bool { return len(o.Template.Pod.SecretKeys) > 0 })
}

// literalsOf returns the paths, keys and values that the author of the templates has
// written between quotation marks. What is between two of these but in no string is
// among them, and is the author's as well. A string that needs an escape is not.
func literalsOf(outputs []FileSpec) map[string]bool {
	literals := map[string]bool{}
	for _, output := range outputs {
		for text := range strings.FieldsFuncSeq(output.Template.Text, isQuotationMark) {
			literals[strings.Trim(strings.TrimSpace(text), "/")] = true // as the function secret does
			if key, value, ok := strings.Cut(text, "="); ok {
				literals[strings.TrimSpace(key)] = true
				literals[strings.TrimSpace(value)] = true
			}
		}
	}
	return literals
}

func isQuotationMark(r rune) bool { return r == '"' || r == '`' }
