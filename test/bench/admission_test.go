package bench

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/vaultmount/vaultmount/test/parts"
	"github.com/vaultmount/vaultmount/test/rig"
	"github.com/vaultmount/vaultmount/test/testbed"
)

// The pods that are created and not kept: one that asks for nothing, and one that
// asks for two secrets.
const (
	plainPod = `{"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "plain"}, "spec": {"containers": [{"name": "app", "image": "app"}]}}`
	askedPod = `{"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "asks", "annotations": {
		"vault.hashicorp.com/agent-inject": "true", "vault.hashicorp.com/role": "app",
		"vault.hashicorp.com/agent-inject-secret-db": "internal/data/db",
		"vault.hashicorp.com/agent-inject-template-db": "{{ with secret \"internal/data/db\" }}{{ .Data.data.password }}{{ end }}",
		"vault.hashicorp.com/agent-inject-secret-api": "internal/data/api"}}, "spec": {"containers": [{"name": "app", "image": "app"}]}}`
)

// admissions measures what the API server takes to create a pod, in a cluster, with
// nobody who translates, with the policy, and with the webhook.
func admissions(b *testing.B, r *Report, size size) {
	bed, err := testbed.Up(b.Context(), parts.Packaged, filepath.Join(b.TempDir(), "run"), os.Stderr)
	require.NoError(b, err)
	b.Cleanup(func() {
		if err := bed.Down(context.Background()); err != nil {
			b.Error(err)
		}
	})
	api := newAPIServer(b, bed.Kubeconfig())
	section := Section{
		Title: "Admission",
		Text: fmt.Sprintf("From the request for a pod to the answer of a real API server, %d of each kind by turns, none kept (dryRun). The webhook has two replicas\n"+
			"on the only node; the policy runs in the API server, with its guard.", size.admissions),
		Head: []string{"who translates", "a pod that asks for nothing, p50", "p99", "with annotations, p50", "p99"},
	}
	var alone Series
	for _, each := range []struct{ who, manifest string }{{"nobody", ""}, {"policy", "deploy/policy"}, {"webhook", testbed.Manifest("webhook")}} {
		if each.manifest != "" {
			change(b, bed, "apply", each.manifest)
			rig.Eventually(b, "annotated pods get their volumes", func() bool { return api.translates(b.Context()) })
		}
		var plain, asked Series
		for range size.admissions {
			plain = append(plain, api.measure(b, plainPod))
			asked = append(asked, api.measure(b, askedPod))
		}
		if each.manifest != "" {
			change(b, bed, "delete", each.manifest)
			// The API server forgets a policy shortly after it is gone.
			rig.Eventually(b, "annotated pods get no volumes", func() bool { return !api.translates(b.Context()) })
			r.Put("admission by "+each.who+": p50 over that of a pod which nobody translates", Over(asked.Median(), alone.Median()), Lower)
		} else {
			alone = asked
		}
		section.Rows = append(section.Rows, []string{
			each.who, Microseconds(plain.Median()), Microseconds(plain.P99()), Microseconds(asked.Median()), Microseconds(asked.P99()),
		})
	}
	r.Sections = append(r.Sections, section)
}

func change(b *testing.B, bed *testbed.Testbed, verb, manifest string) {
	b.Helper()
	if _, err := bed.Kubectl(b.Context(), verb, "-k", manifest); err != nil {
		b.Fatal(err)
	}
}

// apiServer is a client that keeps its connection, as controllers do.
type apiServer struct {
	client *http.Client
	pods   string
}

func newAPIServer(b *testing.B, kubeconfig string) *apiServer {
	b.Helper()
	config, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	require.NoError(b, err)
	client, err := rest.HTTPClientFor(config)
	require.NoError(b, err)
	return &apiServer{client: client, pods: config.Host + "/api/v1/namespaces/default/pods?dryRun=All"}
}

// create returns the pod as it would be.
func (s *apiServer) create(ctx context.Context, pod string) (string, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, s.pods, bytes.NewReader([]byte(pod)))
	if err != nil {
		return "", err
	}
	request.Header.Set("Content-Type", "application/json")
	response, err := s.client.Do(request)
	if err != nil {
		return "", err
	}
	defer response.Body.Close()
	answer, err := io.ReadAll(response.Body)
	if err != nil {
		return "", err
	}
	if response.StatusCode != http.StatusCreated {
		return "", fmt.Errorf("create a pod: %s: %s", response.Status, answer)
	}
	return string(answer), nil
}

func (s *apiServer) translates(ctx context.Context) bool {
	pod, err := s.create(ctx, askedPod)
	return err == nil && strings.Contains(pod, "csi.vaultmount.dev")
}

func (s *apiServer) measure(b *testing.B, pod string) time.Duration {
	b.Helper()
	start := time.Now()
	if _, err := s.create(b.Context(), pod); err != nil {
		b.Fatal(err)
	}
	return time.Since(start)
}
