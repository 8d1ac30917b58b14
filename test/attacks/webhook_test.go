package attacks

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	admissionv1 "k8s.io/api/admission/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/vaultmount/vaultmount/test/rig"
)

// hook is a webhook in a control group of its own.
type hook struct {
	*rig.Webhook
	memory *rig.Memory
}

func startHook(t *testing.T, limit int64) *hook {
	t.Helper()
	memory := rig.NewMemory(t, limit)
	return &hook{memory.StartWebhook(t, "--verbosity=2"), memory}
}

// apiServerTime is how long an API server waits for the chart's webhook.
const apiServerTime = 5 * time.Second

// reviewOf asks about a pod that is made in a namespace.
func reviewOf(t *testing.T, namespace string, annotations map[string]string) []byte {
	t.Helper()
	pod := &corev1.Pod{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Pod"}, Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "app", Image: "app"}}}}
	pod.Name, pod.Annotations = "app", map[string]string{annotationPrefix + "agent-inject": "true", annotationPrefix + "role": namespace}
	for name, value := range annotations {
		pod.Annotations[annotationPrefix+name] = value
	}
	object, err := json.Marshal(pod)
	require.NoError(t, err)
	request := &admissionv1.AdmissionRequest{
		UID: "uid", Kind: metav1.GroupVersionKind{Version: "v1", Kind: "Pod"}, Operation: admissionv1.Create, Namespace: namespace,
		Object: runtime.RawExtension{Raw: object},
	}
	body, err := json.Marshal(admissionv1.AdmissionReview{TypeMeta: metav1.TypeMeta{APIVersion: "admission.k8s.io/v1", Kind: "AdmissionReview"}, Request: request})
	require.NoError(t, err)
	return body
}

// send asks the webhook as an API server does, which asks again as long as it has time
// if it is told to.
func (h *hook) send(ctx context.Context, body []byte) (*admissionv1.AdmissionResponse, error) {
	ctx, cancel := context.WithTimeout(ctx, apiServerTime)
	defer cancel()
	for {
		response, err := h.sendOnce(ctx, body)
		if !errors.Is(err, errBusy) || ctx.Err() != nil {
			return response, err
		}
		sleep(ctx, time.Second)
	}
}

var errBusy = errors.New("the webhook is busy")

func (h *hook) sendOnce(ctx context.Context, body []byte) (*admissionv1.AdmissionResponse, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, h.Reviews+"/mutate", bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	request.Header.Set("Content-Type", "application/json")
	response, err := h.Client.Do(request)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	if response.StatusCode == http.StatusTooManyRequests {
		return nil, errBusy
	}
	if response.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("the webhook answers %s", response.Status)
	}
	var review admissionv1.AdmissionReview
	if err := json.NewDecoder(response.Body).Decode(&review); err != nil {
		return nil, err
	}
	return review.Response, nil
}

// admit makes an ordinary pod.
func (h *hook) admit(t *testing.T) (time.Duration, error) {
	t.Helper()
	body := reviewOf(t, victim, map[string]string{"agent-inject-secret-a": "internal/data/victim/db"})
	start := time.Now()
	response, err := h.send(t.Context(), body)
	took := time.Since(start)
	if err == nil && (!response.Allowed || len(response.Patch) == 0) {
		err = fmt.Errorf("the pod is not changed: %+v", response)
	}
	return took, err
}

// cpuOf is what one review takes.
func (h *hook) cpuOf(t *testing.T, annotations map[string]string) time.Duration {
	t.Helper()
	body := reviewOf(t, tenant, annotations)
	before := cpuTime(t, h.Process)
	_, _ = h.send(t.Context(), body)
	return cpuTime(t, h.Process) - before
}
