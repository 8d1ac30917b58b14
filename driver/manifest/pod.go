package manifest

import (
	"cmp"
	"errors"
	"fmt"

	"go.yaml.in/yaml/v3"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	sigsyaml "sigs.k8s.io/yaml"

	"github.com/vaultmount/vaultmount/driver/injector"
)

func (t *translation) pod(node *yaml.Node, object, namespace string) error {
	pod, err := read(node)
	if err != nil {
		return fmt.Errorf("read the pod: %w", err)
	}
	t.refuseWritable(object, pod)
	translated := t.translator.Translate(pod, namespace)
	t.note(object, translated)
	if translated.Decision != injector.Translate {
		return nil
	}
	t.result.Translated++
	wanted := t.translator.Apply(pod, translated)
	if err := edit(node, pod, wanted); err != nil {
		return err
	}
	return check(node, wanted)
}

// refuseWritable reports volumes that somebody has written by hand and that the driver
// would refuse when the pod starts.
func (t *translation) refuseWritable(object string, pod *corev1.Pod) {
	driver := cmp.Or(t.translator.Driver, injector.DefaultDriver)
	for _, v := range pod.Spec.Volumes {
		if v.CSI == nil || v.CSI.Driver != driver || v.CSI.ReadOnly != nil && *v.CSI.ReadOnly {
			continue
		}
		t.result.Diagnostics = append(t.result.Diagnostics, Diagnostic{Object: object, Refused: true, Diagnostic: injector.Diagnostic{
			Annotation: "volume " + v.Name,
			Text:       fmt.Sprintf("is not read-only, so containers could write to its files; add \"readOnly: true\" beside \"driver: %s\"", driver),
		}})
	}
}

// check reads the pod again. What an edit has lost the pod would start without.
func check(node *yaml.Node, wanted *corev1.Pod) error {
	edited, err := read(node)
	if err != nil {
		return fmt.Errorf("read the translated pod: %w", err)
	}
	if !equality.Semantic.DeepEqual(edited, wanted) {
		return errors.New("the pod cannot be edited as it is written; write its keys out, without tags")
	}
	return nil
}

func read(node *yaml.Node) (*corev1.Pod, error) {
	text, err := yaml.Marshal(node)
	if err != nil {
		return nil, err
	}
	encoded, err := sigsyaml.YAMLToJSON(text)
	if err != nil {
		return nil, err
	}
	return injector.DecodePod(encoded)
}

func (t *translation) note(object string, translated injector.Result) {
	for _, diagnostic := range translated.Warnings {
		t.result.Diagnostics = append(t.result.Diagnostics, Diagnostic{Object: object, Diagnostic: diagnostic})
	}
	for _, diagnostic := range translated.Errors {
		t.result.Diagnostics = append(t.result.Diagnostics, Diagnostic{Object: object, Refused: true, Diagnostic: diagnostic})
	}
	if translated.More > 0 {
		rest := injector.Diagnostic{Annotation: "annotations", Text: fmt.Sprintf("and %d more; correct these first", translated.More)}
		t.result.Diagnostics = append(t.result.Diagnostics, Diagnostic{Object: object, Refused: translated.Decision == injector.Reject, Diagnostic: rest})
	}
}
