package monitoring

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"sigs.k8s.io/yaml"

	"github.com/vaultmount/vaultmount/test/parts"
)

// ruleFile is a Prometheus rules file.
type ruleFile struct {
	Groups []ruleGroup `json:"groups"`
}

type ruleGroup struct {
	Name  string `json:"name"`
	Rules []rule `json:"rules"`
}

type rule struct {
	Alert       string            `json:"alert"`
	Expr        string            `json:"expr"`
	For         string            `json:"for"`
	Labels      map[string]string `json:"labels"`
	Annotations map[string]string `json:"annotations"`
}

func readRules(t *testing.T) []rule {
	t.Helper()
	var file ruleFile
	require.NoError(t, yaml.UnmarshalStrict([]byte(readFile(t, alertsFile)), &file))
	var all []rule
	for _, group := range file.Groups {
		all = append(all, group.Rules...)
	}
	return all
}

func TestRulesAreValid(t *testing.T) {
	promtool(t, "check", "rules", path(t, alertsFile))
}

func TestAlertsFireWhenTheyShould(t *testing.T) {
	promtool(t, "test", "rules", filepath.Join("testdata", "alerts.test.yaml"))
}

// What promtool tests must be all there is.
func TestEachAlertIsTried(t *testing.T) {
	text := readFile(t, "test/monitoring/testdata/alerts.test.yaml")
	for _, rule := range readRules(t) {
		if !strings.Contains(text, `alertname="`+rule.Alert+`"`) {
			t.Errorf("no test has %s fire", rule.Alert)
		}
		healthy, _, _ := strings.Cut(text, "promql_expr_test")
		for _, metric := range metricNames(rule.Expr) {
			if !strings.Contains(healthy, metric+"{") {
				t.Errorf("the healthy series lack %s of %s", metric, rule.Alert)
			}
		}
	}
}

// An alert says what is wrong, why its threshold is what it is, and where to read
// what to do.
func TestAlertsAreActionable(t *testing.T) {
	readme := readFile(t, readmeFile)
	for _, rule := range readRules(t) {
		for _, annotation := range []string{"summary", "description", "threshold"} {
			if strings.TrimSpace(rule.Annotations[annotation]) == "" {
				t.Errorf("%s lacks the annotation %s", rule.Alert, annotation)
			}
		}
		if !slices.Contains([]string{"critical", "warning"}, rule.Labels["severity"]) || rule.For == "" {
			t.Errorf("%s has severity %q, for %q", rule.Alert, rule.Labels["severity"], rule.For)
		}
		want := "https://github.com/vaultmount/vaultmount/blob/main/" + readmeFile + "#" + strings.ToLower(rule.Alert)
		if got := rule.Annotations["runbook_url"]; got != want {
			t.Errorf("%s has the runbook %s, want %s", rule.Alert, got, want)
		}
		if !strings.Contains(readme, "\n### "+rule.Alert+"\n") {
			t.Errorf("%s has no heading for %s", readmeFile, rule.Alert)
		}
	}
	for _, heading := range regexp.MustCompile(`(?m)^### (Vaultmount\w+)$`).FindAllStringSubmatch(readme, -1) {
		if !slices.ContainsFunc(readRules(t), func(r rule) bool { return r.Alert == heading[1] }) {
			t.Errorf("%s describes %s, which there is not", readmeFile, heading[1])
		}
	}
}

// promtool runs the real one, which must be content.
func promtool(t *testing.T, arguments ...string) {
	t.Helper()
	part, err := parts.PrometheusServer(t.Context(), os.Stderr)
	require.NoError(t, err)
	if output, err := exec.CommandContext(t.Context(), part.Promtool, arguments...).CombinedOutput(); err != nil {
		t.Errorf("promtool %s: %v\n%s", strings.Join(arguments, " "), err, output)
	}
}
