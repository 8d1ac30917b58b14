package e2e

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// Both replicas serve what one CA has signed, and what both webhooks of the
// configuration trust; who takes the trust or the Secret away gets it back.
func testWebhookCertificate(t *testing.T) {
	trust := webhookTrust(t)
	if len(trust) != 2 || trust[0] == "" || trust[0] != trust[1] {
		t.Fatalf("the webhooks trust %q", trust)
	}
	pods := strings.Fields(kubectl(t, "get", "pods", webhookNamespace, "--selector=app.kubernetes.io/name=vaultmount-webhook", "-o", "name"))
	if len(pods) != 2 {
		t.Fatalf("there are %d replicas", len(pods))
	}
	first, second := servedBy(t, pods[0], trust[0]), servedBy(t, pods[1], trust[0])
	if !first.Equal(second) {
		t.Error("the replicas serve different certificates")
	}

	foreign := base64.StdEncoding.EncodeToString([]byte(kubectl(t, "get", "configmap", "kube-root-ca.crt", "-o", `jsonpath={.data.ca\.crt}`)))
	kubectl(t, "patch", "mutatingwebhookconfiguration", "vault-agent-annotations", "--type=json", "-p",
		`[{"op":"remove","path":"/webhooks/0/clientConfig/caBundle"},{"op":"replace","path":"/webhooks/1/clientConfig/caBundle","value":"`+foreign+`"}]`)
	eventually(t, "the trust is restored", func() bool {
		now := webhookTrust(t)
		return now[0] == trust[0] && now[1] == trust[1]
	})

	secret := func() string {
		return kubectl(t, "get", "secret", webhookNamespace, "--ignore-not-found", "vaultmount-webhook-tls", "-o", "jsonpath={.data}")
	}
	before := secret()
	kubectl(t, "delete", "secret", "vaultmount-webhook-tls", webhookNamespace)
	eventually(t, "the Secret is back", func() bool { return secret() == before })
	awaitWebhook(t)
}

// webhookTrust is the caBundle of each webhook of the configuration.
func webhookTrust(t *testing.T) []string {
	t.Helper()
	return strings.Split(kubectl(t, "get", "mutatingwebhookconfiguration", "vault-agent-annotations", "-o", `jsonpath={.webhooks[0].clientConfig.caBundle}{","}{.webhooks[1].clientConfig.caBundle}`), ",")
}

// servedBy returns the certificate of one pod.
func servedBy(t *testing.T, pod, trust string) *x509.Certificate {
	t.Helper()
	served, err := handshake(t, forward(t, pod), trust)
	if err != nil {
		t.Fatalf("%s: %v", pod, err)
	}
	return served
}

// handshake returns what is served at an address, verified as the API server does.
func handshake(t *testing.T, address, trust string) (*x509.Certificate, error) {
	t.Helper()
	bundle, err := base64.StdEncoding.DecodeString(trust)
	require.NoError(t, err)
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(bundle) {
		t.Fatalf("the trust holds no certificate: %s", bundle)
	}
	dialer := tls.Dialer{Config: &tls.Config{RootCAs: roots, ServerName: "vaultmount-webhook.vaultmount.svc"}}
	conn, err := dialer.DialContext(t.Context(), "tcp", address)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	return conn.(*tls.Conn).ConnectionState().PeerCertificates[0], nil
}

// forward makes the reviews' port of a pod reachable for the rest of the test.
func forward(t *testing.T, pod string) string {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	command := exec.CommandContext(ctx, bed.KubectlPath(), "port-forward", webhookNamespace, pod, ":8443")
	command.Env = append(os.Environ(), bed.Environment()...)
	output, err := command.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, command.Start())
	t.Cleanup(func() {
		cancel()
		_ = command.Wait() // it was killed
	})
	line, err := bufio.NewReader(output).ReadString('\n')
	require.NoError(t, err)
	address := regexp.MustCompile(`127\.0\.0\.1:\d+`).FindString(line)
	if address == "" {
		t.Fatalf("kubectl says %q", line)
	}
	return address
}
