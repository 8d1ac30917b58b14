package e2e

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	admissionv1 "k8s.io/api/admission/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/vaultmount/vaultmount/driver/injector"
)

// Where files belong to the pod's user by default, the driver is told who that is,
// also if it is chosen after the policies have run, as on OpenShift.
func TestPolicyTellsThePodsUser(t *testing.T) {
	installPolicy(t)
	installIdentities(t)
	chooseUsersLater(t)
	const prefix = injector.DefaultPrefix
	for name, test := range map[string]struct {
		annotations map[string]string
		context     *corev1.PodSecurityContext
		volumes     int
		want        string // user and group of the files
	}{
		"chosen-later":            {volumes: 1, want: "1000650000:1000"},
		"of-the-pod":              {context: &corev1.PodSecurityContext{RunAsUser: new(int64(2000)), RunAsGroup: new(int64(3000))}, volumes: 1, want: "2000:3000"},
		"of-the-same-user":        {annotations: map[string]string{"agent-run-as-same-user": "true"}, volumes: 1, want: "1000650000:1000"},
		"of-an-annotation":        {annotations: map[string]string{"agent-run-as-user": "7"}, volumes: 1, want: "7:1000"},
		"of-the-injector":         {annotations: map[string]string{"agent-set-security-context": "true"}, volumes: 1, want: "100:1000"},
		"chosen-later-of-volumes": {annotations: map[string]string{"agent-inject-secret-other": "kv/other", "secret-volume-path-other": "/other"}, volumes: 2, want: "1000650000:1000"},
	} {
		t.Run(name, func(t *testing.T) {
			pod := &corev1.Pod{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Pod"}}
			pod.Name, pod.Namespace, pod.Labels = name, "default", map[string]string{"example.com/user": "chosen"}
			pod.Annotations = map[string]string{prefix + "agent-inject": "true", prefix + "role": "app", prefix + "agent-inject-secret-db": "kv/db"}
			for key, value := range test.annotations {
				pod.Annotations[prefix+key] = value
			}
			pod.Spec.SecurityContext, pod.Spec.Containers = test.context, []corev1.Container{{Name: "app", Image: "app"}}
			got := admit(t, []*corev1.Pod{pod})[name]
			if got.pod == nil {
				t.Fatal(got.refusal)
			}
			owners := ownersOfFiles(t, got.pod)
			if len(owners) != test.volumes {
				t.Errorf("there are %d volumes, want %d", len(owners), test.volumes)
			}
			for name, owner := range owners {
				if owner != test.want {
					t.Errorf("the files of %s belong to %s, want %s", name, owner, test.want)
				}
			}
		})
	}
}

// ownersOfFiles is what the driver makes of the pod's volumes.
func ownersOfFiles(t *testing.T, pod *corev1.Pod) map[string]string {
	t.Helper()
	settings := injector.Translator{NoSecurityContext: true}
	owners := map[string]string{}
	for _, v := range pod.Spec.Volumes {
		if v.CSI == nil {
			continue
		}
		translated, _, err := settings.TranslateVolume(v.CSI.VolumeAttributes, pod.Namespace)
		require.NoError(t, err)
		owners[v.Name] = translated.Attributes["uid"] + ":" + translated.Attributes["gid"]
	}
	return owners
}

// installIdentities adds the chart's policy for such clusters to the one that is there.
func installIdentities(t *testing.T) {
	t.Helper()
	rendered := newHelm(t).run(t, "template", "vaultmount", chartDirectory, "--kube-version=1.37",
		"--set=vault.address=https://vault:8200,agentSetSecurityContext=false", "--show-only=templates/policy-identities.yaml")
	if _, err := bed.KubectlWithInput(t.Context(), rendered, "apply", "--filename=-"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if _, err := bed.KubectlWithInput(context.Background(), rendered, "delete", "--filename=-"); err != nil {
			t.Errorf("clean up: %v", err)
		}
	})
	eventually(t, "the policy acts", func() bool {
		const pod = `
apiVersion: v1
kind: Pod
metadata:
  name: probe
  annotations: {vault.hashicorp.com/agent-inject: "true", vault.hashicorp.com/role: app, vault.hashicorp.com/agent-inject-secret-db: kv/db}
spec: {securityContext: {runAsUser: 7}, containers: [{name: app, image: app}]}`
		printed, _ := bed.KubectlWithInput(t.Context(), pod, "create", "--dry-run=server", "--filename=-", "--output=yaml")
		return strings.Contains(printed, "pod-run-as-user:")
	})
}

// chooseUsersLater is in place of OpenShift's SecurityContextConstraints: it gives a
// container without a user one, and comes after all policies, as all webhooks do.
func chooseUsersLater(t *testing.T) {
	t.Helper()
	listener, err := bed.Listen("127.0.0.1:0")
	require.NoError(t, err)
	server := httptest.NewUnstartedServer(http.HandlerFunc(chooseUser))
	server.Listener = listener
	server.StartTLS()
	t.Cleanup(server.Close)
	bundle := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})
	configuration := `
apiVersion: admissionregistration.k8s.io/v1
kind: MutatingWebhookConfiguration
metadata: {name: users.example.com}
webhooks:
- name: users.example.com
  admissionReviewVersions: [v1]
  clientConfig: {url: "` + server.URL + `", caBundle: ` + base64.StdEncoding.EncodeToString(bundle) + `}
  rules: [{apiGroups: [""], apiVersions: [v1], resources: [pods], operations: [CREATE]}]
  objectSelector: {matchLabels: {example.com/user: chosen}}
  sideEffects: None
  failurePolicy: Fail
`
	if _, err := bed.KubectlWithInput(t.Context(), configuration, "apply", "--filename=-"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if _, err := bed.KubectlWithInput(context.Background(), configuration, "delete", "--filename=-"); err != nil {
			t.Errorf("clean up: %v", err)
		}
	})
	eventually(t, "users are chosen", func() bool {
		const pod = `
apiVersion: v1
kind: Pod
metadata: {name: probe, labels: {example.com/user: chosen}}
spec: {containers: [{name: app, image: app}]}`
		printed, _ := bed.KubectlWithInput(t.Context(), pod, "create", "--dry-run=server", "--filename=-", "--output=yaml")
		return strings.Contains(printed, "runAsUser: 1000650000")
	})
}

func chooseUser(w http.ResponseWriter, request *http.Request) {
	var review admissionv1.AdmissionReview
	var pod corev1.Pod
	if err := json.NewDecoder(request.Body).Decode(&review); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	if err := json.Unmarshal(review.Request.Object.Raw, &pod); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	review.Response = &admissionv1.AdmissionResponse{UID: review.Request.UID, Allowed: true}
	if pod.Spec.SecurityContext.RunAsUser == nil && pod.Spec.Containers[0].SecurityContext == nil {
		jsonPatch := admissionv1.PatchTypeJSONPatch
		review.Response.PatchType = &jsonPatch
		review.Response.Patch = []byte(`[{"op":"add","path":"/spec/containers/0/securityContext","value":{"runAsUser":1000650000}}]`)
	}
	review.Request = nil
	w.Header().Set("Content-Type", "application/json")
	if err := json.NewEncoder(w).Encode(review); err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
	}
}
