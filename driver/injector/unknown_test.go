package injector

import (
	"strings"
	"testing"
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
			var pod PodInfo
			pod.Metadata.Annotations = map[string]string{}
			pod.Spec.Containers = []PodContainer{{Name: "app"}}
			for name, value := range annotations {
				pod.Metadata.Annotations[DefaultPrefix+name] = value
			}
			got := Translator{}.Translate(pod, "default")
			if got.Decision != Reject || len(got.Errors) != 1 || got.Errors[0].String() != DefaultPrefix+want {
				t.Errorf("decision %s: %v", got.Decision, got.Errors)
			}
			_, _, err := Translator{}.TranslateVolume(pod.Metadata.Annotations, "default")
			if err == nil || !strings.Contains(err.Error(), "names no file; add the name, for example "+family+"db") {
				t.Errorf("in a volume: %v", err)
			}
		})
	}
}
