package monitoring

import (
	"maps"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// failure is a row of the table of failures.
type failure struct {
	what   string
	alerts []string // that fire
	may    []string // that fire if it lasts, in brackets
	row    string
}

func readFailures(t *testing.T) map[string]failure {
	t.Helper()
	failures := map[string]failure{}
	for line := range strings.Lines(readFile(t, failuresFile)) {
		cells := strings.Split(strings.Trim(strings.TrimSpace(line), "|"), " | ")
		if !strings.HasPrefix(line, "| ") || strings.HasPrefix(line, "| what is wrong") {
			continue
		}
		if len(cells) != 6 {
			t.Errorf("a row has %d cells: %s", len(cells), line)
			continue
		}
		f := failure{what: strings.TrimSpace(cells[0]), row: line}
		for _, alert := range regexp.MustCompile("(\\(?)`(Vaultmount\\w+)`").FindAllStringSubmatch(cells[3], -1) {
			if alert[1] == "" {
				f.alerts = append(f.alerts, alert[2])
			} else {
				f.may = append(f.may, alert[2])
			}
		}
		slices.Sort(f.alerts)
		failures[f.what] = f
	}
	return failures
}

// The table speaks of alerts and metrics that there are, and says of each alert what
// may be behind it.
func TestFailuresNameWhatThereIs(t *testing.T) {
	failures := readFailures(t)
	if len(failures) < 18 {
		t.Errorf("the table has %d rows", len(failures))
	}
	there := allMetrics(t)
	var rules, named []string
	for _, rule := range readRules(t) {
		rules = append(rules, rule.Alert)
	}
	for _, what := range slices.Sorted(maps.Keys(failures)) {
		f := failures[what]
		for _, alert := range slices.Concat(f.alerts, f.may) {
			if !slices.Contains(rules, alert) {
				t.Errorf("%s: there is no alert %s", what, alert)
			}
			named = append(named, alert)
		}
		for _, metric := range metricNames(f.row) {
			if there[metric] == "" {
				t.Errorf("%s: there is no metric %s", what, metric)
			}
		}
	}
	for _, alert := range rules {
		if !slices.Contains(named, alert) {
			t.Errorf("no failure has %s fire", alert)
		}
	}
}
