package template

import (
	"encoding/json"
	"reflect"
	"testing"

	"github.com/hashicorp/vault/api"
)

func answers() Values {
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
func TestRender(t *testing.T) {
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
			got, err := Execute(Template{Name: "file", Text: test.text}, answers())
			if err != nil {
				t.Fatal(err)
			}
			if string(got.Output) != test.want || len(got.Missing) != 0 {
				t.Errorf("got %q, missing %v\nwant %q", got.Output, got.Missing, test.want)
			}
		})
	}
}

func TestRenderReportsWhatIsMissing(t *testing.T) {
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

// What fails while an answer is missing may not fail with it, so the caller gets
// what is missing and no error.
func TestRenderJudgesNothingBeforeItHasTheAnswers(t *testing.T) {
	t.Parallel()
	text := `{{ (secret "kv2").Data.data.password | trimPrefix "db-" }}{{ index (secret "kv2").Data.data "username" }}`
	template := Template{Name: "file", Text: text, ErrorOnMissingKey: true}
	first, err := Execute(template, Values{})
	if err != nil || len(first.Missing) != 1 || first.Missing[0] != (Dependency{Verb: Read, Path: "kv2"}) {
		t.Fatalf("without answers: %+v, %v", first, err)
	}
	second, err := Execute(template, answers())
	if err != nil || string(second.Output) != "secret-passworddb-readonly-username" {
		t.Fatalf("with answers: %+v, %v", second, err)
	}
}

// Functions of sprig change maps in place; the answers serve other files too.
func TestRenderLeavesTheAnswersAlone(t *testing.T) {
	t.Parallel()
	given := answers()
	text := `{{ with secret "kv1" }}{{ $_ := sprig_set .Data "new" 1 }}{{ $_ := sprig_set .Data.b "a" 2 }}{{ end }}{{ (secret "kv1").Data.b.a }}`
	got, err := Execute(Template{Name: "file", Text: text}, given)
	if err != nil || string(got.Output) != "2" {
		t.Errorf("got %q, %v; a change must show within the template", got.Output, err)
	}
	if !reflect.DeepEqual(given, answers()) {
		t.Errorf("the answers were changed: %+v", given)
	}
}
