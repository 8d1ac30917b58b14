// Package template executes templates in consul-template's language, with the results
// of the Vault Agent.
//
// It takes values and returns bytes. It never asks Vault, opens no file, and reads
// nothing of the node but the clock. A template without all of its values returns its
// missing dependencies: the caller fetches them and executes it again. Errors repeat what
// the author of the template wrote, and never a value from Vault.
//
// Execute and Check do not bound the memory and CPU time of a template. The driver calls
// them in the confined processes of package sandbox only. CheckResult parses no template
// and takes linear time. The package imports provider/limits.
package template

import (
	"encoding/json"
	"errors"
	"fmt"

	"github.com/hashicorp/vault/api"

	"github.com/vaultmount/vaultmount/provider/limits"
)

var (
	// ErrInvalid is for a template that fails with any values, for example because it
	// calls a function that is not available.
	ErrInvalid = errors.New("invalid template")
	// ErrData is for a template that does not fit its values.
	ErrData = errors.New("the template cannot be rendered")
	// ErrUnavailable is for a template that could not be executed to its end, through no
	// fault of its own. Only callers in front of this package return it.
	ErrUnavailable = errors.New("templates cannot be rendered for now")
)

// FileError is an error about the template of one file.
type FileError struct {
	// Name is that of the template.
	Name string
	Err  error
}

// Error implements error.
func (e *FileError) Error() string {
	const enough = 96 // of up to a KiB
	return fmt.Sprintf("render file %q: %v", limits.Truncate(e.Name, enough), e.Err)
}

// Unwrap returns why.
func (e *FileError) Unwrap() error { return e.Err }

// Template is the program of one file, with the facts about the pod that it may use.
type Template struct {
	// Name is the path of the file, for messages.
	Name string
	// Text is not empty.
	Text string
	// LeftDelim and RightDelim default to "{{" and "}}".
	LeftDelim, RightDelim string
	// ErrorOnMissingKey makes a missing key of a map an error. The default is to write
	// "<no value>".
	ErrorOnMissingKey bool
	// Pod is empty where Check runs before there is a pod.
	Pod Pod
}

// Pod is what a template may know about its pod.
type Pod struct {
	// MountPath is where containers see the volume: absolute and clean. Default
	// DefaultMountPath.
	MountPath string
	// Environment holds NAMESPACE, POD_NAME and HOST_IP for env, mustEnv and envOrDefault.
	Environment map[string]string
	// SecretKeys is the Secret of the volume, for file.
	SecretKeys map[string]string
	// ClusterCA is the CA bundle of the API server, for file; empty if it is not known.
	ClusterCA string
}

// DefaultMountPath is where the Vault Agent Injector puts files.
const DefaultMountPath = "/vault/secrets"

// Result is the outcome of one execution.
type Result struct {
	// Output and Files are empty while a dependency is missing.
	Output []byte
	// Files are those that writeToFile made.
	Files []WrittenFile
	// Missing are the dependencies without a value, in the order of the template.
	Missing []Dependency
	// Used are all dependencies, the missing ones included.
	Used []Dependency
}

// WrittenFile is a file that a template makes beside its own.
type WrittenFile struct {
	// Path is relative to the volume and clean.
	Path    string
	Content []byte
	// UID and GID are negative for those of the volume's other files.
	UID, GID int
	// Perms are permission bits, at most 0777.
	Perms uint32
}

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
