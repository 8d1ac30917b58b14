package faults

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	admissionv1 "k8s.io/api/admission/v1"

	"github.com/vaultmount/vaultmount/test/canary"
	"github.com/vaultmount/vaultmount/test/rig"
	"github.com/vaultmount/vaultmount/test/tally"
)

// badReview is a request that must end without a patch.
type badReview struct {
	name    string
	body    string
	headers map[string]string // beside Content-Type: application/json
	method  string            // POST if empty
	path    string            // /mutate if empty
}

// The webhook is handed whatever a broken API server, a stranger in its network or
// the author of a pod could hand it. Each request gets one answer that says what is
// wrong; no pod is changed, and nothing of a pod is logged but names. What people
// read is in testdata.
func TestBadReviews(t *testing.T) {
	webhook := rig.StartWebhook(t, "--audience=vault")
	canaries := canary.Canaries{"a value of an annotation": secretCanary, "a header": tokenCanary}
	var report strings.Builder
	lost := 0
	reviews := badReviews()
	for _, review := range reviews {
		answer, ok := review.send(t, webhook)
		fmt.Fprintf(&report, "%s\n  %s\n\n", review.name, answer)
		if !ok {
			t.Errorf("%s: %s", review.name, answer)
			lost++
		}
	}
	response, err := webhook.Client.Get(webhook.Health + "/metrics")
	require.NoError(t, err)
	defer response.Body.Close()
	metrics, err := io.ReadAll(response.Body)
	require.NoError(t, err)
	canaries.RequireNone(t, "metrics of the webhook", string(metrics))
	webhook.Stop(t)
	log := webhook.Log.String()
	canaries.RequireNone(t, "log of the webhook", log)
	for line := range strings.Lines(log) {
		if len(line) > 4096 {
			t.Errorf("a line of the log has %d bytes: %s…", len(line), line[:200])
		}
	}
	if lost == 0 && t.Failed() {
		lost = 1
	}
	tally.Record(t, "malformed admission reviews", len(reviews), lost)
	compareGolden(t, "testdata/bad-reviews.txt", report.String())
}

// send returns what the sender reads, and whether it is one clear answer without a
// patch.
func (b badReview) send(t *testing.T, webhook *rig.Webhook) (answer string, ok bool) {
	t.Helper()
	method, path := b.method, b.path
	if method == "" {
		method = http.MethodPost
	}
	if path == "" {
		path = "/mutate"
	}
	request, err := http.NewRequestWithContext(t.Context(), method, webhook.Reviews+path, strings.NewReader(b.body))
	require.NoError(t, err)
	request.Header.Set("Content-Type", "application/json")
	request.Header.Set("Authorization", "Bearer "+tokenCanary)
	for key, value := range b.headers {
		request.Header.Set(key, value)
	}
	response, err := webhook.Client.Do(request)
	require.NoError(t, err)
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	require.NoError(t, err)
	if response.StatusCode != http.StatusOK {
		message := strings.TrimSpace(string(text))
		return fmt.Sprintf("%d: %s", response.StatusCode, message), response.StatusCode >= 400 && len(message) > 0 && len(message) < 1024
	}
	return verdict(text)
}

// verdict reads an answer to a review.
func verdict(text []byte) (answer string, ok bool) {
	var review admissionv1.AdmissionReview
	if err := json.Unmarshal(text, &review); err != nil || review.Response == nil {
		return fmt.Sprintf("200: no review: %.200q", text), false
	}
	response := review.Response
	switch {
	case response.Patch != nil:
		return "200: patched", false
	case response.Allowed:
		return strings.Join(append([]string{"200: left as it is"}, response.Warnings...), "\n  "), true
	case response.Result == nil || response.Result.Message == "":
		return "200: denied without a word", false
	}
	message := response.Result.Message
	return "200: denied: " + message, len(message) < 2048
}

func badReviews() []badReview {
	all := badBodies()
	all = append(all, badEnvelopes()...)
	all = append(all, badPods()...)
	for _, a := range append(badAnnotations(), badAnnotationsOfPods()...) {
		if !isForTheWebhook(a) {
			continue
		}
		annotations := goodAnnotations()
		name := "annotations:"
		for i := 0; i < len(a); i += 2 {
			annotations[prefix+a[i]] = a[i+1]
			name += fmt.Sprintf(" %s=%s", short(a[i]), short(strings.ReplaceAll(a[i+1], rig.Absent, "(absent)")))
		}
		maps.DeleteFunc(annotations, func(_, value string) bool { return value == rig.Absent })
		all = append(all, badReview{name: name, body: reviewOf(podWith(annotations))})
	}
	names := map[string]bool{}
	all = slices.DeleteFunc(all, func(b badReview) bool {
		twice := names[b.name]
		names[b.name] = true
		return twice
	})
	return all
}

// isForTheWebhook is false for what the driver alone can judge, by its flags and the
// volume's Secret; and for a pod that asks for no file, which gets no volume.
func isForTheWebhook(annotation []string) bool {
	switch key, last := annotation[0], annotation[len(annotation)-1]; key {
	case "service":
		return last != "https://vault.evil.example"
	case "tls-skip-verify", "agent-extra-secret":
		return false
	case "agent-inject-secret-a":
		return last != "" && last != rig.Absent
	case "agent-inject-template-a":
		return false // the driver parses templates, in a process of their own
	}
	return true
}
