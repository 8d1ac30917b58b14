package template

import (
	"reflect"
	"slices"
	"strings"
	"testing"
)

// What is foreseen is what a run would have asked.
func TestForesee(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		text  string
		plain bool
	}{
		"with":                     {`a {{ with secret "kv/a" }}{{ .Data.data.x }}{{ end }} b`, true},
		"several":                  {`{{ with secret "kv/a" }}x{{ end }}{{/* c */}}{{ with $s := secret "kv/b" }}{{ $s.Data.y }}{{ end }}{{ with secret "kv/a" }}y{{ end }}`, true},
		"one inside":               {`{{ with secret "kv/a" }}{{ with secret "kv/b" }}x{{ end }}{{ end }}`, true},
		"write":                    {`{{ with secret "pki/issue/x" "common_name=a.b" "ttl=1h" }}{{ .Data.certificate }}{{ end }}`, true},
		"if":                       {`{{ if secret "kv/a" }}x{{ end }}`, true},
		"names":                    {`{{ range secrets "kv/metadata" }}{{ . }}{{ end }}`, true},
		"a range over a secret":    {`{{ range $k, $v := secret "kv/a" }}{{ $k }}{{ end }}`, true},
		"slashes":                  {`{{ with secret " /kv/a/ " }}x{{ end }}`, true},
		"else":                     {`{{ with secret "kv/a" }}x{{ else }}{{ with secret "kv/b" }}y{{ end }}{{ end }}`, false},
		"variable":                 {`{{ $s := secret "kv/a" }}{{ with $s }}x{{ end }}`, false},
		"an action alone":          {`{{ (secret "kv/a").Data.x }}{{ with secret "kv/b" }}x{{ end }}`, false},
		"a path computed":          {`{{ with secret (printf "kv/%s" "a") }}x{{ end }}`, false},
		"a path of a variable":     {`{{ $p := "kv/a" }}{{ with secret $p }}x{{ end }}`, false},
		"piped":                    {`{{ with "kv/a" | secret }}x{{ end }}`, false},
		"definition":               {`{{ define "d" }}{{ with secret "kv/a" }}x{{ end }}{{ end }}{{ template "d" }}`, false},
		"nothing asked":            {`text`, false},
		"an empty path":            {`{{ with secret "kv/a" }}x{{ end }}{{ range secrets "" }}x{{ end }}`, true},
		"an argument that is none": {`{{ with secret "kv/a" "x" }}x{{ end }}`, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			template := Template{Name: "file", Text: c.text}
			trees, err := checkTrees(template)
			if err != nil {
				t.Fatal(err)
			}
			foreseen, plain := Foresee(template)
			if plain != c.plain {
				t.Fatalf("plain is %t", plain)
			}
			ran, err := execute(template, trees, nil)
			if plain && (err != nil || !slices.Equal(foreseen.Missing, ran.Missing) || !slices.Equal(foreseen.Used, ran.Used)) {
				t.Errorf("foreseen %+v; the run asks %q, %v", foreseen, ran.Missing, err)
			}
			// Either way, Render gives what a run does.
			got, gotErr := Render(template, nil)
			if !reflect.DeepEqual(got.Missing, ran.Missing) || !reflect.DeepEqual(got.Used, ran.Used) || (gotErr == nil) != (err == nil) {
				t.Errorf("rendered %+v, %v; the run %+v, %v", got, gotErr, ran, err)
			}
		})
	}
}

// What is refused, or takes long to parse, is for a confined process.
func TestForeseeLeavesTheRestAlone(t *testing.T) {
	t.Parallel()
	block := `{{ with secret "kv/a" }}x{{ end }}`
	for name, text := range map[string]string{
		"syntax":   block + "{{ end }}",
		"function": block + `{{ with secret "kv/b" }}{{ key "x" }}{{ end }}`,
		"long":     block + strings.Repeat("x", foreseeLimit),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if foreseen, plain := Foresee(Template{Name: "file", Text: text}); plain {
				t.Errorf("foreseen: %+v", foreseen)
			}
		})
	}
}
