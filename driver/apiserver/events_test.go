package apiserver

import (
	"strings"
	"testing"
	"unicode/utf8"
)

func TestShorten(t *testing.T) {
	t.Parallel()
	for name, text := range map[string]string{
		"short":      "all is well",
		"as long":    strings.Repeat("x", longest),
		"too long":   strings.Repeat("x", longest+1),
		"characters": strings.Repeat("é", longest),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got := shorten(text)
			if len(got) > longest || !utf8.ValidString(got) || len(text) <= longest && got != text || len(got) < min(len(text), longest-4) {
				t.Errorf("got %d bytes of %d", len(got), len(text))
			}
		})
	}
}
