package webhook

import (
	"bytes"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	admissionv1 "k8s.io/api/admission/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/klog/v2"
	"k8s.io/klog/v2/textlogger"

	"github.com/vaultmount/vaultmount/provider/limits"
)

// noCertificate is that of a webhook that has just started.
type noCertificate struct{}

func (noCertificate) Current() (*tls.Certificate, error) { return nil, errors.New("not yet") }

func newHandler() *Handler { return NewHandler(Reviewer{}, NewMetrics(noCertificate{})) }

// post sends a request to the handler and returns the answer and the log.
func post(t *testing.T, handler http.Handler, contentType string, body io.Reader) (*httptest.ResponseRecorder, string) {
	t.Helper()
	var logs bytes.Buffer
	logger := textlogger.NewLogger(textlogger.NewConfig(textlogger.Output(&logs), textlogger.Verbosity(10)))
	request := httptest.NewRequestWithContext(klog.NewContext(t.Context(), logger), http.MethodPost, "/mutate", body)
	request.Header.Set("Content-Type", contentType)
	recorder := httptest.NewRecorder()
	handler.ServeHTTP(recorder, request)
	return recorder, logs.String()
}

func reviewOf(t *testing.T, apiVersion string, request *admissionv1.AdmissionRequest) *bytes.Reader {
	t.Helper()
	text, err := json.Marshal(admissionv1.AdmissionReview{TypeMeta: metav1.TypeMeta{APIVersion: apiVersion, Kind: "AdmissionReview"}, Request: request})
	if err != nil {
		t.Fatal(err)
	}
	return bytes.NewReader(text)
}

func TestHandlerAnswersUnderTheVersionOfTheReview(t *testing.T) {
	t.Parallel()
	for _, version := range []string{"admission.k8s.io/v1", "admission.k8s.io/v1beta1"} {
		c := readCase(t, "testdata/tutorial-payroll/object.yaml")
		recorder, _ := post(t, newHandler(), "application/json; charset=utf-8", reviewOf(t, version, c.request(t)))
		var review admissionv1.AdmissionReview
		if err := json.Unmarshal(recorder.Body.Bytes(), &review); err != nil {
			t.Fatal(err)
		}
		if recorder.Code != http.StatusOK || review.APIVersion != version || review.Kind != "AdmissionReview" || review.Request != nil {
			t.Errorf("%s: answered %d, %s", version, recorder.Code, recorder.Body)
		}
		if r := review.Response; r == nil || r.UID != "a-uid" || !r.Allowed || *r.PatchType != admissionv1.PatchTypeJSONPatch || len(r.Patch) == 0 {
			t.Errorf("%s: the response is %+v", version, r)
		}
	}
}

func TestHandlerRefusesWhatIsNoReview(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		contentType, body string
		status            int
		message           string
	}{
		"content type":   {"text/plain", "{}", 400, `invalid content-type: "text/plain"`},
		"no type":        {"", "{}", 400, `invalid content-type: ""`},
		"empty":          {"application/json", "", 400, "empty request body"},
		"no JSON":        {"application/json", "{", 500, "error decoding admission request"},
		"another kind":   {"application/json", `{"apiVersion":"v1","kind":"Pod"}`, 500, `apiVersion "v1" and kind "Pod" are not those of an AdmissionReview`},
		"a new version":  {"application/json", `{"apiVersion":"admission.k8s.io/v2","kind":"AdmissionReview","request":{}}`, 500, `apiVersion "admission.k8s.io/v2" and kind "AdmissionReview" are not those of`},
		"a long version": {"application/json", `{"apiVersion":"` + strings.Repeat("v", 5000) + `"}`, 500, `apiVersion "` + strings.Repeat("v", 40) + `" and kind ""`},
		"no request":     {"application/json", `{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview"}`, 500, "holds no request"},
		"too large":      {"application/json", strings.Repeat(" ", limits.ReviewBytes.Max()+1), 413, "(review-bytes)"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			handler := newHandler()
			recorder, _ := post(t, handler, test.contentType, strings.NewReader(test.body))
			if recorder.Code != test.status || !strings.Contains(recorder.Body.String(), test.message) {
				t.Errorf("answered %d, %s", recorder.Code, recorder.Body)
			}
			requireMetric(t, handler, fmt.Sprintf(`vaultmount_webhook_request_errors_total{code="%d"} 1`, test.status))
		})
	}
}

// A panic of a review is a bug, which must show, and must not show values.
func TestHandlerSurvivesAPanic(t *testing.T) {
	t.Parallel()
	c := readCase(t, "testdata/tutorial-payroll/object.yaml")
	recorder, logs := post(t, NewHandler(Reviewer{}, nil), "application/json", reviewOf(t, "admission.k8s.io/v1", c.request(t)))
	if recorder.Code != http.StatusInternalServerError || !strings.Contains(recorder.Body.String(), "see the webhook's log") {
		t.Errorf("answered %d, %s", recorder.Code, recorder.Body)
	}
	if !strings.Contains(logs, "Review panicked") || !strings.Contains(logs, "handler.go") || strings.Contains(logs, "nil pointer") {
		t.Errorf("logged %s", logs)
	}
}

func requireMetric(t *testing.T, handler *Handler, want string) {
	t.Helper()
	recorder := httptest.NewRecorder()
	handler.metrics.Handler().ServeHTTP(recorder, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/metrics", nil))
	if !strings.Contains(recorder.Body.String(), "\n"+want) {
		t.Errorf("%s is not in:\n%s", want, recorder.Body)
	}
}

func TestHandlerCountsAndLogs(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		metrics []string
		log     string
	}{
		"tutorial-payroll": {
			[]string{`vaultmount_webhook_requests_total{kind="Pod",result="translated"} 1`, `vaultmount_webhook_request_duration_seconds_count{kind="Pod"} 1`},
			`kind="Pod" object="default/payroll" result="translated"`,
		},
		"pod-with-warnings": {
			[]string{`vaultmount_webhook_requests_total{kind="Pod",result="warned"} 1`, `vaultmount_webhook_diagnostics_total{annotation="agent-inject-perms-X",kind="Pod",severity="warning"} 2`},
			`result="warned"`,
		},
		"pod-refused": {
			[]string{`vaultmount_webhook_requests_total{kind="Pod",result="rejected"} 1`, `vaultmount_webhook_diagnostics_total{annotation="agent-inject-command-X",kind="Pod",severity="error"} 1`},
			`errors=["vault.hashicorp.com/agent-inject-command-db"]`,
		},
		"pod-unreadable":       {[]string{`vaultmount_webhook_requests_total{kind="Pod",result="unreadable"} 1`}, `result="unreadable"`},
		"pod-inject-false":     {[]string{`vaultmount_webhook_requests_total{kind="Pod",result="skipped"} 1`}, `result="skipped"`},
		"pod-left-to-injector": {[]string{`vaultmount_webhook_requests_total{kind="Pod",result="left"} 1`}, `result="left"`},
		"configmap":            {[]string{`vaultmount_webhook_requests_total{kind="other",result="ignored"} 1`}, `kind="ConfigMap"`},
		"cronjob-refused":      {[]string{`vaultmount_webhook_requests_total{kind="CronJob",result="rejected"} 1`}, `result="rejected"`},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := readCase(t, "testdata/"+name+"/object.yaml")
			handler := NewHandler(Reviewer{c.Translator}, NewMetrics(noCertificate{}))
			_, logs := post(t, handler, "application/json", reviewOf(t, "admission.k8s.io/v1", c.request(t)))
			for _, want := range test.metrics {
				requireMetric(t, handler, want)
			}
			if strings.Count(logs, "\n") != 1 || !strings.Contains(logs, test.log) {
				t.Errorf("logged %q, want one line with %q", logs, test.log)
			}
		})
	}
}

// Values of annotations are for the author of the pod alone: one may be a
// template, or a secret that went astray.
func TestLogsHoldNoValue(t *testing.T) {
	t.Parallel()
	const canary = "canary"
	for _, directory := range directories(t, "testdata/*/object.yaml") {
		c := readCase(t, directory+"/object.yaml")
		object := map[string]any{}
		if err := json.Unmarshal(c.object, &object); err != nil {
			t.Fatal(err)
		}
		plant(object, canary)
		text, err := json.Marshal(object)
		if err != nil {
			t.Fatal(err)
		}
		c.object = text
		_, logs := post(t, NewHandler(Reviewer{c.Translator}, NewMetrics(noCertificate{})), "application/json", reviewOf(t, "admission.k8s.io/v1", c.request(t)))
		if logs == "" || strings.Contains(logs, canary) {
			t.Errorf("%s: logged %q", directory, logs)
		}
	}
}

// plant puts the canary into every annotation but the switch.
func plant(object any, canary string) {
	fields, ok := object.(map[string]any)
	if !ok {
		return
	}
	for key, value := range fields {
		if text, isText := value.(string); isText && strings.Contains(key, "/") && !strings.HasSuffix(key, "/agent-inject") {
			fields[key] = text + canary
			continue
		}
		plant(value, canary)
	}
}
