package bench

import (
	"bytes"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"testing"
	"time"

	"github.com/hashicorp/vault/api"
	"github.com/stretchr/testify/require"
	admissionv1 "k8s.io/api/admission/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/klog/v2"

	"github.com/vaultmount/vaultmount/driver/injector"
	"github.com/vaultmount/vaultmount/driver/tmpfs"
	"github.com/vaultmount/vaultmount/driver/webhook"
	"github.com/vaultmount/vaultmount/provider/sandbox"
	"github.com/vaultmount/vaultmount/provider/template"
	"github.com/vaultmount/vaultmount/test/rig"
)

// pieces measures what a publish and an admission are made of, each alone.
func pieces(b *testing.B, r *Report, size size) {
	first, second := measureRender(b, size)
	create, swap, same := measureVolume(b, size)
	review := measureReview(b, size)
	section := Section{
		Title: "Parts",
		Text: "Each alone, one after the other. The renderer is a confined process. The webhook is asked over HTTP in the benchmark's own process, with an\n" +
			"annotated pod of two secrets.",
		Head: []string{"what", "p50", "p99"},
	}
	for _, each := range []struct {
		what   string
		series Series
	}{
		{"render, to find out what the template asks", first}, {"render, with its secret", second},
		{"a tmpfs with one file, mounted and removed", create}, {"atomic swap of one file", swap}, {"a swap for the same content", same},
		{"webhook, one review", review},
	} {
		section.Rows = append(section.Rows, []string{each.what, Microseconds(each.series.Median()), Microseconds(each.series.P99())})
	}
	r.Sections = append(r.Sections, section)
}

// repeat measures a step many times.
func repeat(b *testing.B, count int, do func(i int) error) Series {
	b.Helper()
	var series Series
	for i := range count {
		start := time.Now()
		require.NoError(b, do(i))
		series = append(series, time.Since(start))
	}
	return series
}

func measureRender(b *testing.B, size size) (first, second Series) {
	pool := sandbox.New(klog.Background(), sandbox.Config{Program: rig.Program(b)})
	require.NoError(b, pool.Start(b.Context()))
	defer func() {
		if err := pool.Stop(b.Context()); err != nil {
			b.Error(err)
		}
	}()
	templates := []template.Template{{Name: "file", Text: templateOf(secretPath(0))}}
	values := template.Values{{Verb: template.Read, Path: secretPath(0)}: {Secret: &api.Secret{Data: map[string]any{
		"data": map[string]any{"username": rig.Username, "password": rig.Password}, "metadata": map[string]any{"version": json.Number("1")},
	}}}}
	run := func(values template.Values) Series {
		return repeat(b, size.republishes, func(int) error { _, err := pool.Render(b.Context(), templates, values); return err })
	}
	return run(nil), run(values)
}

func measureVolume(b *testing.B, size size) (create, swap, same Series) {
	mounter, err := tmpfs.NewMounter(rig.DriverName)
	require.NoError(b, err)
	payload := func(content string) tmpfs.Payload {
		return tmpfs.Payload{{Path: "file", Content: []byte(content), Perms: 0o644}}
	}
	target := filepath.Join(b.TempDir(), "mount")
	create = repeat(b, size.samples, func(int) error {
		if err := mounter.Create(target, 64<<10, payload("0")); err != nil {
			return err
		}
		return tmpfs.Remove(target)
	})
	require.NoError(b, mounter.Create(target, 64<<10, payload("0")))
	defer func() {
		if err := tmpfs.Remove(target); err != nil {
			b.Error(err)
		}
	}()
	swap = repeat(b, size.republishes, func(i int) error { return mounter.Replace(target, payload(fmt.Sprint(i))) })
	last := payload("last")
	written := last.Digest()
	same = repeat(b, size.republishes, func(int) error {
		if !written.Equal(last.Digest()) {
			return errors.New("a payload that was written is not known")
		}
		return nil
	})
	return create, swap, same
}

const annotatedPod = `{"apiVersion":"v1","kind":"Pod","metadata":{"name":"app","namespace":"default","annotations":{
	"vault.hashicorp.com/agent-inject":"true","vault.hashicorp.com/role":"internal-app",
	"vault.hashicorp.com/agent-inject-secret-db":"internal/data/database/config","vault.hashicorp.com/agent-inject-secret-api":"internal/data/database/api"}},
	"spec":{"serviceAccountName":"internal-app","containers":[{"name":"app","image":"app"}]}}`

func measureReview(b *testing.B, size size) Series {
	reviewer := webhook.Reviewer{Translator: injector.Translator{Prefix: injector.DefaultPrefix, Driver: rig.DriverName}}
	server := httptest.NewServer(webhook.NewHandler(reviewer, webhook.NewMetrics(noCertificate{})))
	defer server.Close()
	body, err := json.Marshal(admissionv1.AdmissionReview{
		TypeMeta: metav1.TypeMeta{APIVersion: "admission.k8s.io/v1", Kind: "AdmissionReview"},
		Request: &admissionv1.AdmissionRequest{
			UID: "1", Kind: metav1.GroupVersionKind{Version: "v1", Kind: "Pod"}, Resource: metav1.GroupVersionResource{Version: "v1", Resource: "pods"},
			Namespace: "default", Operation: admissionv1.Create, Object: runtime.RawExtension{Raw: []byte(annotatedPod)},
		},
	})
	require.NoError(b, err)
	return repeat(b, size.republishes, func(int) error {
		response, err := http.Post(server.URL, "application/json", bytes.NewReader(body))
		if err != nil {
			return err
		}
		defer response.Body.Close()
		var answer admissionv1.AdmissionReview
		if err := json.NewDecoder(response.Body).Decode(&answer); err != nil {
			return err
		}
		if answer.Response == nil || !answer.Response.Allowed || len(answer.Response.Patch) == 0 {
			return fmt.Errorf("the pod is not translated: %+v", answer.Response)
		}
		return nil
	})
}

// noCertificate is in place of a server's certificate, which plain HTTP does not have.
type noCertificate struct{}

func (noCertificate) Current() (*tls.Certificate, error) { return nil, errors.New("there is none") }
