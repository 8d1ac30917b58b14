// Package manifest finds the pods in YAML manifests and translates their
// injector annotations in place.
//
// It takes text and returns text: no file, no network. A document without a pod
// that asks comes out byte for byte as it went in; in one that is changed, what
// is not added stays, with its order and comments; aliases and merge keys are
// written out, since each place of a pod is edited for itself.
package manifest

import (
	"bytes"
	"fmt"

	"github.com/vaultmount/vaultmount/driver/annotation"
)

// Notice is about one object of a manifest.
type Notice struct {
	// Object is "kind/name" as the manifest has it.
	Object string
	// Refused tells a refusal from a warning.
	Refused bool
	annotation.Notice
}

// String returns one line.
func (n Notice) String() string {
	severity := "warning"
	if n.Refused {
		severity = "refused"
	}
	return fmt.Sprintf("%s: %s: %s", severity, n.Object, n.Notice)
}

// Result is what a manifest came to.
type Result struct {
	// Text is the manifest with its pods translated; with a refusal, the pods of
	// that object are as they were.
	Text    []byte
	Notices []Notice
	// Translated counts the objects that changed.
	Translated int
}

// Refused reports whether any object was refused.
func (r Result) Refused() bool {
	for _, notice := range r.Notices {
		if notice.Refused {
			return true
		}
	}
	return false
}

// Translate works on all documents of a manifest. The error is for text that is
// no YAML or whose aliases cannot be written out, and for a workload whose pod is
// no pod.
func Translate(translator annotation.Translator, text []byte) (Result, error) {
	work := &translation{translator: translator}
	var out bytes.Buffer
	for i, part := range split(text) {
		changed, err := work.document(part.document)
		if err != nil {
			return Result{}, fmt.Errorf("translate document %d: %w", i+1, err)
		}
		out.Write(part.separator)
		out.Write(changed)
	}
	work.result.Text = out.Bytes()
	return work.result, nil
}

// part is a document with the separator before it, if there is one.
type part struct {
	separator, document []byte
}

// split takes a stream apart and keeps all its bytes: a document without a pod
// must come out exactly as it went in.
func split(text []byte) []part {
	var parts []part
	var current part
	for line := range bytes.Lines(text) {
		if !isSeparator(line) {
			current.document = append(current.document, line...)
			continue
		}
		if len(current.separator)+len(current.document) > 0 {
			parts = append(parts, current)
		}
		current = part{separator: line}
	}
	return append(parts, current)
}

// isSeparator recognises "---" on a line of its own. Inside a block of text it
// would have to be indented.
func isSeparator(line []byte) bool {
	rest, ok := bytes.CutPrefix(bytes.TrimRight(line, " \t\r\n"), []byte("---"))
	return ok && (len(rest) == 0 || rest[0] == ' ' && bytes.HasPrefix(bytes.TrimSpace(rest), []byte("#")))
}
