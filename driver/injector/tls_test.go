package injector

import (
	"slices"
	"testing"
)

func TestFindSecretFiles(t *testing.T) {
	t.Parallel()
	text := `{{ define "x" }}{{ if (file "/vault/tls/b") }}{{ end }}{{ end }}{{ "/vault/custom/../custom/a" | file }}` +
		"{{ file `/vault/tls/c` }}" + `{{ file .x }}{{ trim "/vault/tls/d" "" }}{{ file "/etc/x" }}{{ file "/vault/tls/e`
	f := &file{attributes: map[string]attribute{attrTemplate: {value: text}}}
	Translator{}.start(PodInfo{}, "").findSecretFiles([]*file{f})
	if want := []string{"/vault/tls/b", "/vault/custom/../custom/a", "/vault/tls/c", "/etc/x"}; !slices.Equal(f.secretFiles, want) {
		t.Errorf("got %q, want %q", f.secretFiles, want)
	}
	if len(filesReading([]*file{f}, extraSecret())) == 0 || len(filesReading([]*file{f}, tlsSecret())) == 0 {
		t.Error("a key of one of the Secrets is not found")
	}
}
