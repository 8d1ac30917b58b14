package monitoring

import (
	"context"
	"crypto/tls"
	"errors"
	"maps"
	"net/http"
	"net/http/httptest"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"

	"github.com/vaultmount/vaultmount/driver/admission"
	"github.com/vaultmount/vaultmount/driver/annotation"
)

// driverMetrics are the driver's by type. There is no endpoint yet that tells them.
func driverMetrics(*testing.T) map[string]string {
	return map[string]string{
		"vaultmount_publish_duration_seconds":       "histogram",
		"vaultmount_calls_total":                    "counter",
		"vaultmount_vault_requests_total":           "counter",
		"vaultmount_vault_request_duration_seconds": "histogram",
		"vaultmount_refreshes_total":                "counter",
		"vaultmount_render_duration_seconds":        "histogram",
		"vaultmount_renders_total":                  "counter",
		"vaultmount_render_worker_kills_total":      "counter",
		"vaultmount_volumes":                        "gauge",
		"vaultmount_volumes_failing":                "gauge",
		"vaultmount_sessions":                       "gauge",
		"vaultmount_sessions_failing":               "gauge",
		"vaultmount_leases":                         "gauge",
		"vaultmount_refresh_lag_seconds":            "gauge",
		"vaultmount_unrefreshed_seconds":            "gauge",
		"vaultmount_revocations_waiting":            "gauge",
		"vaultmount_tmpfs_bytes":                    "gauge",
		"vaultmount_tmpfs_size_bytes":               "gauge",
		"vaultmount_tmpfs_budget_bytes":             "gauge",
		"vaultmount_state_bytes":                    "gauge",
		"vaultmount_state_size_bytes":               "gauge",
		"vaultmount_circuit_open":                   "gauge",
		"vaultmount_registered":                     "gauge",
		"vaultmount_build_info":                     "gauge",
		"vaultmount_events_total":                   "counter",
		"vaultmount_revocations_total":              "counter",
	}
}

// webhookMetrics are the webhook's own, from its real endpoint, after one request of
// each kind: a series that nothing has counted is not there.
func webhookMetrics(t *testing.T) map[string]string {
	t.Helper()
	metrics := admission.NewMetrics(noCertificate{})
	metrics.SyncedCertificate(nil)
	handler := &admission.Handler{Reviewer: admission.Reviewer{Translator: annotation.Translator{Prefix: annotation.DefaultPrefix}}, Metrics: metrics}
	for _, body := range []string{"no review", reviewOfPod} {
		request := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/mutate", strings.NewReader(body))
		request.Header.Set("Content-Type", "application/json")
		handler.ServeHTTP(httptest.NewRecorder(), request)
	}
	recorder := httptest.NewRecorder()
	metrics.Handler().ServeHTTP(recorder, httptest.NewRequestWithContext(context.Background(), http.MethodGet, "/metrics", nil))
	return families(t, recorder.Body.String())
}

type noCertificate struct{}

func (noCertificate) Current() (*tls.Certificate, error) { return nil, errors.New("none") }

// reviewOfPod asks for a file and misspells an annotation, which is worth a warning.
const reviewOfPod = `{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview","request":{"uid":"u","operation":"CREATE",
"kind":{"group":"","version":"v1","kind":"Pod"},"resource":{"group":"","version":"v1","resource":"pods"},"namespace":"default",
"object":{"apiVersion":"v1","kind":"Pod","metadata":{"name":"p","namespace":"default","annotations":{
"vault.hashicorp.com/agent-inject":"true","vault.hashicorp.com/role":"r","vault.hashicorp.com/agent-image":"i",
"vault.hashicorp.com/agent-inject-secret-a":"kv/a"}},"spec":{"serviceAccountName":"s","containers":[{"name":"c","image":"i",
"volumeMounts":[{"name":"token","mountPath":"/var/run/secrets/kubernetes.io/serviceaccount"}]}],"volumes":[{"name":"token","emptyDir":{}}]}}}}`

// families are vaultmount's metrics by type in what an endpoint says.
func families(t *testing.T, text string) map[string]string {
	t.Helper()
	parser := expfmt.NewTextParser(model.UTF8Validation)
	parsed, err := parser.TextToMetricFamilies(strings.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]string{}
	for name, family := range parsed {
		if strings.HasPrefix(name, "vaultmount_") {
			found[name] = strings.ToLower(family.GetType().String())
		}
	}
	return found
}

func allMetrics(t *testing.T) map[string]string {
	t.Helper()
	all := driverMetrics(t)
	maps.Copy(all, webhookMetrics(t))
	return all
}

// The tables hold each metric, and no other.
func TestMetricsAreDocumented(t *testing.T) {
	rows := map[string]string{}
	for _, row := range regexp.MustCompile("(?m)^\\| `(vaultmount_[a-z_]+)` \\| (\\w+) \\| (.*)\\|$").FindAllStringSubmatch(readFile(t, readmeFile), -1) {
		if rows[row[1]] != "" {
			t.Errorf("%s has two rows", row[1])
		}
		rows[row[1]] = row[2]
	}
	there := allMetrics(t)
	for name, kind := range there {
		if rows[name] != kind {
			t.Errorf("%s is a %s; in %s it is %q", name, kind, readmeFile, rows[name])
		}
	}
	for name := range rows {
		if there[name] == "" {
			t.Errorf("%s describes %s, which there is not", readmeFile, name)
		}
	}
}

func TestQueriesAskForWhatThereIs(t *testing.T) {
	there := allMetrics(t)
	queries := map[string]string{}
	for _, rule := range readRules(t) {
		queries[rule.Alert] = rule.Expr
	}
	for _, panel := range readDashboard(t).queried() {
		for _, target := range panel.Targets {
			queries[panel.Title+" "+target.RefID] = target.Expr
		}
	}
	for _, name := range slices.Sorted(maps.Keys(queries)) {
		for _, metric := range metricNames(queries[name]) {
			plain := metric
			for _, suffix := range []string{"_bucket", "_count", "_sum"} {
				if base := strings.TrimSuffix(metric, suffix); there[base] == "histogram" {
					plain = base
				}
			}
			if there[plain] == "" {
				t.Errorf("%s asks for %s, which there is not", name, metric)
			}
		}
	}
}
