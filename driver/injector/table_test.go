package injector

import (
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/vaultmount/vaultmount/driver/volume"
)

// The injector's 74 constants make 76 rows: two names stand both for all files and, with
// a suffix, for one.
func TestRowsAreComplete(t *testing.T) {
	t.Parallel()
	levels := map[Level]int{}
	var names []string
	for _, row := range annotationTable() {
		levels[row.level]++
		names = append(names, row.name)
	}
	want := map[Level]int{Supported: 25, Mapped: 24, Ignored: 23, Rejected: 4}
	if !maps.Equal(levels, want) {
		t.Errorf("rows by level are %v, want %v", levels, want)
	}
	slices.Sort(names)
	if len(slices.Compact(names)) != 76 {
		t.Errorf("%d names, want 76: 74 constants, two of them also with a suffix", len(names))
	}
}

// Each annotation is in a golden case whose outcome shows it: the pod asks, and
// is not rejected before its annotations are read.
func TestEveryRowIsExercised(t *testing.T) {
	t.Parallel()
	exercised := map[string]bool{}
	for _, directory := range goldenDirectories(t) {
		c := readCase(t, directory)
		r := c.translator.start(c.pod, c.namespace)
		if !r.wantsInjection() {
			continue
		}
		r.index()
		for _, name := range r.names {
			exercised[r.rows[name].family] = true
			exercised[name] = true
		}
	}
	for _, row := range annotationTable() {
		if !exercised[row.name] && !exercised[row.family()] {
			t.Errorf("no case of testdata has %s", row.name)
		}
	}
}

// The reference of attributes has the ranges to which the driver clamps values.
func TestReferenceHasTheRanges(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("../volume/README.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		fmt.Sprintf("from `%s` to `%.0fs`", volume.Backoffs().Min, volume.Backoffs().Max.Seconds()),
		fmt.Sprintf("from `%s` to `%.0fs`", volume.ClientTimeouts().Min, volume.ClientTimeouts().Max.Seconds()),
		fmt.Sprintf("at most `%d`", volume.MaxRetries),
		fmt.Sprintf("at least `%s`", volume.StaticIntervals().Min),
	} {
		if !strings.Contains(string(text), want) {
			t.Errorf("the README of the attributes does not say %q", want)
		}
	}
}

func TestFindPrefersTheLongerFamily(t *testing.T) {
	t.Parallel()
	tests := map[string]struct{ family, suffix string }{
		"agent-inject-template-x":      {familyTemplate, "x"},
		"agent-inject-template-file-x": {familyTemplateFile, "x"},
		"agent-inject-template-file":   {familyTemplate, "file"},
		"secret-volume-path":           {"", ""},
		"secret-volume-path-x":         {familyVolumePath, "x"},
		"agent-inject-token":           {"", ""},
	}
	for name, want := range tests {
		m, ok := findRow(annotationTable(), name)
		if !ok || m.family != want.family || m.suffix != want.suffix {
			t.Errorf("%s: got %q %q %v, want %q %q", name, m.family, m.suffix, ok, want.family, want.suffix)
		}
	}
	for _, name := range []string{"", "agent-inject-secret", "agent-inject-secret-", "Role"} {
		if _, ok := findRow(annotationTable(), name); ok {
			t.Errorf("%q is known", name)
		}
	}
}

func TestDiagnosticFitsAWarning(t *testing.T) {
	t.Parallel()
	tests := map[string]Diagnostic{
		"long text":         {"vault.hashicorp.com/role", strings.Repeat("é", 300)},
		"long annotation":   {strings.Repeat("x", 300), "text"},
		"control character": {"vault.hashicorp.com/role", "a\nb"},
	}
	for name, diagnostic := range tests {
		line := diagnostic.String()
		if len(line) > maxDiagnostic || strings.Contains(line, "\n") || !strings.HasPrefix(line, diagnostic.Annotation[:20]) {
			t.Errorf("%s: %q", name, line)
		}
	}
}

func TestFamily(t *testing.T) {
	for key, want := range map[string]string{
		DefaultPrefix + "role":                          "role",
		DefaultPrefix + "agent-inject-secret-db.txt":    "agent-inject-secret-X",
		DefaultPrefix + "agent-inject-template-file-db": "agent-inject-template-file-X",
		DefaultPrefix + "agent-template-right-delim-db": "agent-template-right-delim-X",
		DefaultPrefix + "client-timeout":                "client-timeout",
		DefaultPrefix + "agent-inject-secret-":          "unknown",
		DefaultPrefix + "agent-inject-secrets":          "unknown",
		"example.com/role":                              "unknown",
	} {
		if got := (Translator{}).Family(key); got != want {
			t.Errorf("%s is of family %q, want %q", key, got, want)
		}
	}
}

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
