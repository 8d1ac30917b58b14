package chart

import (
	"encoding/json"
	"os"
	"reflect"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/yaml"
)

// The rules and the dashboard arrive as they are written: they have placeholders of
// their own, which are not the chart's.
func TestMonitoringFilesArriveAsTheyAre(t *testing.T) {
	rendered := mustTemplate(t, newest, address, "--set=monitoring.rules.enabled=true,monitoring.dashboard.enabled=true")
	t.Run("rules", func(t *testing.T) {
		text, err := os.ReadFile(directory + "/monitoring/alerts.yaml")
		require.NoError(t, err)
		var want any
		require.NoError(t, yaml.Unmarshal(text, &want))
		got := *object[map[string]any](t, rendered, "PrometheusRule", "vaultmount")
		if !reflect.DeepEqual(got["spec"], want) {
			t.Errorf("the rules are\n%v\nand should be\n%v", got["spec"], want)
		}
	})
	t.Run("dashboard", func(t *testing.T) {
		text, err := os.ReadFile(directory + "/monitoring/dashboard.json")
		require.NoError(t, err)
		got := object[corev1.ConfigMap](t, rendered, "ConfigMap", "vaultmount-dashboard").Data["vaultmount.json"]
		if strings.TrimSpace(got) != strings.TrimSpace(string(text)) || !json.Valid([]byte(got)) {
			t.Errorf("the dashboard is\n%s", got)
		}
	})
}
