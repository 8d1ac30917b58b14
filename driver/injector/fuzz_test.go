package injector

import (
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
		for key, value := range readCase(f, directory).pod.Annotations {
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
			t.Fatal("refused without a reason")
		}
		lenient := Translator{Fallback: FallbackWarn}
		checkTranslation(t, goldenCase{pod, "default", lenient}, lenient.Translate(pod, "default"))
		if got.Decision != Translate {
			return
		}
		checkTranslation(t, goldenCase{pod, "default", Translator{}}, got)
		// One warning stands for all annotations of a pod without files.
		if len(got.Volumes) == 0 && len(got.Warnings) > 0 || got.More > 0 {
			return
		}
		for key := range pod.Annotations {
			if name, ours := strings.CutPrefix(key, DefaultPrefix); ours && isDropped(pod, got, name) {
				t.Errorf("%s=%q has no effect, and nothing says so", name, pod.Annotations[key])
			}
		}
	})
}

// isDropped compares with the pod that lacks the annotation.
func isDropped(pod *corev1.Pod, got Result, name string) bool {
	key := DefaultPrefix + name
	isAbout := func(n Diagnostic) bool { return n.Annotation == key || strings.Contains(n.Text, name) }
	if slices.ContainsFunc(got.Warnings, isAbout) {
		return false
	}
	without := pod.DeepCopy()
	delete(without.Annotations, key)
	other := Translator{}.Translate(without, "default")
	got.Warnings, other.Warnings = nil, nil
	got.Volumes, other.Volumes = withoutOrigins(got.Volumes...), withoutOrigins(other.Volumes...)
	return reflect.DeepEqual(got, other) && !isQuiet(pod, name)
}

// withoutOrigins leaves out what only messages show.
func withoutOrigins(volumes ...Volume) []Volume {
	volumes = slices.Clone(volumes)
	for i := range volumes {
		volumes[i].Origins = nil
	}
	return volumes
}

// isQuiet says whether the value may pass without a trace.
func isQuiet(pod *corev1.Pod, name string) bool {
	r := Translator{}.read(pod, "default")
	r.index()
	m, ok := r.matches[name]
	if !ok {
		return false
	}
	reason := quietReasons()[m.row.names[0]]
	return reason != nil && reason(r, m, r.values[name])
}

func fuzzPod(text, template string) *corev1.Pod {
	annotations := map[string]string{
		"agent-inject":              "true",
		"role":                      "app",
		"agent-inject-template-web": template,
	}
	for part := range strings.SplitSeq(text, between) {
		name, value, _ := strings.Cut(part, "=")
		annotations[name] = value
	}
	pod := &corev1.Pod{}
	pod.Annotations = map[string]string{}
	for name, value := range annotations {
		pod.Annotations[DefaultPrefix+name] = value
	}
	token := corev1.VolumeProjection{ServiceAccountToken: &corev1.ServiceAccountTokenProjection{Path: "token", Audience: "vault"}}
	pod.Spec.Volumes = []corev1.Volume{{
		Name:         "vault-token",
		VolumeSource: corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{Sources: []corev1.VolumeProjection{token}}},
	}}
	pod.Spec.SecurityContext = &corev1.PodSecurityContext{RunAsUser: new(int64(5000)), RunAsGroup: new(int64(6000))}
	pod.Spec.InitContainers = []corev1.Container{{Name: "migrate"}}
	pod.Spec.Containers = []corev1.Container{
		{Name: "app", VolumeMounts: []corev1.VolumeMount{{Name: "vault-token", MountPath: "/var/run/secrets/vault"}}, SecurityContext: &corev1.SecurityContext{RunAsUser: new(int64(1234))}},
		{Name: "b"},
	}
	return pod
}

// What the rows say of quiet values in words, quietReasons says in code.
func TestQuietReasonsBelongToRows(t *testing.T) {
	t.Parallel()
	for _, row := range rows() {
		_, ok := quietReasons()[row.names[0]]
		if row.names[0] != nameInject && ok != (row.quiet != "") {
			t.Errorf("%s: words %q, code %v", row.names[0], row.quiet, ok)
		}
	}
}
