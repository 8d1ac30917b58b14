package template

import (
	"encoding/json"

	"github.com/hashicorp/vault/api"
)

// Verb is the kind of request that a template makes to Vault.
type Verb string

const (
	// Read is the function secret.
	Read Verb = "read"
	// Write is secret with arguments. Each write may create something new.
	Write Verb = "write"
	// List is secrets.
	List Verb = "list"
	// Issue is pkiCert: a write whose value is kept until its certificate is due.
	Issue Verb = "issue"
)

// Dependency is a request to Vault that a template needs the response of. Equal
// dependencies of one volume share one value.
type Dependency struct {
	Verb Verb
	Path string
	// Arguments are those of a write, as a JSON object with sorted keys; empty for none.
	// Use Data to read them.
	Arguments string
}

// NewWrite returns the dependency that writes data to path.
func NewWrite(path string, data map[string]string) Dependency {
	return Dependency{Verb: Write, Path: path, Arguments: encode(data)}
}

// NewIssue returns the dependency that issues a certificate at path.
func NewIssue(path string, data map[string]string) Dependency {
	return Dependency{Verb: Issue, Path: path, Arguments: encode(data)}
}

func encode(data map[string]string) string {
	if len(data) == 0 {
		return ""
	}
	encoded, _ := json.Marshal(data) // a map of strings always encodes
	return string(encoded)
}

// Data returns the arguments of a write or an issue; the values are strings.
func (d Dependency) Data() map[string]any {
	data := map[string]any{}
	if d.Arguments != "" {
		_ = json.Unmarshal([]byte(d.Arguments), &data) // CheckResult refuses what is no object
	}
	return data
}

// Size returns how many bytes the dependency takes.
func (d Dependency) Size() int { return len(d.Path) + len(d.Arguments) }

// Reads reports whether the request creates nothing by itself. Vault may still return
// something new for each read.
func (d Dependency) Reads() bool { return d.Verb == Read || d.Verb == List }

// Value is the response to a dependency: a secret, or the names of a list. Both are
// empty if Vault had nothing to return for a write.
type Value struct {
	Secret *api.Secret
	Names  []string
}

// Values are the responses that are known.
type Values map[Dependency]Value
