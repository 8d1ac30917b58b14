package template

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"
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

// What users get to read for the mistakes that they make. The file is for reading:
// every message says where, what is wrong, and the way out if there is one. To
// write it anew: go test ./provider/template -update
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
