package tally

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
)

// Read takes the lines out of what go test -json has written, those of one item
// summed up, in the order of the items' names.
func Read(output io.Reader) ([]Line, error) {
	sums := map[string]*Line{}
	for lines := bufio.NewReader(output); ; {
		text, err := lines.ReadBytes('\n')
		if len(text) > 0 {
			if err := add(sums, text); err != nil {
				return nil, err
			}
		}
		if err == io.EOF {
			break
		}
		if err != nil {
			return nil, fmt.Errorf("read the output of the tests: %w", err)
		}
	}
	var all []Line
	for _, line := range sums {
		all = append(all, *line)
	}
	slices.SortFunc(all, func(a, b Line) int { return strings.Compare(a.Item, b.Item) })
	return all, nil
}

func add(sums map[string]*Line, text []byte) error {
	var event struct{ Action, Key, Value string }
	if json.Unmarshal(text, &event) != nil || event.Action != "attr" || event.Key != key {
		return nil // any other line
	}
	var line Line
	if err := json.Unmarshal([]byte(event.Value), &line); err != nil {
		return fmt.Errorf("read a count: %w", err)
	}
	if sums[line.Item] == nil {
		sums[line.Item] = &Line{Item: line.Item}
	}
	sums[line.Item].Tried += line.Tried
	sums[line.Item].Lost += line.Lost
	return nil
}

// Markdown is the table.
func Markdown(lines []Line) string {
	var table strings.Builder
	table.WriteString("| what | tried | survived | lost |\n|---|---:|---:|---:|\n")
	for _, line := range lines {
		fmt.Fprintf(&table, "| %s | %d | %d | %d |\n", line.Item, line.Tried, line.Tried-line.Lost, line.Lost)
	}
	return table.String()
}

// The marks of the section of a document that the table is copied into.
const (
	begin = "<!-- conformance -->\n"
	end   = "<!-- /conformance -->\n"
)

// Insert puts a table between the marks of a document.
func Insert(document, table string) (string, error) {
	before, rest, found := strings.Cut(document, begin)
	_, after, closed := strings.Cut(rest, end)
	if !found || !closed {
		return "", fmt.Errorf("the document lacks the lines %q and %q", strings.TrimSpace(begin), strings.TrimSpace(end))
	}
	return before + begin + table + end + after, nil
}
