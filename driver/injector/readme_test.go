package injector

import (
	"os"
	"strings"
	"testing"
)

// The table of README.md says of every annotation what the code does: its class,
// and which values pass without a message.
func TestReadmeTellsTheRows(t *testing.T) {
	t.Parallel()
	lines := readmeLines(t)
	if len(lines) != len(rows()) {
		t.Errorf("README.md has %d annotations, want %d", len(lines), len(rows()))
	}
	for _, row := range rows() {
		name := "`" + strings.Join(row.names, "`, `") + "`"
		cells, ok := lines[name]
		if !ok {
			t.Errorf("README.md does not have %s", name)
			continue
		}
		if cells.class != string(row.class) || cells.quiet != row.quiet {
			t.Errorf("%s: README.md says class %q and quiet %q, want %q and %q", name, cells.class, cells.quiet, row.class, row.quiet)
		}
	}
}

type readmeLine struct {
	class, quiet string
}

func readmeLines(t *testing.T) map[string]readmeLine {
	t.Helper()
	text, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	lines := map[string]readmeLine{}
	for line := range strings.Lines(string(text)) {
		cells := strings.Split(strings.TrimSpace(line), " |")
		if len(cells) != 5 || !strings.HasPrefix(line, "| `") {
			continue
		}
		trim := func(i int) string { return strings.TrimSpace(cells[i]) }
		lines[strings.TrimPrefix(trim(0), "| ")] = readmeLine{trim(1), trim(3)}
	}
	return lines
}

// What stands beside annotations in a volume is in the reference of attributes.
func TestReferenceTellsTheFacts(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("../volume/README.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, key := range []string{keyMountPath, keyPodUser, keyPodGroup, keyContainerUser, keyContainerGroup, verbTokenAudience + "/<volume>", verbTokenAudience + "/<volume>/<path>"} {
		if !strings.Contains(string(text), "`"+key+"`") {
			t.Errorf("driver/volume/README.md does not mention %s", key)
		}
	}
}
