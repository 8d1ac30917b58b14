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

	"go.yaml.in/yaml/v3"

	"github.com/vaultmount/vaultmount/driver/injector"
	"github.com/vaultmount/vaultmount/provider/limits"
)

// Diagnostic is about one object of a manifest.
type Diagnostic struct {
	// Object is "kind/name" as the manifest has it.
	Object string
	// Refused tells a refusal from a warning.
	Refused bool
	injector.Diagnostic
}

// String returns one line.
func (n Diagnostic) String() string {
	severity := "warning"
	if n.Refused {
		severity = "refused"
	}
	return fmt.Sprintf("%s: %s: %s", severity, n.Object, n.Diagnostic)
}

// Result is what a manifest came to.
type Result struct {
	// Text is the manifest with its pods translated; with a refusal, the pods of
	// that object are as they were.
	Text        []byte
	Diagnostics []Diagnostic
	// Translated counts the objects that changed.
	Translated int
}

// Refused reports whether any object was refused.
func (r Result) Refused() bool {
	for _, diagnostic := range r.Diagnostics {
		if diagnostic.Refused {
			return true
		}
	}
	return false
}

// Translate works on all documents of a manifest. The error is for text that is
// no YAML or whose aliases cannot be written out, and for a workload whose pod is
// no pod.
func Translate(translator injector.Translator, text []byte) (Result, error) {
	if err := limits.ManifestBytes.Check(len(text)); err != nil {
		return Result{}, fmt.Errorf("%w; translate it in parts", err)
	}
	work := &translation{translator: translator, aliases: &expansion{open: map[*yaml.Node]bool{}}}
	var out bytes.Buffer
	for i, part := range split(text) {
		changed, err := work.document(part)
		if err != nil {
			return Result{}, fmt.Errorf("translate document %d: %w", i+1, err)
		}
		if changed == nil {
			out.Write(part.text())
			continue
		}
		out.Write(part.start)
		if part.isInline() {
			out.WriteByte('\n')
		}
		if bytes.Contains(part.document, []byte("\r\n")) {
			changed = bytes.ReplaceAll(changed, []byte("\n"), []byte("\r\n"))
		}
		out.Write(changed)
		out.Write(part.end)
	}
	work.result.Text = out.Bytes()
	return work.result, nil
}
