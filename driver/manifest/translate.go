// Package manifest finds the pods in YAML and JSON manifests and translates their
// injector annotations in place.
//
// It takes text and returns text: no file, no network. A document without a pod that asks
// for secrets comes out byte for byte as it went in. In a document that changes, all that
// is not added stays, with its order and comments. It rejects aliases and merge keys in
// such a document, since an edit at one place would change the others. Of this module it
// imports driver/injector and provider/limits.
package manifest

import (
	"bytes"
	"cmp"
	"fmt"
	"slices"

	"go.yaml.in/yaml/v3"
	sigsyaml "sigs.k8s.io/yaml"

	"github.com/vaultmount/vaultmount/driver/injector"
	"github.com/vaultmount/vaultmount/provider/limits"
)

// Diagnostic is about one object of a manifest.
type Diagnostic struct {
	// Object is "kind/name" as the manifest has it.
	Object string
	// IsError tells an error from a warning.
	IsError bool
	injector.Diagnostic
}

// String returns one line.
func (d Diagnostic) String() string {
	severity := "warning"
	if d.IsError {
		severity = "error"
	}
	return fmt.Sprintf("%s: %s: %s", severity, d.Object, d.Diagnostic)
}

// Result is the outcome for a manifest.
type Result struct {
	// Text is the manifest with its pods translated. An object with an error is
	// unchanged.
	Text        []byte
	Diagnostics []Diagnostic
	// Translated counts the objects that changed.
	Translated int
}

// HasErrors is true if any object was rejected.
func (r Result) HasErrors() bool {
	return slices.ContainsFunc(r.Diagnostics, func(d Diagnostic) bool { return d.IsError })
}

// translation is the work on one manifest.
type translation struct {
	translator injector.Translator
	result     Result
}

// Translate translates all documents of a manifest. It returns an error for text that is
// not YAML, for a workload whose pod is not a pod, and for a document that must change but
// cannot be edited.
func Translate(translator injector.Translator, text []byte) (Result, error) {
	if err := limits.ManifestBytes.Check(len(text)); err != nil {
		return Result{}, fmt.Errorf("%w; translate it in parts", err)
	}
	t := &translation{translator: translator}
	var out bytes.Buffer
	for i, part := range split(text) {
		changed, err := t.document(part)
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
	t.result.Text = out.Bytes()
	return t.result, nil
}

// document returns the translated document of a part, or nil if it is unchanged.
func (t *translation) document(p part) ([]byte, error) {
	document, err := decode(p)
	if err != nil || document == nil || !mayHoldPod(document.Content[0]) {
		return nil, err
	}
	if err := walk(document, checkAlias); err != nil {
		if t.wantsInjection(document) {
			return nil, err
		}
		return nil, nil
	}
	before := t.result.Translated
	if err := t.object(document.Content[0]); err != nil || t.result.Translated == before {
		return nil, err
	}
	var out bytes.Buffer
	encoder := yaml.NewEncoder(&out)
	encoder.SetIndent(2)
	if err := encoder.Encode(document); err != nil {
		return nil, fmt.Errorf("write YAML: %w", err)
	}
	return out.Bytes(), nil
}

// mayHoldPod is true for a workload, for a List, and for an object whose kind comes from
// a merge key.
func mayHoldPod(object *yaml.Node) bool {
	kind := scalar(object, "kind")
	_, ok := injector.PodPath(kind)
	return ok || kind == "List" || object.Kind == yaml.AliasNode || child(object, "<<") != nil
}

// walk visits a node and all below it until an error. It does not follow aliases.
func walk(node *yaml.Node, visit func(*yaml.Node) error) error {
	if node == nil {
		return nil
	}
	if err := visit(node); err != nil {
		return err
	}
	for _, below := range node.Content {
		if err := walk(below, visit); err != nil {
			return err
		}
	}
	return nil
}

func checkAlias(node *yaml.Node) error {
	if node.Kind == yaml.AliasNode || node.ShortTag() == "!!merge" {
		return fmt.Errorf(
			"line %d has a YAML alias or merge key, and a pod with them cannot be edited; expand them first, for "+
				"example with: yq 'explode(.)'", node.Line)
	}
	return nil
}

// checkKeys rejects keys that a parser and an edit read differently: one in base64, and one
// that is in a mapping twice. YAML forbids this, and parsers that accept it use the last
// one, where an edit finds the first.
func checkKeys(node *yaml.Node) error {
	lines := map[string]int{}
	for i := 0; node.Kind == yaml.MappingNode && i+1 < len(node.Content); i += 2 {
		key := node.Content[i]
		before, found := lines[key.Value]
		switch {
		case key.Kind != yaml.ScalarNode:
			continue
		case key.ShortTag() == "!!binary":
			return fmt.Errorf("the key %q in line %d is in base64; write it as text", key.Value, key.Line)
		case found:
			return fmt.Errorf("the key %q is there twice, in lines %d and %d; remove one of them", key.Value, before, key.Line)
		}
		lines[key.Value] = key.Line
	}
	return nil
}

// wantsInjection is true if the annotation agent-inject is anywhere below a node, and may be on.
func (t *translation) wantsInjection(node *yaml.Node) bool {
	key := cmp.Or(t.translator.Prefix, injector.DefaultPrefix) + "agent-inject"
	wanted := false
	_ = walk(node, func(node *yaml.Node) error {
		wanted = wanted || node.Kind == yaml.MappingNode && child(node, key) != nil && scalar(node, key) != "false"
		return nil
	})
	return wanted
}

// object translates the pod of an object, or those of a List.
func (t *translation) object(object *yaml.Node) error {
	kind := scalar(object, "kind")
	if items := child(object, "items"); kind == "List" && items != nil {
		for _, item := range items.Content {
			if err := t.object(item); err != nil {
				return err
			}
		}
		return nil
	}
	path, ok := injector.PodPath(kind)
	if !ok {
		return nil
	}
	if err := walk(object, checkKeys); err != nil {
		return err
	}
	pod := object
	for _, key := range path {
		pod = child(pod, key)
	}
	if pod == nil {
		return nil
	}
	metadata := child(object, "metadata")
	name := kind + "/" + scalar(metadata, "name")
	if len(path) > 0 && t.wantsInjection(child(metadata, "annotations")) {
		text := "the annotations of a " + kind + " have no effect; move them to the metadata of its pod template"
		t.add(name, false, injector.Diagnostic{Annotation: "metadata.annotations", Text: text})
	}
	if err := t.pod(pod, name, scalar(metadata, "namespace")); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return nil
}

func (t *translation) pod(node *yaml.Node, object, namespace string) error {
	text, err := yaml.Marshal(node)
	if err != nil {
		return fmt.Errorf("read the pod: %w", err)
	}
	if text, err = sigsyaml.YAMLToJSON(text); err != nil {
		return fmt.Errorf("read the pod: %w", err)
	}
	pod, err := injector.DecodePod("Pod", text)
	if err != nil {
		return fmt.Errorf("read the pod: %w", err)
	}
	t.rejectWritable(object, pod)
	result := t.translator.Translate(pod, namespace)
	t.add(object, false, result.Warnings...)
	t.add(object, true, result.Errors...)
	if result.More > 0 {
		text := fmt.Sprintf("and %d more; correct these first", result.More)
		t.add(object, result.Decision == injector.Reject, injector.Diagnostic{Annotation: "annotations", Text: text})
	}
	if result.Decision != injector.Translate {
		return nil
	}
	t.result.Translated++
	return apply(node, result.Patch)
}

// rejectWritable reports hand-written volumes that the driver would reject when the pod
// starts.
func (t *translation) rejectWritable(object string, pod injector.PodInfo) {
	driver := cmp.Or(t.translator.Driver, injector.DefaultDriver)
	for _, v := range pod.Spec.Volumes {
		if v.CSI != nil && v.CSI.Driver == driver && !v.CSI.ReadOnly {
			text := fmt.Sprintf(
				"is not read-only, so containers could write to its files; add \"readOnly: true\" beside \"driver: %s\"", driver)
			t.add(object, true, injector.Diagnostic{Annotation: "volume " + v.Name, Text: text})
		}
	}
}

func (t *translation) add(object string, isError bool, diagnostics ...injector.Diagnostic) {
	for _, diagnostic := range diagnostics {
		t.result.Diagnostics = append(t.result.Diagnostics, Diagnostic{object, isError, diagnostic})
	}
}
