// Package monitoring tests what people see vaultmount by: the alerts and the
// dashboard of deploy/chart/monitoring, and what the documents say of them and of
// failures. A real Prometheus judges the rules, and watches a real driver whose real
// Vault goes away.
package monitoring

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/vaultmount/vaultmount/test/parts"
)

// What is under test, from the checkout's root.
const (
	alertsFile    = "deploy/chart/monitoring/alerts.yaml"
	dashboardFile = "deploy/chart/monitoring/dashboard.json"
	readmeFile    = "deploy/chart/monitoring/README.md"
	failuresFile  = "deploy/FAILURES.md"
)

// path is where a file of the checkout is.
func path(t *testing.T, file string) string {
	t.Helper()
	root, err := parts.Checkout()
	require.NoError(t, err)
	return filepath.Join(root, file)
}

func readFile(t *testing.T, file string) string {
	t.Helper()
	content, err := os.ReadFile(path(t, file))
	require.NoError(t, err)
	return string(content)
}

// metricNames lists vaultmount's metrics in a query.
func metricNames(query string) []string {
	found := regexp.MustCompile(`\bvaultmount_[a-z_]+`).FindAllString(query, -1)
	slices.Sort(found)
	return slices.Compact(found)
}
