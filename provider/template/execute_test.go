package template

import (
	"encoding/json"
	"reflect"
	"testing"
	"text/template/parse"

	"github.com/hashicorp/vault/api"
)

func someValues() Values {
	return Values{
		{Verb: Read, Path: "kv2"}: {Secret: &api.Secret{Data: map[string]any{
			"data": map[string]any{"username": "db-readonly-username", "password": "db-secret-password"},
			"metadata": map[string]any{
				"created_time": "2019-12-20T18:17:50.930264759Z", "custom_metadata": nil,
				"deletion_time": "", "destroyed": false, "version": json.Number("2"),
			},
		}}},
		{Verb: Read, Path: "kv1"}: {Secret: &api.Secret{Data: map[string]any{
			"b": map[string]any{"a": []any{json.Number("1"), "x", nil}, "b": json.Number("1")}, "a": json.Number("1.50"), "z": "<&>",
		}}},
		{Verb: List, Path: "names"}:                                      {Names: []string{"b", "a"}},
		NewWrite("pki/issue/r", map[string]string{"common_name": "x=y"}): {Secret: &api.Secret{Data: map[string]any{"certificate": "PEM"}}},
	}
}

// The outputs of the built-in templates are an interface; the expected bytes
// are the injector's.
func TestExecute(t *testing.T) {
	t.Parallel()
	tests := map[string]struct{ text, want string }{
		"map of a KV version 2 secret": {
			"{{ with secret \"kv2\" }}{{ range $k, $v := .Data }}{{ $k }}: {{ $v }}\n{{ end }}{{ end }}",
			"data: map[password:db-secret-password username:db-readonly-username]\nmetadata: map[created_time:2019-12-20T18:17:50.930264759Z custom_metadata:<nil> deletion_time: destroyed:false version:2]\n",
		},
		"map of a KV version 1 secret": {
			"{{ with secret \"kv1\" }}{{ range $k, $v := .Data }}{{ $k }}: {{ $v }}\n{{ end }}{{ end }}",
			"a: 1.50\nb: map[a:[1 x <nil>] b:1]\nz: <&>\n",
		},
		"json": {
			"{{ with secret \"kv1\" }}{{ .Data | toJSON }}\n{{ end }}",
			`{"a":1.50,"b":{"a":[1,"x",null],"b":1},"z":"\u003c\u0026\u003e"}` + "\n",
		},
		"connection string": {
			"{{- with secret \"kv2\" -}}\npostgresql://{{ .Data.data.username }}:{{ .Data.data.password }}@postgres:5432/wizard\n{{- end -}}\n",
			"postgresql://db-readonly-username:db-secret-password@postgres:5432/wizard",
		},
		"names in order":         {`{{ range secrets "/names/" }}{{ . }},{{ end }}`, "a,b,"},
		"write":                  {`{{ with secret "pki/issue/r" "common_name = x=y" }}{{ .Data.certificate }}{{ end }}`, "PEM"},
		"missing key":            {`{{ with secret "kv2" }}{{ .Data.data.nope }}{{ end }}`, "<no value>"},
		"a helper":               {`{{ "x" | toUpper | base64Encode }}{{ sprig_upper "y" }}`, "WA==Y"},
		"a template in template": {`{{ define "t" }}[{{ . }}]{{ end }}{{ template "t" 1 }}{{ executeTemplate "t" 2 }}`, "[1][2]"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got, err := Execute(Template{Name: "file", Text: test.text}, someValues())
			if err != nil {
				t.Fatal(err)
			}
			if string(got.Output) != test.want || len(got.Missing) != 0 {
				t.Errorf("got %q, missing %v\nwant %q", got.Output, got.Missing, test.want)
			}
		})
	}
}

func TestExecuteReportsMissingDependencies(t *testing.T) {
	t.Parallel()
	text := `{{ with secret "a" }}{{ secret .Data.next }}{{ end }}{{ secret "a" }}{{ secret "b" "k=v" }}{{ secrets "c/" }}`
	got, err := Execute(Template{Name: "file", Text: text}, Values{})
	if err != nil {
		t.Fatal(err)
	}
	want := []Dependency{{Verb: Read, Path: "a"}, NewWrite("b", map[string]string{"k": "v"}), {Verb: List, Path: "c"}}
	if len(got.Missing) != len(want) {
		t.Fatalf("missing %v, want %v", got.Missing, want)
	}
	for i := range want {
		if got.Missing[i] != want[i] {
			t.Errorf("missing %v, want %v", got.Missing[i], want[i])
		}
	}
}

// What fails without a value may succeed with it, so the caller gets the missing
// dependencies and no error.
func TestExecuteFailsOnlyWithAllValues(t *testing.T) {
	t.Parallel()
	text := `{{ (secret "kv2").Data.data.password | trimPrefix "db-" }}{{ index (secret "kv2").Data.data "username" }}`
	template := Template{Name: "file", Text: text, ErrorOnMissingKey: true}
	first, err := Execute(template, Values{})
	if err != nil || len(first.Missing) != 1 || first.Missing[0] != (Dependency{Verb: Read, Path: "kv2"}) {
		t.Fatalf("without values: %+v, %v", first, err)
	}
	second, err := Execute(template, someValues())
	if err != nil || string(second.Output) != "secret-passworddb-readonly-username" {
		t.Fatalf("with values: %+v, %v", second, err)
	}
}

// Functions of sprig change maps in place; other files use the values too.
func TestExecuteDoesNotChangeValues(t *testing.T) {
	t.Parallel()
	given := someValues()
	text := `{{ with secret "kv1" }}{{ $_ := sprig_set .Data "new" 1 }}{{ $_ := sprig_set .Data.b "a" 2 }}{{ end }}{{ (secret "kv1").Data.b.a }}`
	got, err := Execute(Template{Name: "file", Text: text}, given)
	if err != nil || string(got.Output) != "2" {
		t.Errorf("got %q, %v; a change must show within the template", got.Output, err)
	}
	if !reflect.DeepEqual(given, someValues()) {
		t.Errorf("the values were changed: %+v", given)
	}
}

// A template that needs nothing of consul-template becomes the same without it, and
// fails with the same words.
func TestExecuteStd(t *testing.T) {
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
			checked, err := parseAndCheck(c.template)
			if err != nil {
				t.Fatal(err)
			}
			if library := checked.callsLibrary(); library != c.library {
				t.Fatalf("calls the library: %t", library)
			}
			run := func(how func(*execution, map[string]*parse.Tree) ([]byte, error)) outcome {
				e := newExecution(c.template, someValues())
				output, err := how(e, checked.trees)
				if err != nil {
					return outcome{failure: executionError(c.template, err, e.failure).Error(), missing: len(e.missing)}
				}
				return outcome{output: string(output), missing: len(e.missing), files: len(e.files)}
			}
			want := run((*execution).executeConsulTemplate)
			if c.library {
				return
			}
			if got := run((*execution).executeStd); got != want {
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
func TestExecuteStdIsQuicker(t *testing.T) {
	usual := Template{Name: "file", Text: `{{ with secret "kv2" }}{{ .Data.data.username }}{{ end }}`}
	checked, err := parseAndCheck(usual)
	if err != nil {
		t.Fatal(err)
	}
	e := newExecution(usual, someValues())
	allocated := func(how func(map[string]*parse.Tree) ([]byte, error)) float64 {
		return testing.AllocsPerRun(10, func() {
			if _, err := how(checked.trees); err != nil {
				t.Fatal(err)
			}
		})
	}
	alone, library := allocated(e.executeStd), allocated(e.executeConsulTemplate)
	if alone > library/2 {
		t.Errorf("%v allocations alone, %v with the library", alone, library)
	}
	if allocated := testing.AllocsPerRun(10, func() { _, _ = Execute(usual, someValues()) }); allocated > library {
		t.Errorf("it takes %v allocations with the check, the library's %v", allocated, library)
	}
}

// BenchmarkExecute is one run of the usual template. A publish takes two: one to
// find the dependencies, one with the values.
func BenchmarkExecute(b *testing.B) {
	t := Template{Name: "file", Text: "{{- with secret \"kv2\" -}}\npostgresql://{{ .Data.data.username }}:{{ .Data.data.password }}@postgres:5432/wizard\n{{- end -}}\n"}
	given := someValues()
	for b.Loop() {
		if _, err := Execute(t, given); err != nil {
			b.Fatal(err)
		}
	}
}
