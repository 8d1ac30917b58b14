package e2e

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"math/big"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// The webhook with a certificate that somebody else makes: deploy/webhook-cert-manager
// without cert-manager, whose part the test plays.
func TestWebhookWithCertificateInFiles(t *testing.T) {
	var documents []string
	for document := range strings.SplitSeq(kubectl(t, "kustomize", "deploy/webhook-cert-manager"), "---\n") {
		if !strings.Contains(document, "apiVersion: cert-manager.io/") {
			documents = append(documents, document)
		}
	}
	manifest := t.TempDir() + "/webhook.yaml"
	require.NoError(t, os.WriteFile(manifest, []byte(strings.Join(documents, "---\n")), 0o600))
	t.Cleanup(func() {
		for _, arguments := range [][]string{
			{"delete", "-f", manifest, "--ignore-not-found", "--cascade=foreground", "--timeout=90s"},
			{"delete", "secret", "vaultmount-webhook-cert-manager", webhookNamespace, "--ignore-not-found"},
		} {
			if _, err := bed.Kubectl(context.Background(), arguments...); err != nil {
				t.Errorf("clean up: %v", err)
			}
		}
	})
	first := provideCertificate(t, 1)
	kubectl(t, "apply", "-f", manifest)
	trustCertificate(t, first)
	awaitWebhook(t)
	pod := strings.Fields(kubectl(t, "get", "pods", webhookNamespace, "--selector=app.kubernetes.io/name=vaultmount-webhook", "-o", "name"))[0]
	if mounted := kubectl(t, "get", webhookNamespace, pod, "-o", "jsonpath={.spec.volumes[*].name}"); mounted != "tls" {
		t.Errorf("the pod has the volumes %s, want no token", mounted)
	}

	second := provideCertificate(t, 2)
	address := forward(t, pod)
	eventually(t, "the new certificate is served", func() bool {
		served, err := handshake(t, address, base64.StdEncoding.EncodeToString(append(first, second...)))
		return err == nil && served.SerialNumber.Int64() == 2
	})
}

// provideCertificate puts a certificate into the Secret of the pods' volume.
func provideCertificate(t *testing.T, serial int64) []byte {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(serial), NotAfter: time.Now().Add(time.Hour),
		DNSNames: []string{"vaultmount-webhook.vaultmount.svc"}, IsCA: true, BasicConstraintsValid: true,
	}
	certificate, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	require.NoError(t, err)
	encoded, err := x509.MarshalPKCS8PrivateKey(key)
	require.NoError(t, err)
	write := func(block string, der []byte) string {
		file := t.TempDir() + "/pem"
		require.NoError(t, os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: block, Bytes: der}), 0o600))
		return file
	}
	secret := kubectl(t, "create", "secret", "tls", "vaultmount-webhook-cert-manager", webhookNamespace, "--dry-run=client", "-o", "yaml",
		"--cert="+write("CERTIFICATE", certificate), "--key="+write("PRIVATE KEY", encoded))
	if _, err := bed.KubectlWithInput(t.Context(), secret, "apply", "-f", "-"); err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: certificate})
}

func trustCertificate(t *testing.T, bundlePEM []byte) {
	t.Helper()
	bundle := base64.StdEncoding.EncodeToString(bundlePEM)
	kubectl(t, "patch", "mutatingwebhookconfiguration", "vault-agent-annotations", "--type=json", "-p",
		`[{"op":"add","path":"/webhooks/0/clientConfig/caBundle","value":"`+bundle+`"},{"op":"add","path":"/webhooks/1/clientConfig/caBundle","value":"`+bundle+`"}]`)
}
