package webhook

import (
	"fmt"
	"net/http"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	admissionv1 "k8s.io/api/admission/v1"
	"k8s.io/klog/v2"

	"github.com/vaultmount/vaultmount/driver/injector"
	"github.com/vaultmount/vaultmount/provider/limits"
)

// Metrics counts what the webhook does. No label has a value that a user of the cluster
// chooses. It may be used concurrently.
type Metrics struct {
	registry     *prometheus.Registry
	requests     *prometheus.CounterVec
	diagnostics  *prometheus.CounterVec
	errors       *prometheus.CounterVec
	duration     *prometheus.HistogramVec
	certificates *prometheus.CounterVec
}

// NewMetrics returns counters at zero. Each scrape reads the end of the certificate.
func NewMetrics(certificate Certificate) *Metrics {
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Namespace: "vaultmount_webhook", Name: name, Help: help}, labels)
	}
	m := &Metrics{
		registry:     prometheus.NewRegistry(),
		requests:     counter("requests_total", "Reviews by kind of object and result.", "kind", "result"),
		diagnostics:  counter("diagnostics_total", "Warnings and errors by annotation, with X for a file and Y for a setting.", "kind", "severity", "annotation"),
		errors:       counter("request_errors_total", "Requests without a review in the answer, by HTTP status.", "code"),
		certificates: counter("certificate_syncs_total", "Checks of the certificate and of the CA bundle, by result (success, error).", "result"),
		duration: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "vaultmount_webhook_request_duration_seconds",
			Help:    "Time from the first byte of a review to its answer.",
			Buckets: []float64{.0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5},
		}, []string{"kind"}),
	}
	expiration := prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "vaultmount_webhook_certificate_expiration_timestamp_seconds",
		Help: "End of the serving certificate as Unix time; 0 while there is none.",
	}, func() float64 {
		current, err := certificate.Current()
		if err != nil {
			return 0
		}
		return float64(current.Leaf.NotAfter.Unix())
	})
	m.registry.MustRegister(m.requests, m.diagnostics, m.errors, m.duration, m.certificates, expiration,
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return m
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
	m.certificates.WithLabelValues(result).Inc()
}

func (m *Metrics) observe(translator injector.Translator, outcome Outcome, duration time.Duration) {
	kind := outcome.Kind
	if outcome.Result == Ignored {
		kind = "other"
	}
	m.requests.WithLabelValues(kind, string(outcome.Result)).Inc()
	m.duration.WithLabelValues(kind).Observe(duration.Seconds())
	for _, each := range outcome.Warnings {
		m.diagnostics.WithLabelValues(kind, "warning", translator.Family(each.Annotation)).Inc()
	}
	for _, each := range outcome.Errors {
		m.diagnostics.WithLabelValues(kind, "error", translator.Family(each.Annotation)).Inc()
	}
}

func (m *Metrics) fail(status int) { m.errors.WithLabelValues(strconv.Itoa(status)).Inc() }

// The keys of log lines. Values are names and results, never the text of a diagnostic,
// which may quote an annotation.
const (
	logUID      = "uid"
	logKind     = "kind"
	logObject   = "object"
	logResult   = "result"
	logErrors   = "errors"
	logWarnings = "warnings"
	logDryRun   = "dryRun"
	logDuration = "duration"
	logStatus   = "status"
	logStack    = "stack"
	logAddress  = "address"
)

// The verbosity of lines that are no errors.
const (
	levelChange  = 2 // an annotated pod
	levelRequest = 4 // any request
)

// logOutcome writes one line for a request.
func logOutcome(logger klog.Logger, request *admissionv1.AdmissionRequest, outcome Outcome, duration time.Duration) {
	level := levelChange
	if outcome.Result == Ignored || outcome.Result == Skipped && len(outcome.Warnings) == 0 {
		level = levelRequest
	}
	if logger = logger.V(level); !logger.Enabled() {
		return
	}
	object := klog.KRef(truncateName(outcome.Object.Namespace), truncateName(outcome.Object.Name))
	values := []any{
		logUID, truncateName(string(request.UID)), logKind, truncateName(outcome.Kind), logObject, object,
		logResult, outcome.Result, logDuration, duration.Round(time.Microsecond).String(),
	}
	if names := annotationNames(outcome.Errors); len(names) > 0 {
		values = append(values, logErrors, names)
	}
	if names := annotationNames(outcome.Warnings); len(names) > 0 {
		values = append(values, logWarnings, names)
	}
	if request.DryRun != nil && *request.DryRun {
		values = append(values, logDryRun, true)
	}
	logger.Info("Request reviewed", values...)
}

// annotationNames returns the first names of many.
func annotationNames(diagnostics []injector.Diagnostic) []string {
	const most = 8
	var names []string
	for _, each := range diagnostics[:min(len(diagnostics), most)] {
		names = append(names, each.Annotation)
	}
	if len(diagnostics) > most {
		names = append(names, fmt.Sprintf("and %d more", len(diagnostics)-most))
	}
	return names
}

// truncateName bounds a name for the log: Kubernetes checks names after admission, and any
// client of the port may send one.
func truncateName(name string) string {
	const longest = 253 // of a real name, in bytes
	return limits.Truncate(name, longest)
}
