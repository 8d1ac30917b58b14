package volume

import (
	"errors"
	"fmt"
	"strings"
)

// Format is one of the two built-in templates for a secret without a template
// of its own.
type Format string

// The formats of the attribute default-template.
const (
	// Map writes a line "key: value" for each key, in order.
	Map Format = "map"
	// JSON writes one line of JSON.
	JSON Format = "json"
)

// Text returns the built-in template for a Vault path. Its output is, byte for
// byte, that of the Vault Agent Injector, which users' programs already parse.
func (f Format) Text(path string) string {
	open := `{{ with secret "` + path + `" }}`
	if f == JSON {
		return open + "{{ .Data | toJSON }}\n{{ end }}"
	}
	return open + "{{ range $k, $v := .Data }}{{ $k }}: {{ $v }}\n{{ end }}{{ end }}"
}

func parseFormat(text string) (Format, error) {
	format := Format(strings.ToLower(text))
	if format != Map && format != JSON {
		return "", fmt.Errorf("%s is not a built-in template; use %q or %q", quote(text), Map, JSON)
	}
	return format, nil
}

// checkSecretPath refuses what could not stand between the quotes of a built-in
// template: the path would end early there and the rest become template text.
func checkSecretPath(path string) error {
	if strings.Trim(path, "/ ") == "" {
		return errors.New("the Vault path is empty")
	}
	if strings.ContainsFunc(path, func(r rune) bool { return r < ' ' || r == 0x7f || r == '"' || r == '\\' }) {
		return errors.New("a Vault path holds no quote, backslash or control character; to pass arguments to Vault, write template/<file>")
	}
	return nil
}
