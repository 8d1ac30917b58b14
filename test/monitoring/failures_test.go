package monitoring

import (
	"maps"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// failure is a section of the page about failures.
type failure struct {
	alerts []string // that fire
	may    []string // that fire if it lasts, in brackets
	text   string
}

func readFailures(t *testing.T) map[string]failure {
	t.Helper()
	failures := map[string]failure{}
	for _, section := range strings.Split(readFile(t, failuresFile), "\n### ")[1:] {
		what, text, _ := strings.Cut(section, "\n")
		f := failure{text: text}
		for _, field := range []string{"Running pods", "New pods", "Alerts", "Signs", "Fix"} {
			if strings.Count(text, "\n- "+field+": ") != 1 {
				t.Errorf("%s: does not say %q once", what, field)
			}
		}
		_, line, _ := strings.Cut(text, "\n- Alerts: ")
		line, _, _ = strings.Cut(line, "\n")
		for _, alert := range regexp.MustCompile("(\\(?)`(Vaultmount\\w+)`").FindAllStringSubmatch(line, -1) {
			if alert[1] == "" {
				f.alerts = append(f.alerts, alert[2])
			} else {
				f.may = append(f.may, alert[2])
			}
		}
		slices.Sort(f.alerts)
		failures[what] = f
	}
	return failures
}

// The page names existing alerts and metrics only, and each alert at least once.
func TestFailuresNameWhatThereIs(t *testing.T) {
	failures := readFailures(t)
	if len(failures) < 18 {
		t.Errorf("the page has %d failures", len(failures))
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
		for _, metric := range metricNames(f.text) {
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
