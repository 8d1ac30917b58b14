package injector

import (
	"os"
	"strings"
	"testing"
)

// The table of README.md says of every annotation what the code does: its support level,
// and which values have no effect.
func TestReadmeHasTheTable(t *testing.T) {
	t.Parallel()
	lines := readmeLines(t)
	if len(lines) != len(annotationTable()) {
		t.Errorf("README.md has %d annotations, want %d", len(lines), len(annotationTable()))
	}
	for _, row := range annotationTable() {
		line, ok := lines[row.name]
		if !ok {
			t.Errorf("README.md does not have %s", row.name)
			continue
		}
		var noop []string
		for _, value := range row.noop {
			if value == "" {
				noop = append(noop, "empty")
				continue
			}
			noop = append(noop, "`"+value+"`")
		}
		if line.level != string(row.level) || !strings.HasPrefix(line.noop, strings.Join(noop, ", ")) {
			t.Errorf("%s: README.md says %q and %q, want %q and %q", row.name, line.level, line.noop, row.level, strings.Join(noop, ", "))
		}
	}
}

type readmeLine struct {
	level, noop string
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
		lines[strings.Trim(trim(0), "| `")] = readmeLine{trim(1), trim(3)}
	}
	return lines
}

// The attributes beside annotations in a volume are in the reference of attributes.
func TestReferenceHasThePodAttributes(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("../volume/README.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, key := range []string{keyMountPath, keyPodUser, keyPodGroup, keyContainerUser, keyContainerGroup, keyTokenAudience + "<volume>", keyTokenAudience + "<volume>/<path>"} {
		if !strings.Contains(string(text), "`"+key+"`") {
			t.Errorf("driver/volume/README.md does not mention %s", key)
		}
	}
}
