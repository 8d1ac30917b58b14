package render

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"github.com/hashicorp/vault/api"
)

func answers() Answers {
	return Answers{
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
			got, err := Render(Template{Name: "file", Text: test.text}, answers())
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
	got, err := Render(Template{Name: "file", Text: text}, Answers{})
	if err != nil {
		t.Fatal(err)
	}
	want := []Query{{Verb: Read, Path: "a"}, NewWrite("b", map[string]string{"k": "v"}), {Verb: List, Path: "c"}}
	if len(got.Missing) != len(want) {
		t.Fatalf("missing %v, want %v", got.Missing, want)
	}
	for i := range want {
		if got.Missing[i] != want[i] {
			t.Errorf("missing %v, want %v", got.Missing[i], want[i])
		}
	}
}

func TestRenderRefuses(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		template Template
		kind     error
		want     string
	}{
		"syntax":              {Template{Text: "a\n{{ if }}x{{ end }}"}, ErrInvalid, `template: file:2: missing value for if`},
		"unclosed":            {Template{Text: "{{ with secret `x` }}"}, ErrInvalid, `unexpected EOF`},
		"unknown function":    {Template{Text: "{{ nope }}"}, ErrInvalid, `invalid template: template: file:1: function "nope" not defined`},
		"other delimiters":    {Template{Text: "[[ nope ]]", LeftDelim: "[[", RightDelim: "]]"}, ErrInvalid, `function "nope" not defined`},
		"file":                {Template{Text: `{{ file "/etc/shadow" }}`}, ErrInvalid, `file:1:3: the function file is not available: it would read a file of the node`},
		"in a dead branch":    {Template{Text: `{{ if false }}{{ else }}{{ with 1 }}{{ range .x }}{{ plugin "id" }}{{ end }}{{ end }}{{ end }}`}, ErrInvalid, `the function plugin is not available`},
		"in an argument":      {Template{Text: `{{ printf "%s" (env "HOME" | toUpper) }}`}, ErrInvalid, `the function env is not available`},
		"in a chain":          {Template{Text: `{{ (sockaddr "x").y }}`}, ErrInvalid, `the function sockaddr is not available`},
		"in a definition":     {Template{Text: `{{ define "x" }}{{ nomadVar "x" }}{{ end }}`}, ErrInvalid, `the function nomadVar is not available: it asks Nomad`},
		"in a template call":  {Template{Text: `{{ template "x" (key "y") }}`}, ErrInvalid, `the function key is not available: it asks Consul`},
		"missing key":         {Template{Text: `{{ with secret "kv2" }}{{ .Data.data.nope }}{{ end }}`, ErrorOnMissingKey: true}, ErrData, `line 1, column 31, at <.Data.data.nope>: map has no entry for key "nope"`},
		"field of a string":   {Template{Text: `{{ with secret "kv2" }}{{ .Data.data.password.x }}{{ end }}`}, ErrData, `can't evaluate field x in type interface {}`},
		"argument not pair":   {Template{Text: `{{ secret "x" "nopair" }}`}, ErrInvalid, `secret: argument 1 after the path is not key=value`},
		"empty path":          {Template{Text: `{{ secret "/" }}`}, ErrInvalid, `secret: the path is empty`},
		"value in reason":     {Template{Text: `{{ with secret "kv2" }}{{ range .Data.data.password.x }}{{ end }}{{ end }}`}, ErrData, `can't evaluate field x in type interface {}`},
		"value in function":   {Template{Text: `{{ with secret "kv2" }}{{ parseInt .Data.data.password }}{{ end }}`}, ErrData, withheld},
		"range over a string": {Template{Text: `{{ with secret "kv2" }}{{ range $i, $c := .Data.data.password }}{{ $c.x }}{{ end }}{{ end }}`}, ErrData, withheld},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test.template.Name = "file"
			_, err := Render(test.template, answers())
			if !errors.Is(err, test.kind) || !strings.Contains(err.Error(), test.want) {
				t.Fatalf("got  %v\nwant %v … %s", err, test.kind, test.want)
			}
			if strings.Contains(err.Error(), "db-secret-password") {
				t.Errorf("the error shows a secret value: %v", err)
			}
		})
	}
}

// FuzzRender looks for a template that escapes as a panic, and for an error that
// shows what came from Vault.
func FuzzRender(f *testing.F) {
	for _, text := range []string{
		`{{ with secret "kv2" }}{{ parseInt .Data.data.password }}{{ end }}`,
		`{{ range secrets "names" }}{{ . }}{{ end }}`,
		`{{ index (secret "kv1").Data.b.a 7 }}`,
		`{{ (secret "kv2").Data.data.password | parseJSON }}`,
	} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		// Size is bounded by the confined process, not by the language.
		if text == "" || len(text) > 200 || strings.Contains(text, "loop") || strings.Contains(text, "sprig_") || strings.Contains(text, "indent") {
			return
		}
		_, err := Render(Template{Name: "file", Text: text}, answers())
		if err != nil && strings.Contains(err.Error(), "db-secret-password") {
			t.Fatalf("the error shows a secret value: %v", err)
		}
	})
}
