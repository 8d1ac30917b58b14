package template

import (
	"encoding/json"
	"maps"
	"strconv"
	"strings"
	"testing"

	"github.com/hashicorp/vault/api"

	"github.com/vaultmount/vaultmount/provider/cost"
	"github.com/vaultmount/vaultmount/provider/limits"
)

// plainTemplates are those that are filled in, and their neighbours that are not.
func plainTemplates() map[string]struct {
	text  string
	plain bool
} {
	return map[string]struct {
		text  string
		plain bool
	}{
		"a field":                       {`a {{ with secret "kv2" }}{{ .Data.data.password }}{{ end }} b`, true},
		"trimmed":                       {"a\n{{- with secret \"kv2\" -}}\n  {{ .Data.data.password }}\n{{- end }}", true},
		"several":                       {`{{ with secret "kv2" }}{{ .Data.data.number }}{{/* c */}}{{ .Data.data.password }}{{ end }}{{ with secret "kv1" }}{{ .Data.number }}{{ end }}`, true},
		"a secret twice":                {`{{ with secret "kv1" }}{{ .Data.number }}{{ end }}{{ with secret "/kv1/" }}{{ .Data.number }}{{ end }}`, true},
		"text alone":                    {"text", true},
		"a map and a list":              {`{{ with secret "kv2" }}{{ .Data.data.map }} {{ .Data.data.list }} {{ .Data }}{{ end }}`, true},
		"a write":                       {`{{ with secret "w" "k=v" }}{{ .Data.password }}{{ end }}`, true},
		"true":                          {`{{ with secret "odd" }}{{ .Data.yes }}{{ end }}`, true},
		"a range":                       {`{{ with secret "kv2" }}{{ range $k, $v := .Data.data }}{{ $k }}: {{ $v }}` + "\n" + `{{ end }}{{ end }}`, true},
		"a range over all":              {`{{ with secret "kv2" }}{{ range $k, $v := .Data }}{{ $k }}: {{ $v }}` + "\n" + `{{ end }}{{ end }}`, true},
		"a range over nothing":          {`{{ with secret "odd" }}{{ range $k, $v := .Data.empty }}{{ $k }}{{ end }}{{ end }}`, true},
		"a range with one name twice":   {`{{ with secret "kv1" }}{{ range $k, $k := .Data }}{{ $k }} {{ end }}{{ end }}`, true},
		"a key that is missing":         {`{{ with secret "kv2" }}{{ .Data.data.other }}{{ end }}`, false},
		"a field of a string":           {`{{ with secret "kv2" }}{{ .Data.data.password.x }}{{ end }}`, false},
		"nil":                           {`{{ with secret "odd" }}{{ .Data.nothing }}{{ end }}`, false},
		"nil in a range":                {`{{ with secret "odd" }}{{ range $k, $v := .Data }}{{ $v }}{{ end }}{{ end }}`, false},
		"a kind that JSON has not":      {`{{ with secret "odd" }}{{ .Data.pointer }}{{ end }}`, false},
		"an answer that is missing":     {`{{ with secret "other" }}{{ .Data.x }}{{ end }}`, false},
		"an answer that is empty":       {`{{ with secret "empty" }}x{{ end }}`, false},
		"a lease":                       {`{{ with secret "kv2" }}{{ .LeaseID }}{{ end }}`, false},
		"a method":                      {`{{ with secret "kv2" }}{{ .Auth }}{{ end }}`, false},
		"a variable is set":             {`{{ with secret "kv2" }}{{ $x := .Data.data.password }}{{ end }}`, false},
		"a variable for the secret":     {`{{ with $s := secret "kv2" }}{{ $s.Data.data.password }}{{ end }}`, false},
		"a pipe":                        {`{{ with secret "kv2" }}{{ .Data.data.password | toUpper }}{{ end }}`, false},
		"an else":                       {`{{ with secret "kv2" }}{{ .Data.data.password }}{{ else }}x{{ end }}`, false},
		"a condition inside":            {`{{ with secret "kv2" }}{{ if .Data.data.password }}x{{ end }}{{ end }}`, false},
		"a range with an else":          {`{{ with secret "kv2" }}{{ range $k, $v := .Data.data }}{{ $k }}{{ else }}x{{ end }}{{ end }}`, false},
		"a range over a list":           {`{{ with secret "kv2" }}{{ range $k, $v := .Data.data.list }}{{ $v }}{{ end }}{{ end }}`, false},
		"a range without names":         {`{{ with secret "kv2" }}{{ range .Data.data }}{{ . }}{{ end }}{{ end }}`, false},
		"a range with one name":         {`{{ with secret "kv2" }}{{ range $v := .Data.data }}{{ $v }}{{ end }}{{ end }}`, false},
		"a range that sets names":       {`{{ with secret "kv2" }}{{ $k := 1 }}{{ $v := 1 }}{{ range $k, $v = .Data.data }}{{ $k }}{{ end }}{{ end }}`, false},
		"a field in a range":            {`{{ with secret "kv2" }}{{ range $k, $v := .Data }}{{ $v.password }}{{ end }}{{ end }}`, false},
		"a dot in a range":              {`{{ with secret "kv2" }}{{ range $k, $v := .Data }}{{ . }}{{ end }}{{ end }}`, false},
		"the root in a range":           {`{{ with secret "kv2" }}{{ range $k, $v := .Data }}{{ $ }}{{ end }}{{ end }}`, false},
		"a variable is set in a range":  {`{{ with secret "kv2" }}{{ range $k, $v := .Data }}{{ $x := $k }}{{ end }}{{ end }}`, false},
		"a break":                       {`{{ with secret "kv2" }}{{ range $k, $v := .Data }}{{ break }}{{ end }}{{ end }}`, false},
		"another function":              {`{{ with env "POD_NAME" }}x{{ end }}`, false},
		"an action at the top":          {`{{ (secret "kv2").Data.data.password }}`, false},
		"a definition":                  {`{{ define "d" }}x{{ end }}{{ with secret "kv2" }}{{ template "d" }}{{ end }}`, false},
		"a path of no characters":       {`{{ with secret "/" }}x{{ end }}`, false},
		"an argument that is no pair":   {`{{ with secret "kv2" "x" }}x{{ end }}`, false},
		"what does not parse":           {`{{ with secret "kv2" }}`, false},
		"a function that is not served": {`{{ with secret "kv2" }}{{ key "x" }}{{ end }}`, false},
	}
}

// plainAnswers are canaries, and what a decoder of JSON does not make.
func plainAnswers() Answers {
	answers := canaries()
	number := 5
	answers[Query{Verb: Read, Path: "odd"}] = Answer{Secret: &api.Secret{Data: map[string]any{
		"yes": true, "nothing": nil, "pointer": &number, "empty": map[string]any{},
	}}}
	answers[Query{Verb: Read, Path: "empty"}] = Answer{}
	return answers
}

// What is filled in is what a run makes.
func TestFill(t *testing.T) {
	t.Parallel()
	for name, c := range plainTemplates() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if _, plain := requireFilled(t, c.text); plain != c.plain {
				t.Errorf("plain is %t", plain)
			}
		})
	}
}

func requireFilled(t *testing.T, text string) (filled Result, plain bool) {
	t.Helper()
	template := Template{Name: "file", Text: text}
	filled, plain = Fill(template, plainAnswers())
	if !plain {
		return filled, false
	}
	ran, err := Render(template, plainAnswers())
	if err != nil {
		t.Fatalf("filled in: %q; the run: %v", filled.Output, err)
	}
	if string(filled.Output) != string(ran.Output) || len(ran.Files)+len(ran.Missing) > 0 {
		t.Errorf("filled in: %q; the run: %q, %v, missing %v", filled.Output, ran.Output, ran.Files, ran.Missing)
	}
	if len(filled.Used) != len(ran.Used) {
		t.Fatalf("filled in with %v; the run used %v", filled.Used, ran.Used)
	}
	for i, query := range ran.Used {
		if filled.Used[i] != query {
			t.Errorf("filled in with %v; the run used %v", filled.Used, ran.Used)
		}
	}
	return filled, true
}

// FuzzFill looks for a template that is filled in otherwise than a run would.
func FuzzFill(f *testing.F) {
	for _, c := range plainTemplates() {
		f.Add(c.text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		if text == "" {
			return
		}
		cost.Assert(t, len(text), func() { Fill(Template{Name: "file", Text: text}, plainAnswers()) })
		requireFilled(t, text)
	})
}

// What would take long is for a confined process.
func TestFillIsBounded(t *testing.T) {
	t.Parallel()
	deep := any("x")
	for range fillDepth {
		deep = map[string]any{"x": deep}
	}
	data := map[string]any{
		"large": strings.Repeat("x", fillBytes-partBytes), "larger": strings.Repeat("x", fillBytes-partBytes+1),
		"number": json.Number(strings.Repeat("1", fillBytes)), "keys": map[string]any{strings.Repeat("x", fillBytes): ""},
		"list": make([]any, fillBytes/partBytes), "deep": deep, "deeper": []any{deep},
	}
	answers := Answers{{Verb: Read, Path: "kv"}: {Secret: &api.Secret{Data: data}}}
	for body, want := range map[string]bool{
		`{{ .Data.large }}`:                                       true,
		`{{ .Data.large }}{{ .Data.large }}`:                      false,
		`{{ .Data.larger }}`:                                      false,
		`{{ .Data.number }}`:                                      false,
		`{{ .Data.keys }}`:                                        false,
		`{{ .Data.list }}`:                                        false,
		`{{ .Data.deep }}`:                                        true,
		`{{ .Data.deeper }}`:                                      false,
		`{{ range $k, $v := .Data }}{{ $k }}{{ end }}`:            true,
		`{{ range $k, $v := .Data }}{{ $k }}{{ $v }}{{ end }}`:    false,
		strings.Repeat("x", foreseeLimit):                         false,
		`{{ .Data.large }}` + strings.Repeat("x", partBytes+1):    false,
		`{{ range $k, $v := .Data.keys }}{{ $k }}` + `a{{ end }}`: false,
	} {
		text := `{{ with secret "kv" }}` + body + `{{ end }}`
		if _, plain := Fill(Template{Name: "file", Text: text}, answers); plain != want {
			t.Errorf("%.60s: plain is %t", body, plain)
		}
	}
}

// A secret may have very many keys, and a template may go through them again and
// again without writing one. Not parallel: it counts what the whole process allocates.
func TestFillLeavesManyKeysToAProcess(t *testing.T) {
	many := map[string]any{}
	for i := range fillPairs + 1 {
		many[strconv.Itoa(i)] = ""
	}
	few := maps.Clone(many)
	delete(few, "0")
	half := map[string]any{}
	for i := range fillPairs / 2 {
		half[strconv.Itoa(i)] = ""
	}
	huge := map[string]any{}
	for i := range limits.VolumeResponseValues.Max() {
		huge[strconv.Itoa(i)] = ""
	}
	answers := Answers{{Verb: Read, Path: "kv"}: {Secret: &api.Secret{Data: map[string]any{"many": many, "few": few, "half": half, "huge": huge}}}}
	ranges := func(key string) string { return `{{ range $k, $v := .Data.` + key + ` }}{{ end }}` }
	for _, test := range []struct {
		name, body string
		want       bool
	}{
		{"at the limit", ranges("few"), true},
		{"one above", ranges("many"), false},
		{"in two ranges", ranges("half") + ranges("half"), true},
		{"in three ranges", ranges("half") + ranges("half") + ranges("half"), false},
		{"in many ranges", strings.Repeat(ranges("huge"), 80), false},
	} {
		t.Run(test.name, func(t *testing.T) {
			text := `{{ with secret "kv" }}` + test.body + `{{ end }}`
			cost.Assert(t, len(text), func() {
				if _, plain := Fill(Template{Name: "file", Text: text}, answers); plain != test.want {
					t.Errorf("plain is %t", plain)
				}
			})
		})
	}
}
