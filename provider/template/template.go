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
	"errors"
	"fmt"

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

// Execute runs a template with the values at hand, and does not change them. The error
// is ErrInvalid or ErrData. The result is the same for the same arguments, except for
// functions that tell the time or make random values.
func Execute(t Template, values Values) (Result, error) {
	trees, err := checkTrees(t)
	if err != nil {
		return Result{}, err
	}
	return execute(t, trees, values)
}
