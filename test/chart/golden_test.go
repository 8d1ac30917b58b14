package chart

import (
	"strings"
	"testing"
)

// What the chart renders for typical values, so that whoever changes a template
// sees what becomes of them.
func TestGolden(t *testing.T) {
	for name, set := range valueSets() {
		t.Run(name, func(t *testing.T) {
			var kept []string
			for _, document := range documents(mustTemplate(t, set[0], set[1:]...)) {
				// The policy and the guard are among the manifests.
				if !isMonitoringFile(document) {
					kept = append(kept, document)
				}
			}
			compare(t, "testdata/golden/"+name+".yaml", strings.Join(kept, "---\n"))
		})
	}
}

func TestLint(t *testing.T) {
	for name, set := range valueSets() {
		t.Run(name, func(t *testing.T) {
			arguments := append([]string{"lint", directory, "--strict", "--kube-version=" + set[0]}, set[1:]...)
			// Lint knows no cluster, and so no operators.
			if name == "everything" {
				arguments = append(arguments, "--set=monitoring.podMonitor.enabled=false,monitoring.serviceMonitor.enabled=false,monitoring.rules.enabled=false")
			}
			if strings.Contains(name, "cert-manager") || name == "everything" {
				arguments = append(arguments, "--set=webhook.certManager.enabled=false")
			}
			if printed, err := helm(t, arguments...); err != nil || strings.Contains(printed, "[WARNING]") {
				t.Errorf("%v\n%s", err, printed)
			}
		})
	}
}

// isMonitoringFile finds what a file of the chart's directory monitoring is in;
// TestMonitoring holds it against that file.
func isMonitoringFile(document string) bool {
	return strings.Contains(document, "\nkind: PrometheusRule\n") || strings.Contains(document, "\n  name: vaultmount-dashboard\n")
}
