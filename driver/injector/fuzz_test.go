package injector

import (
	"encoding/json"
	"maps"
	"reflect"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"

	"github.com/vaultmount/vaultmount/provider/cost"
)

// Annotations are one text for the fuzzer: key=value, with a zero byte between
// two of them.
const between = "\x00"

// annotationsOf lists what the golden cases hold, for the fuzzer to combine.
func annotationsOf(f *testing.F) []string {
	f.Helper()
	var parts []string
	for _, directory := range goldenDirectories(f) {
		for key, value := range readCase(f, directory).pod.Metadata.Annotations {
			parts = append(parts, strings.TrimPrefix(key, DefaultPrefix)+"="+value)
		}
	}
	slices.Sort(parts)
	return slices.Compact(parts)
}

// pick takes two bytes for each annotation.
func pick(parts []string, picks []byte) string {
	var picked []string
	for pair := range slices.Chunk(picks, 2) {
		index := int(pair[0])
		if len(pair) == 2 {
			index += int(pair[1]) << 8
		}
		picked = append(picked, parts[index%len(parts)])
	}
	return strings.Join(picked, between)
}

// FuzzTranslate looks for a panic, for work that costs more than in proportion to the
// pod, and for an annotation that is dropped in silence: one that neither changes the
// pod, nor is named in a diagnostic, nor spells out a default.
func FuzzTranslate(f *testing.F) {
	parts := annotationsOf(f)
	for i, part := range parts {
		f.Add([]byte{byte(i + 1), byte((i + 1) >> 8)}, part, `{{ with secret "kv/data/web" }}{{ .Data }}{{ end }}`)
	}
	f.Fuzz(func(t *testing.T, picks []byte, text, template string) {
		pod := fuzzPod(pick(parts, picks)+between+text, template)
		var got Result
		cost.Assert(t, sizeOf(pod), func() { got = Translator{}.Translate(pod, "default") })
		if got.Decision == Reject && len(got.Errors) == 0 {
			t.Fatal("rejected without an error")
		}
		lenient := Translator{Fallback: FallbackWarn}
		checkTranslation(t, goldenCase{jsonOf(t, pod), pod, "default", lenient}, lenient.Translate(pod, "default"))
		if got.Decision != Translate {
			return
		}
		checkTranslation(t, goldenCase{jsonOf(t, pod), pod, "default", Translator{}}, got)
		// One warning is for all annotations of a pod without files.
		if len(got.Volumes) == 0 && len(got.Warnings) > 0 || got.More > 0 {
			return
		}
		for key := range pod.Metadata.Annotations {
			if name, ours := strings.CutPrefix(key, DefaultPrefix); ours && isDropped(pod, got, name) {
				t.Errorf("%s=%q has no effect, and nothing says so", name, pod.Metadata.Annotations[key])
			}
		}
	})
}

// isDropped compares with the pod that lacks the annotation.
func isDropped(pod PodInfo, got Result, name string) bool {
	key := DefaultPrefix + name
	isAbout := func(n Diagnostic) bool { return n.Annotation == key || strings.Contains(n.Text, name) }
	if slices.ContainsFunc(got.Warnings, isAbout) {
		return false
	}
	without := pod
	without.Metadata.Annotations = maps.Clone(pod.Metadata.Annotations)
	delete(without.Metadata.Annotations, key)
	other := Translator{}.Translate(without, "default")
	got.Warnings, other.Warnings = nil, nil
	got.Volumes, other.Volumes = withoutSources(got.Volumes...), withoutSources(other.Volumes...)
	return reflect.DeepEqual(got, other) && !isNoop(pod, name)
}

// withoutSources leaves out what only messages show.
func withoutSources(volumes ...Volume) []Volume {
	volumes = slices.Clone(volumes)
	for i := range volumes {
		volumes[i].Sources = nil
	}
	return volumes
}

// isNoop says whether the value may pass without a trace.
func isNoop(pod PodInfo, name string) bool {
	r := Translator{}.start(pod, "default")
	r.index()
	m, ok := r.rows[name]
	if !ok {
		return false
	}
	reason := noopRules()[m.row.name]
	return reason != nil && reason(r, m, r.values[name])
}

func jsonOf(t *testing.T, pod PodInfo) []byte {
	t.Helper()
	text, err := json.Marshal(pod)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func fuzzPod(text, template string) PodInfo {
	annotations := map[string]string{
		"agent-inject":              "true",
		"role":                      "app",
		"agent-inject-template-web": template,
	}
	for part := range strings.SplitSeq(text, between) {
		name, value, _ := strings.Cut(part, "=")
		annotations[name] = value
	}
	var pod PodInfo
	pod.Metadata.Annotations = map[string]string{}
	for name, value := range annotations {
		pod.Metadata.Annotations[DefaultPrefix+name] = value
	}
	token := PodProjection{&corev1.ServiceAccountTokenProjection{Path: "token", Audience: "vault"}}
	pod.Spec.Volumes = []PodVolume{{Name: "vault-token", Projected: &PodProjected{[]PodProjection{token}}}}
	pod.Spec.SecurityContext = &PodIdentity{RunAsUser: new(int64(5000)), RunAsGroup: new(int64(6000))}
	pod.Spec.InitContainers = []PodContainer{{Name: "migrate"}}
	pod.Spec.Containers = []PodContainer{
		{Name: "app", VolumeMounts: []PodMount{{Name: "vault-token", MountPath: "/var/run/secrets/vault"}}, SecurityContext: &PodIdentity{RunAsUser: new(int64(1234))}},
		{Name: "b"},
	}
	return pod
}

// What README.md says of values without an effect in words, noopRules says in code.
func TestNoopRulesBelongToRows(t *testing.T) {
	t.Parallel()
	lines := readmeLines(t)
	for _, row := range annotationTable() {
		_, ok := noopRules()[row.name]
		if words := lines[row.name].noop; row.name != nameInject && ok != (words != "") {
			t.Errorf("%s: words %q, code %v", row.name, words, ok)
		}
	}
}
