// Package template turns templates into bytes, in consul-template's language as
// the Vault Agent runs it.
//
// It gets data and returns bytes: it never asks Vault, never opens a file, and
// reads nothing of the node it runs on but the clock. What a template lacks comes
// back as a list of queries; the caller answers them and renders again. Errors
// hold what the author of the template wrote, and never a value that came from
// Vault.
//
// It does not bound what a template takes of time and memory, but in Check,
// CheckResult, Foresee, Fill and SecretFiles, which run nothing. The driver calls the rest
// in the confined processes of package worker, and nowhere else.
package template

import (
	"errors"

	"github.com/hashicorp/vault/api"
)

// ErrInvalid is a template that no data can make good, or a function that the
// driver does not offer to templates.
var ErrInvalid = errors.New("invalid template")

// ErrData is a template that does not fit the data it got.
var ErrData = errors.New("the template cannot be rendered")

// ErrUnavailable is a template that was not run to its end through no fault of
// its own. Nothing in this package returns it, but whoever calls it elsewhere may.
var ErrUnavailable = errors.New("templates cannot be rendered for now")

// Template is the program of one file, and what it may know besides secrets.
type Template struct {
	// Name is the file, for messages.
	Name string
	// Text is not empty.
	Text string
	// LeftDelim and RightDelim are empty for "{{" and "}}".
	LeftDelim, RightDelim string
	// ErrorOnMissingKey refuses a key that a map lacks, in place of "<no value>".
	ErrorOnMissingKey bool
	// Pod is empty at admission, where only Check is called.
	Pod Pod
}

// Pod is what a template may know of the pod that it is rendered for. The caller
// collects it; nothing is read here.
type Pod struct {
	// MountPath is where containers see the volume, empty for DefaultMountPath.
	// It is absolute and clean.
	MountPath string
	// Environment holds NAMESPACE, POD_NAME and HOST_IP for env and its kin.
	Environment map[string]string
	// SecretKeys are those of the volume's Secret, for file.
	SecretKeys map[string]string
	// ClusterCA is the authority of the API server, for file; empty if it is not known.
	ClusterCA string
}

// DefaultMountPath is where the Vault Agent Injector puts files.
const DefaultMountPath = "/vault/secrets"

// Answers are what Vault said to the queries of templates.
type Answers map[Query]Answer

// Answer holds a secret, or the names of a list. Both are empty where Vault
// answered a write with nothing.
type Answer struct {
	Secret *api.Secret
	Names  []string
}

// Result is what a template became.
type Result struct {
	// Output is complete only when nothing is missing.
	Output []byte
	// Files are what writeToFile made, complete only when nothing is missing.
	Files []WrittenFile
	// Missing are the queries that answers lacked, in the template's order.
	Missing []Query
	// Used are all queries that the template asked.
	Used []Query
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

// Render runs a template with the answers at hand, which it does not change. The
// error is ErrInvalid or ErrData. It is the same for the same arguments, but for
// functions that tell the time or make random values.
func Render(t Template, answers Answers) (Result, error) {
	trees, err := checkTrees(t)
	if err != nil {
		return Result{}, err
	}
	if len(answers) == 0 {
		if foreseen, plain := foresee(t, trees[""]); plain {
			return foreseen, nil
		}
	}
	return execute(t, trees, answers)
}
