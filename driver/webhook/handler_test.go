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
	"os"
	"strings"
	"testing"
	"testing/synctest"

	admissionv1 "k8s.io/api/admission/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/klog/v2"
	"k8s.io/klog/v2/textlogger"

	"github.com/vaultmount/vaultmount/driver/injector"
	"github.com/vaultmount/vaultmount/provider/cost"
	"github.com/vaultmount/vaultmount/provider/fairqueue"
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

// bodyOf is the review of an object that is made in a namespace.
func bodyOf(t testing.TB, namespace, kind, object string) []byte {
	t.Helper()
	body, err := json.Marshal(admissionv1.AdmissionReview{
		TypeMeta: metav1.TypeMeta{APIVersion: "admission.k8s.io/v1", Kind: "AdmissionReview"},
		Request: &admissionv1.AdmissionRequest{
			UID: "a-uid", Kind: metav1.GroupVersionKind{Version: "v1", Kind: kind}, Operation: admissionv1.Create,
			Namespace: namespace, Object: runtime.RawExtension{Raw: []byte(object)},
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	return body
}

// askingPod has further annotations and fields of its spec, as JSON.
func askingPod(annotations, spec string) string {
	return `{"metadata":{"annotations":{"vault.hashicorp.com/agent-inject":"true","vault.hashicorp.com/role":"app",` +
		`"vault.hashicorp.com/agent-inject-secret-a":"kv/a"` + annotations + `}},"spec":{"containers":[{"name":"app"}]` + spec + `}}`
}

func mustReserve(t *testing.T, limiter *fairqueue.Limiter, tenant string, amount int64) *reservation {
	t.Helper()
	r, err := reserve(t.Context(), limiter, waitTimeout, tenant, amount)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// Of the limits of a review, the largest one that is read can be answered.
func TestLargestReviewHasMemory(t *testing.T) {
	t.Parallel()
	h := newHandler()
	mustReserve(t, h.bodies, "host", int64(bodyFactor*limits.ReviewBytes.Max())).shrink(0)
	mustReserve(t, h.reviews, "namespace", int64(reviewFactor*limits.ReviewBytes.Max()+bytesPerValue*limits.ReviewValues.Max())).shrink(0)
}

func TestReviewLimits(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		limit limits.Limit
		body  func(n int) []byte
	}{
		{limits.ReviewBytes, func(n int) []byte {
			body := func(filler int) []byte {
				return bodyOf(t, "default", "Pod", askingPod("", `,"hostname":"`+strings.Repeat("x", filler)+`"`))
			}
			return body(n - len(body(0)))
		}},
		{limits.ReviewValues, func(n int) []byte {
			body := func(filler int) []byte {
				return bodyOf(t, "default", "Pod", askingPod("", `,"unknown":[1`+strings.Repeat(",1", filler)+`]`))
			}
			return body(n - countValues(body(0)))
		}},
	} {
		t.Run(test.limit.String(), func(t *testing.T) {
			t.Parallel()
			recorder, _ := post(t, newHandler(), "application/json", bytes.NewReader(test.body(test.limit.Max())))
			if recorder.Code != http.StatusOK || !strings.Contains(recorder.Body.String(), `"allowed":true`) {
				t.Errorf("at the limit: %d %.400s", recorder.Code, recorder.Body)
			}
			recorder, _ = post(t, newHandler(), "application/json", bytes.NewReader(test.body(test.limit.Max()+1)))
			if recorder.Code != http.StatusRequestEntityTooLarge || !strings.Contains(recorder.Body.String(), "("+test.limit.String()+")") {
				t.Errorf("one above the limit: %d %s", recorder.Code, recorder.Body)
			}
		})
	}
}

func TestPodItemsAreLimited(t *testing.T) {
	t.Parallel()
	volumes := func(n int) string { return `,"volumes":[{}` + strings.Repeat(",{}", n-2) + `]` }
	recorder, _ := post(t, newHandler(), "application/json", bytes.NewReader(bodyOf(t, "default", "Pod", askingPod("", volumes(limits.PodItems.Max())))))
	if !strings.Contains(recorder.Body.String(), `"allowed":true`) {
		t.Errorf("at the limit: %.400s", recorder.Body)
	}
	recorder, _ = post(t, newHandler(), "application/json", bytes.NewReader(bodyOf(t, "default", "Pod", askingPod("", volumes(limits.PodItems.Max()+1)))))
	if !strings.Contains(recorder.Body.String(), `"allowed":false`) || !strings.Contains(recorder.Body.String(), "(pod-items)") {
		t.Errorf("one above the limit: %.400s", recorder.Body)
	}
}

func TestCountValues(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]int{
		``: 1, `1`: 1, `[1,2]`: 3, `{"a":1,"b":[{}]}`: 5, `"a,b[{"`: 1, `["a\",{"]`: 2, `"\\",[`: 3,
	} {
		if got := countValues([]byte(text)); got != want {
			t.Errorf("%s: %d values, want %d", text, got, want)
		}
	}
}

// largePod takes most of what one namespace may hold.
func largePod(t testing.TB, namespace string) []byte {
	return bodyOf(t, namespace, "Pod", askingPod("", `,"hostname":"`+strings.Repeat("x", limits.ReviewBytes.Max()-1000)+`"`))
}

// A handler whose memory is taken answers at once or after a wait, and tells the API
// server to come again; others are not held up.
func TestReviewsWaitForMemory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		handler := newHandler()
		half := mustReserve(t, handler.reviews, "greedy", reviewMemory/2)
		recorder, logs := post(t, handler, "application/json", bytes.NewReader(largePod(t, "greedy")))
		if recorder.Code != http.StatusTooManyRequests || recorder.Header().Get("Retry-After") != "1" {
			t.Errorf("a namespace that holds its share: %d %v", recorder.Code, recorder.Header())
		}
		if !strings.HasPrefix(logs, "I") {
			t.Errorf("not logged as information: %s", logs)
		}
		requireMetric(t, handler, `vaultmount_webhook_request_errors_total{code="429"} 1`)
		if recorder, _ := post(t, handler, "application/json", bytes.NewReader(largePod(t, "victim"))); recorder.Code != http.StatusOK {
			t.Errorf("another namespace: %d %s", recorder.Code, recorder.Body)
		}
		half.shrink(0)
		if recorder, _ := post(t, handler, "application/json", bytes.NewReader(largePod(t, "greedy"))); recorder.Code != http.StatusOK {
			t.Errorf("the namespace that gave back its share: %d %s", recorder.Code, recorder.Body)
		}
	})
}

// A namespace with many reviews at a time runs half of them, and others go on.
func TestReviewsTakeTurnsByNamespace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		handler := newHandler()
		var greedy []*reservation
		for range maxRunning / 2 {
			greedy = append(greedy, mustReserve(t, handler.running, "greedy", 1))
		}
		for namespace, want := range map[string]int{"greedy": http.StatusTooManyRequests, "victim": http.StatusOK} {
			if recorder, _ := post(t, handler, "application/json", bytes.NewReader(bodyOf(t, namespace, "Pod", askingPod("", "")))); recorder.Code != want {
				t.Errorf("%s: %d %s", namespace, recorder.Code, recorder.Body)
			}
		}
		for _, turn := range greedy {
			turn.shrink(0)
		}
		if recorder, _ := post(t, handler, "application/json", bytes.NewReader(bodyOf(t, "greedy", "Pod", askingPod("", "")))); recorder.Code != http.StatusOK {
			t.Errorf("after its turns: %d", recorder.Code)
		}
	})
}

// Whatever becomes of a request, its memory is given back.
func TestMemoryIsGivenBack(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		handler := newHandler()
		for _, body := range [][]byte{
			largePod(t, "a"), bytes.Repeat([]byte(" "), 1<<20), bytes.Repeat([]byte("["), 1<<20), bodyOf(t, "a", "ConfigMap", `"`+strings.Repeat("x", 1<<20)+`"`),
			bodyOf(t, "a", "Pod", askingPod(`,"vault.hashicorp.com/agent-inject-perms-x":"9"`, "")),
		} {
			_, _ = post(t, handler, "application/json", bytes.NewReader(body))
		}
		for _, tenant := range []string{"a", "b"} {
			defer mustReserve(t, handler.bodies, tenant, bodyMemory/2).shrink(0)
			defer mustReserve(t, handler.reviews, tenant, reviewMemory/2).shrink(0)
		}
		defer mustReserve(t, handler.running, "a", maxRunning/2).shrink(0)
	})
}

func TestHostileReviewsCostInProportionToTheirSize(t *testing.T) {
	many := func(n int, format string) string {
		var all strings.Builder
		for i := range n {
			fmt.Fprintf(&all, format, i)
		}
		return all.String()
	}
	for name, object := range map[string]string{
		"no containers":        askingPod("", `,"initContainers":[null`+strings.Repeat(",null", 40_000)+`]`),
		"a slow quantity":      askingPod("", `,"overhead":{"a":"1e-10000000"},"initContainers":[{"resources":{"limits":{"a":"1e-10000000"}}}]`),
		"volumes of a size":    askingPod("", `,"volumes":[{"name":"a","emptyDir":{"sizeLimit":"1e-10000000"}}]`),
		"many mounts":          askingPod("", `,"initContainers":[{"volumeMounts":[{}`+strings.Repeat(",{}", 40_000)+`]}]`),
		"many tokens":          askingPod("", `,"volumes":[{"projected":{"sources":[{}`+strings.Repeat(`,{"serviceAccountToken":{}}`, 20_000)+`]}}]`),
		"volumes times mounts": askingPod(many(99, `,"vault.hashicorp.com/agent-inject-secret-x%[1]d":"kv","vault.hashicorp.com/secret-volume-path-x%[1]d":"/p%[1]d"`), `,"initContainers":[{"name":"i"}`+many(40, `,{"name":"%d"}`)+`]`),
		"bad templates":        askingPod(many(3200, `,"vault.hashicorp.com/agent-inject-template-%d":"{{x}}"`), ""),
		"bad permissions":      askingPod(many(490, `,"vault.hashicorp.com/agent-inject-template-%[1]d":"x","vault.hashicorp.com/agent-inject-perms-%[1]d":"9"`), ""),
		"nested blocks":        askingPod(`,"vault.hashicorp.com/agent-inject-template-a":"`+strings.Repeat("{{if 1}}", 13_000)+strings.Repeat("{{end}}", 13_000)+`"`, ""),
		"names of dashes":      askingPod(many(3000, `,"vault.hashicorp.com/`+strings.Repeat("-x", 28)+`%04d":"1"`), ""),
		"other annotations":    askingPod(many(40_000, `,"a/%d":""`), ""),
		"no pod":               strings.Repeat("[", 9_000) + strings.Repeat("]", 9_000),
	} {
		t.Run(name, func(t *testing.T) {
			handler := newHandler()
			body := bodyOf(t, "default", "Pod", object)
			var recorder *httptest.ResponseRecorder
			cost.Assert(t, len(body), func() { recorder, _ = post(t, handler, "application/json", bytes.NewReader(body)) })
			used := cost.Measure(func() { _, _ = post(t, handler, "application/json", bytes.NewReader(body)) })
			t.Logf("%d bytes: CPU %s, %d KiB, %d %.200s", len(body), used.CPU, used.Allocated>>10, recorder.Code, recorder.Body)
		})
	}
}

// Kubernetes checks names after admission, and anybody may reach the port.
func TestLogLinesAreBounded(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("x", 100_000)
	unknown := ""
	for i := range 500 {
		unknown += fmt.Sprintf(`,"vault.hashicorp.com/%s%03d":"1","vault.hashicorp.com/agent-inject-perms-%s%03d":"9"`, strings.Repeat("u", 60), i, strings.Repeat("p", 40), i)
	}
	for name, body := range map[string][]byte{
		"namespace":       bodyOf(t, long, "Pod", askingPod("", "")),
		"name":            bodyOf(t, "default", "Pod", strings.Replace(askingPod("", ""), `{"annotations"`, `{"name":"`+long+`","annotations"`, 1)),
		"kind":            bodyOf(t, "default", long, "{}"),
		"uid":             bytes.Replace(bodyOf(t, "default", "Pod", askingPod("", "")), []byte("a-uid"), []byte(long), 1),
		"annotations":     bodyOf(t, "default", "Pod", askingPod(unknown, "")),
		"number":          []byte(`{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview","request":{"dryRun":` + strings.Repeat("1", 100_000) + `}}`),
		"no pod":          bodyOf(t, "default", "Pod", `{"metadata":`+strings.Repeat("1", 100_000)+`}`),
		"version":         []byte(`{"apiVersion":"` + long + `"}`),
		"annotation name": bodyOf(t, "default", "Pod", askingPod(`,"vault.hashicorp.com/`+long+`":"1"`, "")),
		"warnings":        bodyOf(t, "default", "Pod", askingPod(`,"vault.hashicorp.com/agent-inject-containers":"`+long+`"`, "")),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			recorder, logs := post(t, NewHandler(Reviewer{injector.Translator{}}, NewMetrics(noCertificate{})), "application/json", bytes.NewReader(body))
			if logs == "" {
				t.Error("nothing is logged")
			}
			for line := range strings.Lines(logs) {
				if len(line) > limits.LogLineBytes.Max() {
					t.Errorf("a line of %d bytes: %.300s", len(line), line)
				}
			}
			if len(recorder.Body.String()) > 20_000 && name != "uid" {
				t.Errorf("an answer of %d bytes: %.300s", recorder.Body.Len(), recorder.Body)
			}
		})
	}
}

func TestReadmeTellsTheBounds(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("../../deploy/webhook/README.md")
	if err != nil {
		t.Fatal(err)
	}
	plain := strings.Join(strings.Fields(string(text)), " ")
	for _, want := range []string{
		fmt.Sprintf("share %d MiB", reviewMemory>>20), fmt.Sprintf("waits up to %.0f s for memory", waitTimeout.Seconds()), "and four run at the same time", fmt.Sprintf("at most %d connections", maxConnections),
		fmt.Sprintf("has %.0f s for the header, %.0f s for the body, and %.0f s to read", headerTimeout.Seconds(), bodyTimeout.Seconds(), answerTimeout.Seconds()),
		fmt.Sprintf("at most %d MiB and 50,000 JSON values", limits.ReviewBytes.Max()>>20),
	} {
		if !strings.Contains(plain, want) {
			t.Errorf("README.md does not say %q", want)
		}
	}
}
