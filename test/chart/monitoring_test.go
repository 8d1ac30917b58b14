package chart

import (
	"encoding/json"
	"maps"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/yaml"
)

// What Prometheus finds the pods by: labels and port names are in two objects each,
// and have to fit.
func TestMonitorsFindThePods(t *testing.T) {
	rendered := mustTemplate(t, newest, values("everything"))
	for name, port := range map[string]string{"vaultmount": "metrics", "vaultmount-webhook": "health"} {
		t.Run(name, func(t *testing.T) {
			labels, ports := podsOf(t, rendered, name)
			if !slices.Contains(ports, port) {
				t.Errorf("the pods have the ports %q", ports)
			}
			label := "app.kubernetes.io/name"
			monitor := *object[monitorObject](t, rendered, "PodMonitor", name)
			if monitor.Spec.Selector.MatchLabels[label] != labels[label] || monitor.Spec.JobLabel != label || monitor.Spec.Pods[0].Port != port || monitor.Spec.Pods[0].Interval != "15s" {
				t.Errorf("the PodMonitor is %+v", monitor)
			}
			if monitor.Metadata.Labels["release"] != "prometheus" {
				t.Errorf("the PodMonitor has the labels %v", monitor.Metadata.Labels)
			}
			rendered := mustTemplate(t, newest, values("everything"), "--set=monitoring.podMonitor.enabled=false,monitoring.serviceMonitor.enabled=true")
			service := object[corev1.Service](t, rendered, "Service", name+"-metrics")
			monitor = *object[monitorObject](t, rendered, "ServiceMonitor", name)
			if service.Spec.Selector[label] != labels[label] || service.Spec.Ports[0].TargetPort.StrVal != port {
				t.Errorf("the Service is %+v", service.Spec)
			}
			if !maps.Equal(monitor.Spec.Selector.MatchLabels, service.Labels) || monitor.Spec.JobLabel != label || monitor.Spec.Services[0].Port != service.Spec.Ports[0].Name {
				t.Errorf("the ServiceMonitor is %+v", monitor)
			}
		})
	}
}

// monitorObject is as much of a PodMonitor or a ServiceMonitor as the chart writes.
type monitorObject struct {
	APIVersion string `json:"apiVersion"`
	Kind       string `json:"kind"`
	Metadata   struct {
		Name      string            `json:"name"`
		Namespace string            `json:"namespace"`
		Labels    map[string]string `json:"labels"`
	} `json:"metadata"`
	Spec struct {
		JobLabel string `json:"jobLabel"`
		Selector struct {
			MatchLabels map[string]string `json:"matchLabels"`
		} `json:"selector"`
		Pods     []endpoint `json:"podMetricsEndpoints"`
		Services []endpoint `json:"endpoints"`
	} `json:"spec"`
}

type endpoint struct {
	Port     string `json:"port"`
	Interval string `json:"interval"`
}

// podsOf are the labels and the names of the ports of the driver's or the webhook's
// pods.
func podsOf(t *testing.T, rendered, name string) (map[string]string, []string) {
	t.Helper()
	var pods corev1.PodTemplateSpec
	if name == "vaultmount" {
		pods = object[appsv1.DaemonSet](t, rendered, "DaemonSet", name).Spec.Template
	} else {
		pods = object[appsv1.Deployment](t, rendered, "Deployment", name).Spec.Template
	}
	var ports []string
	for _, port := range pods.Spec.Containers[0].Ports {
		ports = append(ports, port.Name)
	}
	return pods.Labels, ports
}

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
