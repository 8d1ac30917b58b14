package provider

import (
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"unicode"

	"github.com/vaultmount/vaultmount/provider/render"
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
	return &concealed{err, "a path made of a secret: " + kindOf(err) +
		"; the template asks Vault for the value of a secret, which is not shown: mend the template if it should not, and see Vault's audit log for the request if it should"}
}

// kindOf is what may be said about an error that holds a secret.
func kindOf(err error) string {
	if errors.Is(err, vault.ErrDenied) {
		return vault.ErrDenied.Error() + ": permission denied"
	}
	for _, kind := range []error{ErrInvalid, ErrRefused, ErrNotFound, ErrUnavailable} {
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

// newAnswer is one that is to be asked for, when others are known.
func (v *volume) newAnswer(query render.Query, known render.Answers) *answer {
	return &answer{query: query, hidden: v.holdsSecret(query, known)}
}

// holdsSecret tells whether the value of a secret is in what is asked. What stands in
// a template as it is comes from its author, whatever secrets have the same value.
func (v *volume) holdsSecret(query render.Query, known render.Answers) bool {
	asked := []string{query.Path}
	for key, value := range query.Data() {
		asked = append(asked, key, value.(string))
	}
	asked = slices.DeleteFunc(asked, v.isWritten)
	return slices.ContainsFunc(asked, func(text string) bool {
		in := newHaystack(text)
		for other, answer := range known {
			// What a secret says about itself was not known when it was asked for.
			if other != query && in.holds(answer) {
				return true
			}
		}
		return false
	})
}

func (v *volume) isWritten(text string) bool {
	return slices.ContainsFunc(v.outputs, func(o Output) bool { return strings.Contains(o.Template.Text, text) })
}

// haystack is where values are looked for: as they are, and by letters and digits
// alone, since trimming or cleaning a path changes the rest.
type haystack struct{ raw, folded string }

func newHaystack(text string) haystack { return haystack{text, fold(text)} }

func fold(text string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsLetter(r) || unicode.IsDigit(r) {
			return unicode.ToLower(r)
		}
		return -1
	}, text)
}

// holds tells whether a value of an answer is there, or a token that came with it.
func (h haystack) holds(answer render.Answer) bool {
	secret := answer.Secret
	switch {
	case secret == nil:
		return false
	case secret.Auth != nil && h.holdsValue(secret.Auth.ClientToken):
		return true
	case secret.WrapInfo != nil && h.holdsValue(secret.WrapInfo.Token):
		return true
	}
	return h.holdsValue(secret.Data)
}

// shortest is how long a value must be to be taken for one: a single letter or
// digit is in every path.
const shortest = 4

func (h haystack) holdsValue(data any) bool {
	switch d := data.(type) {
	case map[string]any:
		for _, element := range d {
			if h.holdsValue(element) {
				return true
			}
		}
	case []any:
		return slices.ContainsFunc(d, h.holdsValue)
	case json.Number:
		return h.holdsValue(d.String())
	case string:
		return h.holdsText(d)
	}
	return false
}

func (h haystack) holdsText(value string) bool {
	if trimmed := strings.Trim(strings.TrimSpace(value), "/"); len(trimmed) >= shortest && strings.Contains(h.raw, trimmed) {
		return true
	}
	folded := fold(value)
	return len(folded) >= shortest && strings.Contains(h.folded, folded)
}
