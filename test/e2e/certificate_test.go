package e2e

import (
	"context"
	"crypto/x509"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/vaultmount/vaultmount/driver/webhook/certs"
)

// Eight replicas start at the same time, and later find the same certificate due,
// at a real API server: there is one CA and one certificate, which all
// serve and the configuration trusts. Time is the test's own.
func TestReplicasAgreeOnACertificate(t *testing.T) {
	const replicas = 8
	apply(t, "certificate.yaml")
	t.Cleanup(func() {
		if _, err := bed.Kubectl(context.Background(), "delete", "secret", "certificate-test", "--ignore-not-found"); err != nil {
			t.Errorf("clean up: %v", err)
		}
	})
	config, err := clientcmd.BuildConfigFromFlags("", bed.Kubeconfig())
	require.NoError(t, err)
	config.QPS = -1 // no limit: eight replicas share one client
	secrets, configurations, err := certs.NewClients(config, "default")
	require.NoError(t, err)
	now := time.Now()
	var all []*certs.Rotator
	for range replicas {
		all = append(all, certs.NewRotator(certs.Options{
			Secrets: secrets, Configurations: configurations,
			Secret: "certificate-test", Configuration: "certificate-test", Names: []string{"webhook.test"},
			Now: func() time.Time { return now },
		}))
	}
	trusted := func() int {
		configuration, err := configurations.Get(t.Context(), "certificate-test", metav1.GetOptions{})
		require.NoError(t, err)
		roots := x509.NewCertPool()
		roots.AppendCertsFromPEM(configuration.Webhooks[0].ClientConfig.CABundle)
		serials := map[string]bool{}
		for _, m := range all {
			current, err := m.Current()
			require.NoError(t, err)
			if _, err := current.Leaf.Verify(x509.VerifyOptions{Roots: roots, DNSName: "webhook.test", CurrentTime: now}); err != nil {
				t.Errorf("what a replica serves is not trusted: %v", err)
			}
			serials[current.Leaf.SerialNumber.String()] = true
		}
		return len(serials)
	}
	// At first there is nothing; then the certificate is due, the CA is, and
	// the replaced one has expired.
	for _, days := range []int{0, 70, 9 * 365, 2 * 365} {
		now = now.AddDate(0, 0, days)
		// Twice: each does one change that is due, and another may follow it.
		for range 2 {
			var syncing sync.WaitGroup
			for _, m := range all {
				syncing.Go(func() {
					if err := m.Sync(t.Context()); err != nil {
						t.Error(err)
					}
				})
			}
			syncing.Wait()
		}
		if got := trusted(); got != 1 {
			t.Errorf("after %d days %d different certificates are served", days, got)
		}
	}
}
