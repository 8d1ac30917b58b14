package render

import (
	"fmt"
	"slices"
	"sort"
	"strings"

	"github.com/hashicorp/consul-template/dependency"
	"github.com/hashicorp/vault/api"
)

// Verb is what a template wants done in Vault.
type Verb string

// The verbs behind the functions secret, secret with arguments, and secrets.
const (
	Read  Verb = "read"
	Write Verb = "write"
	List  Verb = "list"
)

// Query is one thing that a template asks of Vault. Equal queries of one volume
// have one answer.
type Query struct {
	Verb Verb
	Path string
	// arguments of a write, encoded so that queries can be compared.
	arguments string
}

const (
	argumentEnd = "\x00"
	keyEnd      = "\x01"
)

// NewWrite returns the query that writes data to path.
func NewWrite(path string, data map[string]string) Query {
	encoded := make([]string, 0, len(data))
	for key, value := range data {
		encoded = append(encoded, key+keyEnd+value+argumentEnd)
	}
	sort.Strings(encoded)
	return Query{Verb: Write, Path: path, arguments: strings.Join(encoded, "")}
}

// Data returns the arguments of a write.
func (q Query) Data() map[string]any {
	data := map[string]any{}
	for argument := range strings.SplitSeq(q.arguments, argumentEnd) {
		if key, value, ok := strings.Cut(argument, keyEnd); ok {
			data[key] = value
		}
	}
	return data
}

// asker gives a template its answers and notes what it asked.
type asker struct {
	answers       Answers
	used, missing []Query
	// failure is what one of our own functions complained about: safe to show,
	// unlike the text that text/template makes of it.
	failure error
}

// functions replace consul-template's own, which would ask Vault by themselves
// with a goroutine and process-wide settings for each secret.
func (a *asker) functions() map[string]any {
	return map[string]any{"secret": a.secret, "secrets": a.secrets}
}

// secret reads a path, or writes to it when there are arguments "key=value",
// as consul-template does.
func (a *asker) secret(arguments ...string) (*dependency.Secret, error) {
	if len(arguments) == 0 {
		return nil, nil
	}
	path, pairs := trimPath(arguments[0]), arguments[1:]
	if path == "" {
		return nil, a.fail("secret: the path is empty")
	}
	if len(pairs) == 0 {
		answer := a.ask(Query{Verb: Read, Path: path})
		return toTemplate(answer.Secret), nil
	}
	data, err := a.parsePairs(pairs)
	if err != nil {
		return nil, err
	}
	answer := a.ask(NewWrite(path, data))
	return toTemplate(answer.Secret), nil
}

func (a *asker) parsePairs(pairs []string) (map[string]string, error) {
	data := map[string]string{}
	for i, pair := range pairs {
		if pair == "" {
			continue
		}
		key, value, ok := strings.Cut(pair, "=")
		if !ok || strings.ContainsAny(pair, argumentEnd+keyEnd) {
			return nil, a.fail(fmt.Sprintf("secret: argument %d after the path is not key=value", i+1))
		}
		data[strings.TrimSpace(key)] = strings.TrimSpace(value)
	}
	return data, nil
}

func (a *asker) secrets(path string) ([]string, error) {
	path = trimPath(path)
	if path == "" {
		return nil, nil
	}
	answer := a.ask(Query{Verb: List, Path: path})
	return slices.Sorted(slices.Values(answer.Names)), nil
}

// ask returns an empty answer to a query that has none yet, and notes it.
func (a *asker) ask(query Query) Answer {
	if !slices.Contains(a.used, query) {
		a.used = append(a.used, query)
	}
	answer, ok := a.answers[query]
	if !ok && !slices.Contains(a.missing, query) {
		a.missing = append(a.missing, query)
	}
	return answer
}

func (a *asker) fail(problem string) error {
	a.failure = fmt.Errorf("%w: %s", ErrInvalid, problem)
	return a.failure
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
		Data:          secret.Data,
		Warnings:      secret.Warnings,
	}
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
