package template

import (
	"sort"
	"strings"
)

// Verb is what a template wants done in Vault.
type Verb string

const (
	// Read is the function secret.
	Read Verb = "read"
	// Write is secret with arguments. It may make something new each time.
	Write Verb = "write"
	// List is secrets.
	List Verb = "list"
	// Issue is pkiCert: a write whose answer holds for as long as its certificate
	// does, and is kept until that is due.
	Issue Verb = "issue"
)

// Query is one thing that a template asks of Vault. Equal queries of one volume
// have one answer.
type Query struct {
	Verb Verb
	Path string
	// arguments of a write, encoded so that queries can be compared.
	arguments string
}

// Size is what the query takes, in bytes.
func (q Query) Size() int { return len(q.Path) + len(q.arguments) }

// Reads tells a query that creates nothing by itself; what Vault answers may be new
// each time all the same.
func (q Query) Reads() bool { return q.Verb == Read || q.Verb == List }

const (
	argumentEnd = "\x00"
	keyEnd      = "\x01"
)

// NewWrite returns the query that writes data to path.
func NewWrite(path string, data map[string]string) Query {
	return Query{Verb: Write, Path: path, arguments: encode(data)}
}

// NewIssue returns the query that has a certificate issued at path.
func NewIssue(path string, data map[string]string) Query {
	return Query{Verb: Issue, Path: path, arguments: encode(data)}
}

func encode(data map[string]string) string {
	encoded := make([]string, 0, len(data))
	for key, value := range data {
		encoded = append(encoded, key+keyEnd+value+argumentEnd)
	}
	sort.Strings(encoded)
	return strings.Join(encoded, "")
}

// Values returns the values of the arguments of a write or an issue.
func (q Query) Values() []string {
	var values []string
	for _, value := range q.Data() {
		values = append(values, value.(string))
	}
	return values
}

// Data returns the arguments of a write or an issue.
func (q Query) Data() map[string]any {
	data := map[string]any{}
	for argument := range strings.SplitSeq(q.arguments, argumentEnd) {
		if key, value, ok := strings.Cut(argument, keyEnd); ok {
			data[key] = value
		}
	}
	return data
}
