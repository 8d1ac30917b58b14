package template

import (
	"encoding/json"
	"errors"
	"regexp"
	"strings"
	"testing"

	"github.com/hashicorp/vault/api"

	"github.com/vaultmount/vaultmount/provider/cost"
)

// canary is every secret value: it has no letter sequence that a template
// or a message has by chance.
const canary = "zq7Xcanary9wK"

func canaries() Values {
	nested := map[string]any{"password": canary, "list": []any{canary, json.Number("5")}, "map": map[string]any{"k": canary}, "number": json.Number("5"), canary: canary}
	return Values{
		{Verb: Read, Path: "kv2"}:                  {Secret: &api.Secret{RequestID: "id", Data: map[string]any{"data": nested, "metadata": map[string]any{"version": json.Number("1")}}}},
		{Verb: Read, Path: "kv1"}:                  {Secret: &api.Secret{Data: nested}},
		{Verb: List, Path: "names"}:                {Names: []string{canary, "a"}},
		NewWrite("w", map[string]string{"k": "v"}): {Secret: &api.Secret{Data: nested}},
		NewIssue("pki/issue/r", nil):               {Secret: &api.Secret{Data: map[string]any{"certificate": canary, "private_key": canary}}},
	}
}

// FuzzExecute looks for a template that escapes as a panic or costs too much, for an error
// that shows what came from Vault or from the volume's Secret, and for a result that
// CheckResult refuses though the template has it.
func FuzzExecute(f *testing.F) {
	for _, test := range errorCases(f) {
		f.Add(test.template.Text)
	}
	for _, text := range []string{
		`{{ with secret "kv2" }}{{ parseInt .Data.data.password }}{{ end }}`,
		`{{ with secret "kv2" }}{{ .Data.data.password | parseJSON }}{{ .Data.data.password | parseYAML }}{{ end }}`,
		`{{ with secret "kv2" }}{{ index .Data.data .Data.data.password 1 }}{{ end }}`,
		`{{ with secret "kv2" }}{{ executeTemplate .Data.data.password }}{{ end }}`,
		`{{ with secret "kv2" }}{{ env .Data.data.password }}{{ end }}`,
		`{{ with secret "kv2" }}{{ file .Data.data.password }}{{ end }}`,
		`{{ with secret "kv2" }}{{ "x" | writeToFile .Data.data.password "" "" "0644" }}{{ end }}`,
		`{{ with secret "kv2" }}{{ "x" | writeToFile "a" .Data.data.password .Data.data.password .Data.data.password }}{{ end }}`,
		`{{ with secret "kv2" }}{{ regexMatch (printf "(%s" .Data.data.password) "x" }}{{ end }}`,
		`{{ with secret "kv2" }}{{ secret "w" .Data.data.password }}{{ end }}`,
		`{{ with pkiCert "pki/issue/r" }}{{ .Cert }}{{ end }}`,
		`{{ range secrets "names" }}{{ .x }}{{ end }}`,
		`{{ add (secret "kv1").Data.password 1 }}`,
		`{{ eq (secret "kv1").Data.map (secret "kv1").Data.map }}`,
		`{{ explodeMap (secret "kv1").Data }}{{ toTOML (secret "kv1").Data.list }}`,
		`{{ file "/vault/custom/key" | base64Decode }}`,
		`{{ (secret "kv1").Data.password | sprig_fail }}{{ sprig_mustFromJson (secret "kv1").Data.password }}`,
		`{{ sprig_semverCompare (secret "kv1").Data.password "1.2.3" }}{{ sprig_mustToDate "2006" (secret "kv1").Data.password }}`,
		`{{ sprig_dig "map" "k" "x" "y" (secret "kv1").Data }}{{ sprig_mustSlice (secret "kv1").Data.password 1 }}`,
		`{{ sprig_urlParse (printf "%s:%s" "%zz" (secret "kv1").Data.password) }}{{ sprig_b32dec (secret "kv1").Data.password }}`,
	} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		if !isQuick(text) || strings.Contains(text, canary) {
			return
		}
		given := Template{Name: "file", Text: text, Pod: Pod{SecretKeys: map[string]string{"key": canary}}}
		var result Result
		var err error
		cost.Assert(t, len(text), func() { result, err = Execute(given, canaries()) })
		if err == nil {
			err = CheckResult(given, result)
		}
		if errors.Is(err, ErrNotAsked) {
			t.Fatalf("its own result is refused: %+v", result)
		}
		if err != nil && strings.Contains(err.Error(), canary) {
			t.Fatalf("the error shows a secret value: %v", err)
		}
	})
}

// isQuick leaves out what is bounded by the confined process and not by the
// language: functions that make much out of little, or take long.
func isQuick(text string) bool {
	digits := regexp.MustCompile(`[0-9]{3}|range +[(]?[0-9]|%[^sqdvxT]`)
	for _, big := range []string{"loop", "indent", "epeat", "ntil", "seq", "gen", "Gen", "crypt", "passw", "derive", "build", "wrap", "template", "executeTemplate"} {
		if strings.Contains(text, big) {
			return false
		}
	}
	return text != "" && len(text) <= 200 && !digits.MatchString(text)
}
