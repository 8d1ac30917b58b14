package limits

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"unicode/utf8"
)

func TestCheckAtTheLimitAndOneAbove(t *testing.T) {
	for _, l := range All() {
		t.Run(l.String(), func(t *testing.T) {
			if err := l.Check(l.Max()); err != nil {
				t.Errorf("at the limit: %v", err)
			}
			var exceeded *ExceededError
			err := l.Check(l.Max() + 1)
			if !errors.As(err, &exceeded) || !strings.Contains(err.Error(), l.String()) {
				t.Errorf("one above the limit: got %v, want an ExceededError that names the limit", err)
			}
		})
	}
}

func TestReferenceHasEachLimit(t *testing.T) {
	reference, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range All() {
		if row := fmt.Sprintf("| `%s` | %s %s |", l, thousands(l.Max()), l.Unit()); !strings.Contains(string(reference), row) {
			t.Errorf("README.md lacks the row that starts with %s", row)
		}
	}
}

// thousands writes a number as the reference does: 1,048,576.
func thousands(n int) string {
	if n < 1000 {
		return fmt.Sprint(n)
	}
	return fmt.Sprintf("%s,%03d", thousands(n/1000), n%1000)
}

func TestShorten(t *testing.T) {
	for _, test := range []struct {
		name, text string
		max        int
		want       string
	}{
		{"short", "abcdefgh", 8, "abcdefgh"},
		{"long", "0123456789abcdefghij", 14, "012 ... efghij"},
		{"between runes", "éééééééééééé", 14, "é ... ééé"},
	} {
		t.Run(test.name, func(t *testing.T) {
			if got := Shorten(test.text, test.max); got != test.want || len(got) > test.max || !utf8.ValidString(got) {
				t.Errorf("got %q, want %q", got, test.want)
			}
		})
	}
}

func TestTruncate(t *testing.T) {
	for _, test := range []struct {
		name, text string
		max        int
		want       string
	}{
		{"short", "abc", 3, "abc"},
		{"long", "abcdefgh", 6, "abc..."},
		{"between runes", "aééé", 6, "aé..."},
	} {
		t.Run(test.name, func(t *testing.T) {
			if got := Truncate(test.text, test.max); got != test.want || !utf8.ValidString(got) {
				t.Errorf("got %q, want %q", got, test.want)
			}
		})
	}
}
