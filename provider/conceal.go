package provider

import (
	"slices"
	"strings"

	"github.com/vaultmount/vaultmount/provider/render"
)

// concealed is an error about a path that a template has put together out of
// secrets, without their values. It is of the same kind as the error itself.
type concealed struct {
	err  error
	text string
}

func (c *concealed) Error() string { return c.text }
func (c *concealed) Unwrap() error { return c.err }

// conceal takes the values of secrets out of an error, as far as they stand in
// what was asked: a path goes into messages, and {{ secret .Data.password }} is a
// slip that must not show the password to whoever may read events.
func conceal(err error, query render.Query, answers render.Answers) error {
	asked := strings.Join(append([]string{query.Path}, query.Values()...), "\n")
	var secret []string
	for _, answer := range answers {
		if answer.Secret != nil {
			secret = append(secret, values(answer.Secret.Data)...)
		}
	}
	// Long ones first: one may hold another.
	slices.SortFunc(secret, func(a, b string) int { return len(b) - len(a) })
	text := err.Error()
	for _, value := range secret {
		if strings.Contains(asked, value) {
			text = strings.ReplaceAll(text, value, "[value of a secret]")
		}
	}
	if text == err.Error() {
		return err
	}
	return &concealed{err, text}
}

// shortest is how long a value must be to be taken for one: a single letter or
// digit is in every path.
const shortest = 4

// values are the strings in what Vault answered, at any depth.
func values(data any) []string {
	var found []string
	switch d := data.(type) {
	case map[string]any:
		for _, element := range d {
			found = append(found, values(element)...)
		}
	case []any:
		for _, element := range d {
			found = append(found, values(element)...)
		}
	case string:
		if trimmed := strings.Trim(strings.TrimSpace(d), "/"); len(trimmed) >= shortest {
			found = append(found, trimmed)
		}
	}
	return found
}
