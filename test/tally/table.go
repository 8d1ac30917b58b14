package tally

import (
	"bufio"
	"cmp"
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
	sums[line.Item].Measured = cmp.Or(line.Measured, sums[line.Item].Measured)
	return nil
}

// Markdown is the table. It has a column for what was measured if a line has that.
func Markdown(lines []Line) string {
	var table strings.Builder
	measured := slices.ContainsFunc(lines, func(l Line) bool { return l.Measured != "" })
	table.WriteString("| what | tried | survived | lost |")
	if measured {
		table.WriteString(" measured |")
	}
	table.WriteString("\n|---|---:|---:|---:|")
	if measured {
		table.WriteString("---|")
	}
	for _, line := range lines {
		fmt.Fprintf(&table, "\n| %s | %d | %d | %d |", line.Item, line.Tried, line.Tried-line.Lost, line.Lost)
		if measured {
			fmt.Fprintf(&table, " %s |", line.Measured)
		}
	}
	return table.String() + "\n"
}

// Insert puts a table between the marks of a document, which are comments of a name.
func Insert(document, name, table string) (string, error) {
	begin, end := "<!-- "+name+" -->\n", "<!-- /"+name+" -->\n"
	before, rest, found := strings.Cut(document, begin)
	_, after, closed := strings.Cut(rest, end)
	if !found || !closed {
		return "", fmt.Errorf("the document lacks the lines %q and %q", strings.TrimSpace(begin), strings.TrimSpace(end))
	}
	return before + begin + table + end + after, nil
}
