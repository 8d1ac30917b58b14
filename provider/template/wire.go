package template

import (
	"encoding/base64"
	"errors"
	"strings"
)

// MarshalText makes a query travel between processes, also as a key of a JSON
// object. Its parts may be any bytes: a template can compute them.
func (q Query) MarshalText() ([]byte, error) {
	parts := []string{string(q.Verb), q.Path, q.arguments}
	for i, part := range parts {
		parts[i] = base64.RawURLEncoding.EncodeToString([]byte(part))
	}
	return []byte(strings.Join(parts, ".")), nil
}

// UnmarshalText takes what MarshalText makes.
func (q *Query) UnmarshalText(text []byte) error {
	parts := strings.Split(string(text), ".")
	if len(parts) != 3 {
		return errors.New("a query has three parts")
	}
	for i, part := range parts {
		decoded, err := base64.RawURLEncoding.DecodeString(part)
		if err != nil {
			return err
		}
		parts[i] = string(decoded)
	}
	*q = Query{Verb: Verb(parts[0]), Path: parts[1], arguments: parts[2]}
	return nil
}
