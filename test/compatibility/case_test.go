package compatibility

import (
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// testCase is one file of testdata. Lines "#: SETTING VALUE" may stand before the
// template, which is all that follows them.
type testCase struct {
	name                  string
	text                  string
	leftDelim, rightDelim string
	errorOnMissingKey     bool
	// fails says that neither program renders it.
	fails bool
	// differs says that the programs disagree, for a reason that the reference gives.
	differs bool
	// normalise takes out of the files what is new each time; nil for nothing.
	normalise func(string) string
}

func readCases(t *testing.T) []testCase {
	t.Helper()
	paths, err := filepath.Glob("testdata/*.tmpl")
	require.NoError(t, err)
	var cases []testCase
	for _, path := range paths {
		content, err := os.ReadFile(path)
		require.NoError(t, err)
		c := testCase{name: strings.TrimSuffix(filepath.Base(path), ".tmpl"), text: string(content)}
		for strings.HasPrefix(c.text, "#: ") {
			setting, rest, _ := strings.Cut(c.text, "\n")
			c.text = rest
			c.set(t, strings.TrimPrefix(setting, "#: "))
		}
		cases = append(cases, c)
	}
	return cases
}

func (c *testCase) set(t *testing.T, setting string) {
	t.Helper()
	name, value, _ := strings.Cut(setting, " ")
	var err error
	switch name {
	case "left-delim":
		c.leftDelim = value
	case "right-delim":
		c.rightDelim = value
	case "error-on-missing-key":
		c.errorOnMissingKey = true
	case "fails":
		c.fails = true
	case "differs":
		c.differs = true
	case "text": // as Go quotes it, for what an editor would change
		c.text, err = strconv.Unquote(value)
	case "normalise":
		c.normalise = normaliser(value)
	default:
		t.Fatalf("%s: there is no setting %q", c.name, name)
	}
	if err != nil {
		t.Fatalf("%s: %v", c.name, err)
	}
}

// normaliser is "pem", which keeps of each block its type, and of a certificate
// whose it is; or a regular expression for what to replace.
func normaliser(value string) func(string) string {
	if value == "pem" {
		return describePEM
	}
	pattern := regexp.MustCompile(value)
	return func(text string) string { return pattern.ReplaceAllString(text, "(new each time)") }
}
