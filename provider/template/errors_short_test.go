package template

import (
	"fmt"
	"strings"
	"testing"

	"github.com/vaultmount/vaultmount/provider/cost"
	"github.com/vaultmount/vaultmount/provider/limits"
)

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
