package injector

import (
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// An annotation that ends where its file's name should be. The API server takes
// none, so that this is of a manifest on its way through translate, or of a volume.
func TestAnnotationsWithoutTheirFileAreRefused(t *testing.T) {
	t.Parallel()
	families := []string{
		familySecret, familyTemplate, familyTemplateFile, familyFile, familyPerms, familyCommand, familyMissingKey,
		familyLeftDelim, familyRightDelim, familyVolumePath, familyPreserveCase,
	}
	for _, family := range families {
		t.Run(family, func(t *testing.T) {
			t.Parallel()
			annotations := map[string]string{"agent-inject": "true", "role": "app", "agent-inject-secret-db": "kv/db", family: "/vault/custom/x"}
			want := family + ": names no file; add the name, for example " + family + "db"
			pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Annotations: map[string]string{}}, Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "app"}}}}
			for name, value := range annotations {
				pod.Annotations[DefaultPrefix+name] = value
			}
			got := Translator{}.Translate(pod, "default")
			if got.Decision != Reject || len(got.Errors) != 1 || got.Errors[0].String() != DefaultPrefix+want {
				t.Errorf("decision %s: %v", got.Decision, got.Errors)
			}
			_, _, err := Translator{}.TranslateVolume(pod.Annotations, "default")
			if err == nil || !strings.Contains(err.Error(), "names no file; add the name, for example "+family+"db") {
				t.Errorf("in a volume: %v", err)
			}
		})
	}
}
