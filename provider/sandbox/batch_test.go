package sandbox

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/vaultmount/vaultmount/provider/limits"
	"github.com/vaultmount/vaultmount/provider/template"
)

func files(texts ...string) []template.Template {
	var all []template.Template
	for i, text := range texts {
		all = append(all, template.Template{Name: fmt.Sprint("file-", i), Text: text})
	}
	return all
}

// The templates of a volume are rendered in one call, in order.
func TestFilesOfAVolume(t *testing.T) {
	t.Parallel()
	pool := startPool(t, generous())
	templates := files("one", `{{ secret "kv/a" }}`, `{{ env "NAMESPACE" }}`, typical)
	templates[2].Pod.Environment = map[string]string{"NAMESPACE": "shop"}
	results, err := pool.Render(t.Context(), templates, typicalAnswers())
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, result := range results {
		got = append(got, fmt.Sprintf("%s%v", result.Output, result.Missing))
	}
	if want := []string{"one[]", "[{read kv/a }]", "shop[]", "postgresql://u:p@postgres:5432/wizard[]"}; fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("got  %q\nwant %q", got, want)
	}
	if results, err := pool.Render(t.Context(), nil, nil); err != nil || len(results) > 0 {
		t.Errorf("no files: got %v, %v", results, err)
	}
}

// A limit of the volume, or a fault of one file, is an error of that file.
func TestFirstFileThatFailsIsNamed(t *testing.T) {
	t.Parallel()
	short := generous()
	short.CPU, short.Output = 300*time.Millisecond, 5<<20
	pool := startPool(t, short)
	large := `{{ sprig_repeat 2000000 "x" }}`
	asks := func(name string) string {
		return fmt.Sprintf(`{{ range $i := loop %d }}{{ secret (printf "%s/%%d" $i) }}{{ end }}`, limits.Dependencies.Max()/2, name)
	}
	for name, test := range map[string]struct {
		texts []string
		want  string
	}{
		"fault":        {[]string{"x", "{{ nope }}", "{{ nope }}"}, `render file "file-1": invalid template: line 1, column 4: function "nope" is not defined`},
		"CPU time":     {[]string{"x", "y", endless}, `render file "file-2": invalid template: rendering takes more than 300ms of CPU time`},
		"output":       {[]string{large, large, large}, `render file "file-2": invalid template: it and the files before it have more than 5242880 bytes`},
		"dependencies": {[]string{asks("a"), asks("b"), asks("a"), `{{ secret "c" }}`}, `render file "file-3": invalid template: the templates of the volume together: 1001 dependencies exceed the limit of 1000 (dependencies); split the volume`},
	} {
		t.Run(name, func(t *testing.T) {
			results, err := pool.Render(t.Context(), files(test.texts...), nil)
			if !errors.Is(err, template.ErrInvalid) || err.Error() != test.want || results != nil {
				t.Errorf("got  %v\nwant %s", err, test.want)
			}
			requireWorking(t, pool)
		})
	}
}

// The parser takes much memory and stack for few bytes of text: that is the worker's own.
func TestTemplatesThatAreHardToParse(t *testing.T) {
	t.Parallel()
	pool := startPool(t, generous())
	for name, unit := range map[string][3]string{
		"blocks":       {"", "{{ if 1 }}{{ end }}", ""},
		"open blocks":  {"", "{{ if 1 }}", ""},
		"definitions":  {"", `{{ define "x" }}{{ end }}`, ""},
		"actions":      {"", "{{1}}", ""},
		"numbers":      {"{{ print ", "1 ", "}}"},
		"long fields":  {"{{ print ", ".a", "}}"},
		"pipes":        {"{{ print ", "|print", "}}"},
		"parentheses":  {"{{ print ", "(1) ", "}}"},
		"open":         {"{{ print ", "(", "}}"},
		"string field": {`{{ print "x"`, `.x`, ` }}`},
		"else if":      {"{{if 1}}", "{{else if 1}}", "{{end}}"},
	} {
		t.Run(name, func(t *testing.T) {
			count := (limits.TemplateBytes.Max() - len(unit[0]) - len(unit[2])) / len(unit[1])
			_, err := render(pool, t.Context(), file(unit[0]+strings.Repeat(unit[1], count)+unit[2]), nil)
			if err != nil && !errors.Is(err, template.ErrInvalid) {
				t.Errorf("got %v", err)
			}
			t.Log(err)
			requireWorking(t, pool)
		})
	}
}
