package monitoring

import (
	"crypto/tls"
	"errors"
	"maps"
	"net/http"
	"net/http/httptest"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
	"github.com/stretchr/testify/require"

	"github.com/vaultmount/vaultmount/driver/injector"
	"github.com/vaultmount/vaultmount/driver/metrics"
	"github.com/vaultmount/vaultmount/driver/webhook"
	"github.com/vaultmount/vaultmount/provider"
)

// driverMetrics are the driver's, from its real endpoint, after one of each that is
// not there from the start. The test of outages holds them against the program's.
func driverMetrics(t *testing.T) map[string]string {
	t.Helper()
	recorder := metrics.NewRecorder("v1.0.0", "go1.26")
	recorder.ObserveCall("NodePublishVolume", "OK", time.Second, true)
	recorder.ObserveEvent("SecretsNotRefreshed")
	recorder.RegisterNode(func() metrics.NodeStats {
		return metrics.NodeStats{Stats: provider.Stats{BreakerOpen: map[string]bool{"https://vault:8200": false}}}
	})
	return families(t, scrape(t, recorder.Handler()))
}

func scrape(t *testing.T, handler http.Handler) string {
	t.Helper()
	recorder := httptest.NewRecorder()
	handler.ServeHTTP(recorder, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/metrics", nil))
	return recorder.Body.String()
}

// webhookMetrics are the webhook's own, from its real endpoint, after one request of
// each kind: a series that nothing has counted is not there.
func webhookMetrics(t *testing.T) map[string]string {
	t.Helper()
	metrics := webhook.NewMetrics(noCertificate{})
	metrics.SyncedCertificate(nil)
	handler := webhook.NewHandler(webhook.Reviewer{Translator: injector.Translator{Prefix: injector.DefaultPrefix}}, metrics)
	for _, body := range []string{"no review", reviewOfPod} {
		request := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/mutate", strings.NewReader(body))
		request.Header.Set("Content-Type", "application/json")
		handler.ServeHTTP(httptest.NewRecorder(), request)
	}
	return families(t, scrape(t, metrics.Handler()))
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
	require.NoError(t, err)
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
