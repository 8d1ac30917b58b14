package template

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/vaultmount/vaultmount/provider/cost"
	"github.com/vaultmount/vaultmount/provider/limits"
)

var update = flag.Bool("update", false, "write what the tests see into testdata")

type errorCase struct {
	name     string
	template Template
	want     string // of the file; empty with -update
}

// errorCases reads testdata/errors.txt: a line "# name", which may end with
// "[error-on-missing-key]", the template, a line "=>", the error.
func errorCases(t testing.TB) []errorCase {
	t.Helper()
	content, err := os.ReadFile("testdata/errors.txt")
	if err != nil {
		t.Fatal(err)
	}
	var cases []errorCase
	for block := range strings.SplitSeq(strings.TrimPrefix(string(content), "# "), "\n# ") {
		name, rest, _ := strings.Cut(block, "\n")
		text, want, ok := strings.Cut(rest, "\n=>")
		if !ok {
			t.Fatalf("errors.txt: %q lacks a line =>", name)
		}
		_, missing := strings.CutSuffix(name, "[error-on-missing-key]")
		cases = append(cases, errorCase{name, Template{Name: "file", Text: text, ErrorOnMissingKey: missing}, strings.TrimSpace(want)})
	}
	return cases
}

// What users read for frequent mistakes: where, what is wrong, and the remedy. To write
// the file again: go test ./provider/template -update
func TestErrorsAreClear(t *testing.T) {
	t.Parallel()
	cases := errorCases(t)
	var report strings.Builder
	for _, test := range cases {
		_, err := Execute(test.template, canaries())
		if !errors.Is(err, ErrInvalid) && !errors.Is(err, ErrData) {
			t.Errorf("%s: got %v, want ErrInvalid or ErrData", test.name, err)
			continue
		}
		if strings.Contains(err.Error(), canary) {
			t.Errorf("%s: the error shows a secret value: %v", test.name, err)
		}
		if !*update && err.Error() != test.want {
			t.Errorf("%s:\ngot  %s\nwant %s", test.name, err, test.want)
		}
		fmt.Fprintf(&report, "# %s\n%s\n=>\n%s\n\n", test.name, test.template.Text, err)
	}
	if *update {
		if err := os.WriteFile("testdata/errors.txt", []byte(strings.TrimSuffix(report.String(), "\n")), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// Whatever the author of a template writes long, its error is short. Not parallel: it
// counts what the whole process allocates.
func TestErrorsAreShort(t *testing.T) {
	long := strings.Repeat("x", limits.TemplateBytes.Max()/2)
	keys := map[string]string{}
	for i := range 1000 {
		keys[fmt.Sprintf("key-%d", i)] = ""
	}
	for name, text := range map[string]string{
		"function":      `{{ ` + long + ` }}`,
		"variable":      `{{ $` + long + ` }}`,
		"number":        `{{ 1` + long + ` }}`,
		"character":     `{{ '` + long + `' }}`,
		"template":      `{{ template "` + long + `" }}`,
		"definition":    `{{ define "` + long + `" }}a{{ end }}{{ define "` + long + `" }}b{{ end }}`,
		"code":          `{{ index "` + long + `" "a" }}`,
		"field":         `{{ (secret "kv2").` + long + ` }}`,
		"key":           `{{ (secret "kv2").Data.` + long + ` }}`,
		"env":           `{{ env "` + long + `" }}`,
		"file":          `{{ file "/` + long + `" }}`,
		"absent key":    `{{ file "/vault/custom/` + long + `" }}`,
		"written path":  `{{ writeToFile "` + long + `" "" "" "" "" }}`,
		"written owner": `{{ writeToFile "a" "` + long + `" "" "" "" }}`,
		"written mode":  `{{ writeToFile "a" "" "" "` + long + `" "" }}`,
		"control signs": `{{ writeToFile "` + strings.Repeat(`\x01`, 100) + `" "" "" "" "" }}`,
		"sprig_fail":    `{{ sprig_fail "` + long + `" }}`,
		"key=value":     `{{ secret "a" "` + long + `" }}`,
	} {
		t.Run(name, func(t *testing.T) {
			var err error
			cost.Assert(t, len(text), func() {
				_, err = Execute(Template{Name: "file", Text: text, ErrorOnMissingKey: true, Pod: Pod{SecretKeys: keys}}, canaries())
			})
			if err == nil || len(err.Error()) > limits.ErrorBytes.Max() {
				t.Errorf("got %d bytes: %.500v", len(fmt.Sprint(err)), err)
			}
		})
	}
}
