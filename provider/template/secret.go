package template

import (
	"slices"
	"strings"

	"github.com/hashicorp/consul-template/dependency"
	"github.com/hashicorp/vault/api"
)

// secret reads a path, or writes to it when there are arguments "key=value",
// as consul-template does. What is missing is nil without a type, on which a
// template may go on to name fields; where Vault had nothing to say, it is a nil
// secret, on which it may not.
func (e *execution) secret(arguments ...string) (any, error) {
	if len(arguments) == 0 {
		return nil, nil
	}
	query, err := e.secretQuery(arguments)
	if err != nil {
		return nil, err
	}
	answer, ok, err := e.ask("secret", query)
	if err != nil || !ok {
		return nil, err
	}
	if e.secrets[query] == nil {
		e.secrets[query] = toTemplate(answer.Secret)
	}
	return e.secrets[query], nil
}

// secretQuery is what the function secret asks with one argument or more.
func (e *execution) secretQuery(arguments []string) (Dependency, error) {
	path := trimPath(arguments[0])
	if path == "" {
		return Dependency{}, e.fail("secret: the path is empty")
	}
	if len(arguments) == 1 {
		return Dependency{Verb: Read, Path: path}, nil
	}
	data, err := e.parsePairs("secret", arguments[1:])
	if err != nil {
		return Dependency{}, err
	}
	return NewWrite(path, data), nil
}

func (e *execution) parsePairs(function string, pairs []string) (map[string]string, error) {
	data := map[string]string{}
	for i, pair := range pairs {
		if pair == "" {
			continue
		}
		key, value, ok := cutPair(pair)
		if !ok {
			return nil, e.fail("%s: argument %d after the path is not key=value", function, i+1)
		}
		data[key] = value
	}
	return data, nil
}

func cutPair(pair string) (key, value string, ok bool) {
	key, value, ok = strings.Cut(pair, "=")
	return strings.TrimSpace(key), strings.TrimSpace(value), ok
}

func (e *execution) list(path string) ([]string, error) {
	if path == "" {
		return nil, nil
	}
	path = trimPath(path)
	if path == "" {
		return nil, e.fail("secrets: the path is empty")
	}
	answer, _, err := e.ask("secrets", Dependency{Verb: List, Path: path})
	if err != nil {
		return nil, err
	}
	return slices.Sorted(slices.Values(answer.Names)), nil
}

func trimPath(path string) string {
	return strings.Trim(strings.TrimSpace(path), "/")
}

// toTemplate gives a secret the fields that templates know from consul-template.
func toTemplate(secret *api.Secret) *dependency.Secret {
	if secret == nil {
		return nil
	}
	shown := &dependency.Secret{
		RequestID:     secret.RequestID,
		LeaseID:       secret.LeaseID,
		LeaseDuration: secret.LeaseDuration,
		Renewable:     secret.Renewable,
		Warnings:      slices.Clone(secret.Warnings),
	}
	// Functions such as sprig_set change a map in place, and the answer is shared.
	shown.Data, _ = clone(secret.Data).(map[string]any)
	if auth := secret.Auth; auth != nil {
		shown.Auth = &dependency.SecretAuth{
			ClientToken:   auth.ClientToken,
			Accessor:      auth.Accessor,
			Policies:      auth.Policies,
			Metadata:      auth.Metadata,
			LeaseDuration: auth.LeaseDuration,
			Renewable:     auth.Renewable,
		}
	}
	if wrap := secret.WrapInfo; wrap != nil {
		shown.WrapInfo = &dependency.SecretWrapInfo{
			Token:           wrap.Token,
			TTL:             wrap.TTL,
			CreationTime:    wrap.CreationTime,
			WrappedAccessor: wrap.WrappedAccessor,
		}
	}
	return shown
}

// clone copies what a JSON decoder makes.
func clone(value any) any {
	switch v := value.(type) {
	case map[string]any:
		if v == nil {
			return v
		}
		copied := make(map[string]any, len(v))
		for key, element := range v {
			copied[key] = clone(element)
		}
		return copied
	case []any:
		copied := make([]any, len(v), cap(v)) // which spew_sdump shows
		for i, element := range v {
			copied[i] = clone(element)
		}
		return copied
	}
	return value
}
