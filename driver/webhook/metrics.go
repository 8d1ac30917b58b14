package webhook

import (
	"net/http"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/vaultmount/vaultmount/driver/injector"
)

// Metrics counts what the webhook does. No label has a value that a user of the
// cluster chooses.
type Metrics struct {
	registry      *prometheus.Registry
	requests      *prometheus.CounterVec
	notices       *prometheus.CounterVec
	failures      *prometheus.CounterVec
	duration      *prometheus.HistogramVec
	certificate   *prometheus.CounterVec
	certificateAt prometheus.GaugeFunc
}

// NewMetrics returns counters at zero. The certificate is asked for its end when
// the metrics are read.
func NewMetrics(certificate Certificate) *Metrics {
	m := &Metrics{
		registry: prometheus.NewRegistry(),
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "vaultmount_webhook_requests_total",
			Help: "Reviews by kind of object, result (translated, warned, rejected, skipped, left) and reason.",
		}, []string{"kind", "result", "reason"}),
		notices: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "vaultmount_webhook_diagnostics_total",
			Help: "Warnings and errors by annotation, with X for a file and Y for a setting.",
		}, []string{"kind", "severity", "annotation"}),
		failures: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "vaultmount_webhook_request_errors_total",
			Help: "Requests without a review in the answer, by HTTP status.",
		}, []string{"code"}),
		duration: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "vaultmount_webhook_request_duration_seconds",
			Help:    "Time from the first byte of a review to its answer.",
			Buckets: []float64{.0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5},
		}, []string{"kind"}),
		certificate: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "vaultmount_webhook_certificate_syncs_total",
			Help: "Checks of the certificate and of the CA bundle, by result (success, error).",
		}, []string{"result"}),
		certificateAt: prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "vaultmount_webhook_certificate_expiration_timestamp_seconds",
			Help: "End of the serving certificate as Unix time; 0 while there is none.",
		}, func() float64 { return expiration(certificate) }),
	}
	m.registry.MustRegister(m.requests, m.notices, m.failures, m.duration, m.certificate, m.certificateAt,
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return m
}

func expiration(certificate Certificate) float64 {
	current, err := certificate.Current()
	if err != nil {
		return 0
	}
	return float64(current.Leaf.NotAfter.Unix())
}

// Handler serves the metrics.
func (m *Metrics) Handler() http.Handler {
	return promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{})
}

// SyncedCertificate counts a check of the certificate.
func (m *Metrics) SyncedCertificate(err error) {
	result := "success"
	if err != nil {
		result = "error"
	}
	m.certificate.WithLabelValues(result).Inc()
}

func (m *Metrics) observe(translator injector.Translator, outcome Outcome, duration time.Duration) {
	kind := outcome.Kind
	if outcome.Reason == reasonKind {
		kind = "other"
	}
	m.requests.WithLabelValues(kind, string(outcome.Result), outcome.Reason).Inc()
	m.duration.WithLabelValues(kind).Observe(duration.Seconds())
	for _, notice := range outcome.Warnings {
		m.notices.WithLabelValues(kind, "warning", translator.Family(notice.Annotation)).Inc()
	}
	for _, notice := range outcome.Refusals {
		m.notices.WithLabelValues(kind, "error", translator.Family(notice.Annotation)).Inc()
	}
}

func (m *Metrics) fail(status int) {
	m.failures.WithLabelValues(strconv.Itoa(status)).Inc()
}
