package e2e

import (
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	jsonpatch "gopkg.in/evanphx/json-patch.v4"
	corev1 "k8s.io/api/core/v1"

	"github.com/vaultmount/vaultmount/driver/injector"
	"github.com/vaultmount/vaultmount/driver/volume"
	"github.com/vaultmount/vaultmount/provider/template"
)

// stricter are pods that the policy or its guard rejects and the webhook does not: in
// the first no container has a volume for the driver to look at what else may be wrong,
// and the others the webhook leaves alone.
func stricter() map[string]string {
	return map[string]string{
		"asks-without-files":             "vault.hashicorp.com/agent-inject: no annotation asks for a file",
		"asks-running-pod":               "vault.hashicorp.com/agent-inject: the pod's status says that it runs already",
		"asks-marked-but-without-volume": "vault.hashicorp.com/agent-inject-status: the pod is marked as injected",
	}
}

// apiServers are refused both ways, but by the policy in the API server's own
// words: the pod mounts a volume that nobody adds.
func apiServers() map[string]string {
	return map[string]string{
		"login-token-volume-mounted-only": `volumeMounts[0].name: Not found: "other"`,
		"mount-itself-and-below":          `volumeMounts[0].name: Not found: "vault-secrets"`,
	}
}

// The webhook translates what it sees of a pod in the API server; the driver
// translates what the policy has put into the pod's volumes. Both lead to the
// same pod, with the same files in the same places, or to a refusal that names
// the same annotation.
func TestPolicyAndWebhookAgree(t *testing.T) {
	pods := corpus(t)
	seen := admitUntranslated(t, pods)
	installPolicy(t)
	byPolicy := admit(t, pods)
	same, refused := 0, 0
	for _, pod := range pods {
		got := byPolicy[pod.Name]
		// The driver refuses a bad template of a pod that the webhook has translated.
		translation := translated(t, seen[pod.Name])
		why := refusedWith(t, got, pod.Namespace)
		switch words := stricter()[pod.Name]; {
		case words != "":
			if translation.Decision == injector.Reject || !strings.Contains(why, words) {
				t.Errorf("%s: %s, and by the policy %q", pod.Name, translation.Decision, why)
			}
		case translation.Decision == injector.Reject:
			refused++
			requireSameRefusal(t, pod.Name, translation.Errors, why)
		case why != "":
			t.Errorf("%s: the policy leads to a refusal: %s", pod.Name, why)
		default:
			same++
			want := patched(t, seen[pod.Name], translation.Patch)
			want.Status = got.pod.Status
			requireSamePod(t, pod.Namespace, want, got.pod)
		}
	}
	t.Logf("%d pods are the same and %d are refused both ways", same, refused)
	if same < 60 || refused < 60 {
		t.Error("the corpus is too small to prove anything")
	}
}

// translated is what the webhook and then the driver make of a pod.
func translated(t *testing.T, pod *corev1.Pod) injector.Result {
	t.Helper()
	text, err := json.Marshal(pod)
	require.NoError(t, err)
	info, err := injector.DecodePod("Pod", text)
	require.NoError(t, err)
	return injector.Translator{CheckTemplate: checkTemplate}.Translate(info, pod.Namespace)
}

func checkTemplate(file volume.File, text, mountPath string) error {
	return template.Check(template.Template{
		Name: file.Path, Text: text, LeftDelim: file.LeftDelim, RightDelim: file.RightDelim, Pod: template.Pod{MountPath: mountPath},
	})
}

// patched applies a patch with the library of the API server.
func patched(t *testing.T, pod *corev1.Pod, operations []injector.Operation) *corev1.Pod {
	t.Helper()
	before, err := json.Marshal(pod)
	require.NoError(t, err)
	text, err := json.Marshal(operations)
	require.NoError(t, err)
	patch, err := jsonpatch.DecodePatch(text)
	require.NoError(t, err)
	after, err := patch.Apply(before)
	require.NoError(t, err)
	changed := &corev1.Pod{}
	require.NoError(t, json.Unmarshal(after, changed))
	return changed
}

// refusedWith is what a user reads: of the API server, or of the driver when the pod
// starts.
func refusedWith(t *testing.T, got admitted, namespace string) string {
	t.Helper()
	if got.pod == nil && got.refusal == "" {
		t.Fatal("the API server says nothing")
	}
	if got.pod == nil {
		return got.refusal
	}
	for _, v := range mountedVolumes(got.pod) {
		if _, err := published(v, namespace); err != nil {
			return err.Error()
		}
	}
	return ""
}

// mountedVolumes are those that the kubelet publishes: it passes over a volume
// that no container mounts.
func mountedVolumes(pod *corev1.Pod) []corev1.Volume {
	mounted := mountedNames(pod)
	return slices.DeleteFunc(slices.Clone(pod.Spec.Volumes), func(v corev1.Volume) bool { return v.CSI == nil || !mounted[v.Name] })
}

// published is what the driver makes of a volume before it asks Vault.
func published(v corev1.Volume, namespace string) (volume.Spec, error) {
	settings := injector.Translator{}
	attributes := v.CSI.VolumeAttributes
	if !settings.IsPassthrough(attributes) {
		return volume.Parse(attributes)
	}
	translated, _, err := settings.TranslateVolume(attributes, namespace)
	if err != nil {
		return volume.Spec{}, err
	}
	for _, file := range translated.Spec.Files {
		text := translated.Spec.Text(file)
		if err := checkTemplate(file, text, translated.Spec.MountPath); err != nil {
			return volume.Spec{}, fmt.Errorf("%s%s: %w", translated.Sources["template/"+file.Path], translated.Sources["secret/"+file.Path], err)
		}
	}
	return translated.Spec, nil
}

func requireSameRefusal(t *testing.T, name string, refusals []injector.Diagnostic, why string) {
	t.Helper()
	if words := apiServers()[name]; words != "" && strings.Contains(why, words) {
		return
	}
	// Of several annotations, either may be named first.
	isNamed := func(n injector.Diagnostic) bool {
		return strings.Contains(why, n.Annotation+":") || strings.Contains(why, fmt.Sprintf("%q", n.Annotation))
	}
	if !slices.ContainsFunc(refusals, isNamed) {
		t.Errorf("%s: refused for %v, by the policy for %q", name, refusals, why)
	}
}

// requireSamePod compares the pods, volumes by what the driver makes of them.
func requireSamePod(t *testing.T, namespace string, want, got *corev1.Pod) {
	t.Helper()
	wantSpecs, gotSpecs := takeSpecs(t, namespace, want), takeSpecs(t, namespace, got)
	if !reflect.DeepEqual(wantSpecs, gotSpecs) {
		t.Errorf("%s: the webhook leads to\n%+v\nand the policy to\n%+v", want.Name, wantSpecs, gotSpecs)
	}
	if !reflect.DeepEqual(want, got) {
		t.Errorf("%s: the webhook leads to the pod\n%+v\nand the policy to\n%+v", want.Name, want, got)
	}
}

// takeSpecs takes the attributes out of the pod, in which two ways are allowed to
// differ.
func takeSpecs(t *testing.T, namespace string, pod *corev1.Pod) map[string]volume.Spec {
	t.Helper()
	specs := map[string]volume.Spec{}
	for i, v := range pod.Spec.Volumes {
		if v.CSI == nil || v.CSI.Driver != injector.DefaultDriver {
			continue
		}
		spec, err := published(v, namespace)
		if err != nil {
			t.Errorf("%s: %v", pod.Name, err)
		}
		specs[v.Name] = spec
		pod.Spec.Volumes[i].CSI.VolumeAttributes = nil
	}
	return specs
}
