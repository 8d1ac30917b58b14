// Package metrics holds the Prometheus metrics of a node's driver, and serves them beside
// the kubelet's probes.
//
// No label has a value that a user of the cluster chooses, so the number of series is
// bounded. The package decides nothing. It imports provider, provider/sandbox,
// provider/template and provider/vault, for the events that it counts.
package metrics

import (
	"context"
	"errors"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/vaultmount/vaultmount/provider"
	"github.com/vaultmount/vaultmount/provider/sandbox"
	"github.com/vaultmount/vaultmount/provider/template"
	"github.com/vaultmount/vaultmount/provider/vault"
)

const namespace = "vaultmount"

// The values of the label result. Vault's requests and templates have more.
const (
	success = "success"
	failure = "error"
)

// Recorder counts what the driver does. It may be used concurrently.
type Recorder struct {
	registry          *prometheus.Registry
	operations        *prometheus.CounterVec
	operationDuration *prometheus.HistogramVec
	publishes         *prometheus.HistogramVec
	requests          *prometheus.CounterVec
	requestDuration   *prometheus.HistogramVec
	fallbacks         prometheus.Counter
	refreshes         *prometheus.CounterVec
	renders           *prometheus.CounterVec
	renderDuration    prometheus.Histogram
	workerKills       *prometheus.CounterVec
	revocations       *prometheus.CounterVec
	events            *prometheus.CounterVec
}

// NewRecorder returns metrics at zero.
func NewRecorder(version, goVersion string) *Recorder {
	m := &Recorder{
		registry:   prometheus.NewRegistry(),
		operations: counter("csi_operations_total", "CSI calls of the kubelet, by method and gRPC code.", "method", "code"),
		operationDuration: histogram("csi_operations_seconds", "Time to answer a CSI call of the kubelet, by method.",
			[]float64{.0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60, 120}, "method"),
		publishes: histogram("publish_duration_seconds",
			"Time to answer a first publish of a volume, by gRPC code. Republishes are not counted.",
			[]float64{.005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60, 120}, "code"),
		requests: counter("vault_requests_total", "Requests to Vault, by operation and result.", "operation", "result"),
		requestDuration: histogram("vault_request_duration_seconds",
			"Time from a request to Vault to the first byte of its answer, by operation.",
			[]float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30}, "operation"),
		fallbacks: prometheus.NewCounter(prometheus.CounterOpts{
			Namespace: namespace, Name: "vault_login_fallbacks_total",
			Help: "Logins with the pod's token for the API server, after Vault rejected the one for the audience vault.",
		}),
		refreshes: counter("refreshes_total", "Refreshes of mounted volumes, by result.", "result"),
		renders:   counter("template_renders_total", "Renders of all templates of a volume in a sandbox, by result: success, refused (a template is wrong), data (a template does not fit its secrets), unavailable.", "result"),
		renderDuration: prometheus.NewHistogram(prometheus.HistogramOpts{
			Namespace: namespace, Name: "template_render_duration_seconds", Help: "Time to render all templates of a volume in a sandbox, with the wait for a worker.",
			Buckets: []float64{.0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 90},
		}),
		workerKills: counter("sandbox_worker_kills_total", "Sandbox workers that the driver killed, by reason.", "reason"),
		revocations: counter("token_revocations_total", "Vault tokens of deleted pods: revoked, or left to end with their TTL (error).", "result"),
		events:      counter("events_total", "Kubernetes Events about pods, by reason.", "reason"),
	}
	build := prometheus.NewGauge(prometheus.GaugeOpts{
		Namespace: namespace, Name: "build_info", Help: "Always 1; the labels are the version and Go's version.",
		ConstLabels: prometheus.Labels{"version": version, "go_version": goVersion},
	})
	build.Set(1)
	m.registry.MustRegister(m.operations, m.operationDuration, m.publishes, m.requests, m.requestDuration, m.fallbacks, m.refreshes,
		m.renders, m.renderDuration, m.workerKills, m.revocations, m.events, build,
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	m.startAtZero()
	return m
}

// startAtZero creates each series at the start: Prometheus does not see an increase of a
// series that was not there before.
func (m *Recorder) startAtZero() {
	for _, operation := range vault.Operations() {
		m.requestDuration.WithLabelValues(string(operation))
		for _, result := range vault.Results() {
			m.requests.WithLabelValues(string(operation), string(result))
		}
	}
	for _, reason := range sandbox.Reasons() {
		m.workerKills.WithLabelValues(string(reason))
	}
	for _, result := range []string{success, failure} {
		m.refreshes.WithLabelValues(result)
		m.revocations.WithLabelValues(result)
	}
	for _, result := range []string{success, renderRefused, renderData, renderUnavailable} {
		m.renders.WithLabelValues(result)
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

// ObserveCall counts a CSI call; first is true for a publish of a volume that is not mounted.
func (m *Recorder) ObserveCall(method, code string, duration time.Duration, first bool) {
	m.operations.WithLabelValues(method, code).Inc()
	m.operationDuration.WithLabelValues(method).Observe(duration.Seconds())
	if first {
		m.publishes.WithLabelValues(code).Observe(duration.Seconds())
	}
}

// ObserveRequest is half of vault.Observer.
func (m *Recorder) ObserveRequest(operation vault.Operation, result vault.Result, duration time.Duration) {
	m.requests.WithLabelValues(string(operation), string(result)).Inc()
	if duration > 0 {
		m.requestDuration.WithLabelValues(string(operation)).Observe(duration.Seconds())
	}
}

// ObserveLoginFallback is the other half of vault.Observer.
func (m *Recorder) ObserveLoginFallback() { m.fallbacks.Inc() }

// ObserveRefresh counts a refresh of a mounted volume.
func (m *Recorder) ObserveRefresh(err error) { m.refreshes.WithLabelValues(resultOf(err)).Inc() }

// ObserveRevocation counts a token that is revoked or given up.
func (m *Recorder) ObserveRevocation(err error) { m.revocations.WithLabelValues(resultOf(err)).Inc() }

// ObserveWorkerKill counts a sandbox worker that was killed.
func (m *Recorder) ObserveWorkerKill(reason sandbox.Reason) {
	m.workerKills.WithLabelValues(string(reason)).Inc()
}

// ObserveEvent counts an Event about a pod.
func (m *Recorder) ObserveEvent(reason string) { m.events.WithLabelValues(reason).Inc() }

func resultOf(err error) string {
	if err != nil {
		return failure
	}
	return success
}

// Renderer returns a renderer whose runs are counted.
func (m *Recorder) Renderer(next provider.Renderer) provider.Renderer {
	return timedRenderer{next, m}
}

type timedRenderer struct {
	provider.Renderer

	recorder *Recorder
}

// Render implements provider.Renderer.
func (r timedRenderer) Render(ctx context.Context, templates []template.Template, values template.Values) ([]template.Result, error) {
	start := time.Now()
	rendered, err := r.Renderer.Render(ctx, templates, values)
	r.recorder.renderDuration.Observe(time.Since(start).Seconds())
	r.recorder.renders.WithLabelValues(renderResult(err)).Inc()
	return rendered, err
}

// The results of a template beside success.
const (
	renderRefused     = "refused"
	renderData        = "data"
	renderUnavailable = "unavailable"
)

func renderResult(err error) string {
	switch {
	case err == nil:
		return success
	case errors.Is(err, template.ErrInvalid):
		return renderRefused
	case errors.Is(err, template.ErrData):
		return renderData
	}
	return renderUnavailable
}
