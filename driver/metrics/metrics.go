// Package metrics holds the Prometheus metrics of a node's driver, and serves them beside
// the kubelet's probes.
//
// No label has a value that a user of the cluster chooses, so the number of series is
// bounded. The package decides nothing. It imports provider, provider/sandbox,
// provider/template and provider/vault, for the events that it counts.
package metrics

import (
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	worker "github.com/vaultmount/vaultmount/provider/sandbox"
	"github.com/vaultmount/vaultmount/provider/vault"
)

// Recorder counts what the driver does. It may be used concurrently.
type Recorder struct {
	registry        *prometheus.Registry
	publishes       *prometheus.HistogramVec
	calls           *prometheus.CounterVec
	requests        *prometheus.CounterVec
	requestDuration *prometheus.HistogramVec
	fallbacks       prometheus.Counter
	refreshes       *prometheus.CounterVec
	renders         *prometheus.CounterVec
	renderDuration  prometheus.Histogram
	workerKills     *prometheus.CounterVec
	revocations     *prometheus.CounterVec
	events          *prometheus.CounterVec
}

const (
	namespace   = "vaultmount"
	resultOK    = "ok"
	resultError = "failed"
)

// NewRecorder returns metrics at zero.
func NewRecorder(version, goVersion string) *Recorder {
	m := &Recorder{
		registry: prometheus.NewRegistry(),
		publishes: histogram("publish_duration_seconds",
			"Time from the kubelet's first call for a volume to the answer, by gRPC code. Republishes are not counted.",
			[]float64{.005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60, 120}, "code"),
		calls: counter("calls_total", "Calls of the kubelet by method and gRPC code.", "method", "code"),
		requests: counter("vault_requests_total",
			"Requests to Vault by what they are for and what became of them.", "operation", "outcome"),
		requestDuration: histogram("vault_request_duration_seconds",
			"Time from a request to Vault to the first byte of its answer, by what it is for.",
			[]float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30}, "operation"),
		fallbacks: prometheus.NewCounter(prometheus.CounterOpts{
			Namespace: namespace, Name: "login_fallbacks_total",
			Help: "Logins that showed Vault the pod's token for the API server, as Vault had refused the one for the audience vault.",
		}),
		refreshes: counter("refreshes_total", "Looks after a volume that is mounted, by outcome.", "outcome"),
		renders:   counter("renders_total", "Templates run, by outcome: ok, refused (the template is at fault), data (it does not fit its secrets), unavailable.", "outcome"),
		renderDuration: prometheus.NewHistogram(prometheus.HistogramOpts{
			Namespace: namespace, Name: "render_duration_seconds", Help: "Time to run one template in a process, with the wait for it.",
			Buckets: []float64{.0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 90},
		}),
		workerKills: counter("render_worker_kills_total", "Processes for templates that were ended before their time, by reason.", "reason"),
		revocations: counter("revocations_total", "Vault tokens of pods that are gone: revoked, or left to end with their TTL.", "outcome"),
		events:      counter("events_total", "Events about pods, by reason.", "reason"),
	}
	build := prometheus.NewGauge(prometheus.GaugeOpts{
		Namespace: namespace, Name: "build_info", Help: "Always 1; the labels say what runs.",
		ConstLabels: prometheus.Labels{"version": version, "go_version": goVersion},
	})
	build.Set(1)
	m.registry.MustRegister(m.publishes, m.calls, m.requests, m.requestDuration, m.fallbacks, m.refreshes, m.renders, m.renderDuration,
		m.workerKills, m.revocations, m.events, build,
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	m.startAtZero()
	return m
}

// startAtZero makes each series there from the start: an increase from nothing is
// not one that Prometheus sees.
func (m *Recorder) startAtZero() {
	for _, operation := range vault.Operations() {
		m.requestDuration.WithLabelValues(string(operation))
		for _, outcome := range vault.Results() {
			m.requests.WithLabelValues(string(operation), string(outcome))
		}
	}
	for _, reason := range worker.Reasons() {
		m.workerKills.WithLabelValues(string(reason))
	}
	for _, outcome := range []string{resultOK, resultError} {
		m.refreshes.WithLabelValues(outcome)
		m.revocations.WithLabelValues(outcome)
	}
	for _, outcome := range renderOutcomes() {
		m.renders.WithLabelValues(outcome)
	}
	m.publishes.WithLabelValues("OK")
}

func counter(name, help string, labels ...string) *prometheus.CounterVec {
	return prometheus.NewCounterVec(prometheus.CounterOpts{Namespace: namespace, Name: name, Help: help}, labels)
}

func histogram(name, help string, buckets []float64, labels ...string) *prometheus.HistogramVec {
	return prometheus.NewHistogramVec(prometheus.HistogramOpts{Namespace: namespace, Name: name, Help: help, Buckets: buckets}, labels)
}

// Handler serves the metrics.
func (m *Recorder) Handler() http.Handler {
	return promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{})
}

// Called counts a call of the kubelet; first is true for one that is to make a
// volume which is not there yet.
func (m *Recorder) Called(method, code string, duration time.Duration, first bool) {
	m.calls.WithLabelValues(method, code).Inc()
	if first {
		m.publishes.WithLabelValues(code).Observe(duration.Seconds())
	}
}

// ObserveRequest is half of vault.Observer.
func (m *Recorder) ObserveRequest(operation vault.Operation, outcome vault.Result, duration time.Duration) {
	m.requests.WithLabelValues(string(operation), string(outcome)).Inc()
	if duration > 0 {
		m.requestDuration.WithLabelValues(string(operation)).Observe(duration.Seconds())
	}
}

// ObserveLoginFallback is the other half of vault.Observer.
func (m *Recorder) ObserveLoginFallback() { m.fallbacks.Inc() }

// Refreshed counts a look after a volume; it is half of provider.Observer.
func (m *Recorder) Refreshed(_ string, _, now error) { m.refreshes.WithLabelValues(result(now)).Inc() }

// Revoked counts a token that is done with; it is the other half.
func (m *Recorder) Revoked(err error) { m.revocations.WithLabelValues(result(err)).Inc() }

// Killed is for worker.Config.
func (m *Recorder) Killed(reason worker.Reason) { m.workerKills.WithLabelValues(string(reason)).Inc() }

// Event counts an Event about a pod.
func (m *Recorder) Event(reason string) { m.events.WithLabelValues(reason).Inc() }

func result(err error) string {
	if err != nil {
		return resultError
	}
	return resultOK
}
