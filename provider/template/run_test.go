package template

import (
	"testing"
	"text/template/parse"
)

// A template that needs nothing of consul-template becomes the same without it, and
// fails with the same words.
func TestRunAlone(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		template Template
		library  bool
	}{
		"the usual":           {Template{Text: "{{- with secret \"kv2\" -}}\n{{ .Data.data.username }}\n{{- end -}}\n"}, false},
		"a map":               {Template{Text: `{{ with secret "kv2" }}{{ range $k, $v := .Data }}{{ $k }}: {{ $v }}{{ end }}{{ end }}`}, false},
		"builtins":            {Template{Text: `{{ if and (eq 1 1) (not false) }}{{ len "abc" }}{{ printf "%05d" 7 }}{{ index "abc" 1 }}{{ slice "abc" 1 2 }}{{ html "<" }}{{ end }}`}, false},
		"definitions":         {Template{Text: `{{ define "d" }}[{{ . }}]{{ end }}{{ template "d" 1 }}{{ block "b" 2 }}<{{ . }}>{{ end }}`}, false},
		"own functions":       {Template{Text: `{{ env "NAMESPACE" }}{{ range loop 3 }}{{ . }}{{ end }}{{ range secrets "names" }}{{ . }}{{ end }}{{ with secret "pki/issue/r" "common_name=x=y" }}{{ .Data.certificate }}{{ end }}`}, false},
		"other delimiters":    {Template{Text: `{{ [[ with secret "kv2" ]][[ .Data.data.username ]][[ end ]]`, LeftDelim: "[[", RightDelim: "]]"}, false},
		"equal delimiters":    {Template{Text: `{{ %% with secret "kv2" %%[%% .Data.data.username %%]%% end %%%%/* a comment */%%`, LeftDelim: "%%", RightDelim: "%%"}, false},
		"one delimiter":       {Template{Text: `{{ [[ with secret "kv2" }}[[ .Data.data.username }}[[ end }}`, LeftDelim: "[["}, false},
		"a key that is not":   {Template{Text: `{{ with secret "kv2" }}{{ .Data.data.nope }}{{ .Data.nope.nope }}{{ end }}`}, false},
		"a key, an error":     {Template{Text: `{{ with secret "kv2" }}{{ .Data.nope }}{{ end }}`, ErrorOnMissingKey: true}, false},
		"a field of a string": {Template{Text: `{{ with secret "kv2" }}{{ .Data.data.username.x }}{{ end }}`}, false},
		"an own error":        {Template{Text: `{{ mustEnv (print "NO" "PE") }}`}, false},
		"what is missing":     {Template{Text: `{{ with secret "other" }}{{ .Data.x }}{{ end }}{{ (secret "third").Data.x }}`}, false},
		"a file beside":       {Template{Text: `{{ "x" | writeToFile "/vault/secrets/beside" "" "" "0600" }}`}, false},
		"break and continue":  {Template{Text: `{{ range $i := loop 9 }}{{ if eq $i 3 }}{{ continue }}{{ end }}{{ if eq $i 5 }}{{ break }}{{ end }}{{ $i }}{{ end }}`}, false},
		"a helper":            {Template{Text: `{{ "x" | toUpper }}`}, true},
		"a helper, defined":   {Template{Text: `{{ define "d" }}{{ sprig_upper . }}{{ end }}{{ template "d" "x" }}`}, true},
		"a helper, in else":   {Template{Text: `{{ if true }}x{{ else }}{{ trimSpace "y" }}{{ end }}`}, true},
		"a helper, in a pipe": {Template{Text: `{{ printf "%s" (toLower "X") }}`}, true},
		"executeTemplate":     {Template{Text: `{{ define "d" }}x{{ end }}{{ executeTemplate "d" }}`}, true},
		"a field of a helper": {Template{Text: `{{ (scratch).Key "x" }}`}, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c.template.Name = "file"
			c.template.Pod.Environment = map[string]string{"NAMESPACE": "default"}
			trees, err := checkTrees(c.template)
			if err != nil {
				t.Fatal(err)
			}
			if library := callsLibrary(trees); library != c.library {
				t.Fatalf("calls the library: %t", library)
			}
			run := func(how func(*execution, map[string]*parse.Tree) ([]byte, error)) outcome {
				e := &execution{template: c.template, answers: answers(), secrets: map[Dependency]any{}}
				output, err := how(e, trees)
				if err != nil {
					return outcome{failure: executionFailure(c.template, err, e.failure).Error(), missing: len(e.missing)}
				}
				return outcome{output: string(output), missing: len(e.missing), files: len(e.files)}
			}
			want := run((*execution).runWithLibrary)
			if c.library {
				return
			}
			if got := run((*execution).runAlone); got != want {
				t.Errorf("alone: %+v\nwith the library: %+v", got, want)
			}
		})
	}
}

type outcome struct {
	output, failure string
	missing, files  int
}

// The point of it: no three hundred functions for a template that calls two.
func TestRunAloneIsQuicker(t *testing.T) {
	usual := Template{Name: "file", Text: `{{ with secret "kv2" }}{{ .Data.data.username }}{{ end }}`}
	trees, err := checkTrees(usual)
	if err != nil {
		t.Fatal(err)
	}
	e := &execution{template: usual, answers: answers(), secrets: map[Dependency]any{}}
	allocated := func(how func(map[string]*parse.Tree) ([]byte, error)) float64 {
		return testing.AllocsPerRun(10, func() {
			if _, err := how(trees); err != nil {
				t.Fatal(err)
			}
		})
	}
	alone, library := allocated(e.runAlone), allocated(e.runWithLibrary)
	if alone > library/2 {
		t.Errorf("%v allocations alone, %v with the library", alone, library)
	}
	if allocated := testing.AllocsPerRun(10, func() { _, _ = execute(usual, trees, answers()) }); allocated > library/2 {
		t.Errorf("a run of it makes %v allocations, the library's %v", allocated, library)
	}
}
