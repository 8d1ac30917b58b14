// Package compatibility holds vaultmount against the real Vault Agent: each
// template of testdata is rendered by both, from the same Vault, and what they
// make is compared to the byte, with owners and modes. Nothing is expected but
// that they agree; where they do not, the reference of the language says why.
package compatibility

import (
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestTemplatesRenderAsByTheVaultAgent(t *testing.T) {
	const enough = 120
	cases := readCases(t)
	if len(cases) < enough {
		t.Errorf("there are %d templates, want at least %d", len(cases), enough)
	}
	vault := startVault(t)
	agent, vaultmount := newAgent(t, vault), newVaultmount(t, vault)
	// Two at a time: an agent has about as much to do as two processors have.
	turns := make(chan struct{}, 2)
	t.Run("case", func(t *testing.T) {
		for _, c := range cases {
			t.Run(c.name, func(t *testing.T) {
				t.Parallel()
				turns <- struct{}{}
				defer func() { <-turns }()
				compare(t, c, agent.render(t, c), vaultmount.render(t, c))
			})
		}
	})
}

func compare(t *testing.T, c testCase, theirs, ours outcome) {
	t.Helper()
	same := theirs.equals(ours, c.normalise)
	switch {
	case c.differs && same:
		t.Errorf("there is no difference any more; take it out of the reference\nboth: %s", ours.describe())
	case !c.differs && !same:
		t.Errorf("the programs disagree\nVault Agent: %s\nvaultmount:  %s", theirs.describe(), ours.describe())
	case !c.differs && c.fails != (theirs.failure != ""):
		t.Errorf("fails is %t, but\nVault Agent: %s\nvaultmount:  %s", c.fails, theirs.describe(), ours.describe())
	}
	if testing.Verbose() {
		t.Logf("\nVault Agent: %s\nvaultmount:  %s", theirs.describe(), ours.describe())
	}
}

// The reference names every difference, and no other.
func TestTheReferenceListsTheDifferences(t *testing.T) {
	const path = "../../provider/template/README.md"
	content, err := os.ReadFile(path)
	require.NoError(t, err)
	_, section, ok := strings.Cut(string(content), "\n## Differences from the Vault Agent\n")
	if !ok {
		t.Fatal("the reference has no section about differences")
	}
	listed := regexp.MustCompile("`(difference-[a-z0-9-]+)`").FindAllStringSubmatch(section, -1)
	var names []string
	for _, match := range listed {
		names = append(names, match[1])
	}
	for _, c := range readCases(t) {
		if c.differs != slices.Contains(names, c.name) {
			t.Errorf("%s: differs is %t, and the reference lists it: %t", c.name, c.differs, !c.differs)
		}
		names = slices.DeleteFunc(names, func(name string) bool { return name == c.name })
	}
	if len(names) > 0 {
		t.Errorf("the reference lists %q, for which there is no template", names)
	}
}
