package component

import (
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"maps"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/vaultmount/vaultmount/driver"
	"github.com/vaultmount/vaultmount/driver/volume"
	"github.com/vaultmount/vaultmount/test/rig"
	"github.com/vaultmount/vaultmount/test/vaultserver"
)

// publish makes a volume with these attributes and Secret, and returns what its
// file "a" holds.
func (n *node) publish(t *testing.T, pod string, attributes, secret map[string]string) (string, error) {
	t.Helper()
	all := map[string]string{"template/a": connectionTemplate}
	maps.Copy(all, attributes)
	request := n.request(t, pod, all)
	maps.Copy(request.Secrets, secret)
	if _, err := n.calls.NodePublishVolume(t.Context(), request); err != nil {
		rig.RequireNothing(t, request.GetTargetPath())
		return "", err
	}
	return mustRead(t, rig.VolumeFile(request, "a")), nil
}

func (n *node) requirePublished(t *testing.T, pod string, attributes, secret map[string]string) {
	t.Helper()
	got, err := n.publish(t, pod, attributes, secret)
	require.NoError(t, err)
	if got != connection {
		t.Errorf("the file holds %q", got)
	}
}

func vaultCA(pem string) func(*driver.Config) {
	return func(c *driver.Config) { c.Vault.ReadCA = func() (string, error) { return pem, nil } }
}

func TestTLS(t *testing.T) {
	a := newCA(t, "the right one")
	fixture := startTLSVault(t, a, false)
	n := startNode(t, fixture.Server.TLSAddress, fixture)
	t.Run("CA and name of the volume", func(t *testing.T) {
		n.requirePublished(t, "own-ca", map[string]string{"ca-cert": "ca.crt", "tls-server-name": "vault.internal"}, map[string]string{"ca.crt": a.pem})
	})
	t.Run("CA of the cluster", func(t *testing.T) {
		given := startNode(t, fixture.Server.TLSAddress, fixture, func(c *driver.Config) {
			c.Vault.ReadClusterCA = func(name string) (string, error) { return map[string]string{"ca.crt": a.pem}[name], nil }
		})
		given.requirePublished(t, "cluster-ca", map[string]string{
			"ca-cert": volume.ClusterCA, "tls-server-name": "vault.internal", "template/ca": `{{ file "` + volume.ClusterCA + `" }}`,
		}, nil)
		if got := mustRead(t, filepath.Join(given.kubelet.Root, "pods", "cluster-ca-uid", "volumes", "kubernetes.io~csi", "vault-secrets", "mount", "ca")); got != a.pem {
			t.Errorf("the file holds %q", got)
		}
	})
	t.Run("no verification", func(t *testing.T) {
		n.requirePublished(t, "skip", map[string]string{"tls-skip-verify": "true"}, nil)
	})
	t.Run("CA of the driver", func(t *testing.T) {
		own := startNode(t, fixture.Server.TLSAddress, fixture, vaultCA(a.pem))
		own.requirePublished(t, "driver-ca", map[string]string{"tls-server-name": "vault.internal"}, nil)
	})
}

// The bundle on disk may change while the driver runs: when the old CA is
// about to expire, for one.
func TestCABundleIsReadAgain(t *testing.T) {
	right, wrong := newCA(t, "the right one"), newCA(t, "the wrong one")
	fixture := startTLSVault(t, right, false)
	var mutex sync.Mutex
	bundle := wrong.pem
	n := startNode(t, fixture.Server.TLSAddress, fixture, func(c *driver.Config) {
		c.Vault.ReadCA = func() (string, error) {
			mutex.Lock()
			defer mutex.Unlock()
			return bundle, nil
		}
	})
	if _, err := n.publish(t, "early", map[string]string{"tls-server-name": "vault.internal"}, nil); err == nil {
		t.Fatal("a certificate of an unknown CA was accepted")
	}
	mutex.Lock()
	bundle = right.pem
	mutex.Unlock()
	n.requirePublished(t, "later", map[string]string{"tls-server-name": "vault.internal"}, nil)
}

func TestMutualTLS(t *testing.T) {
	a := newCA(t, "the right one")
	fixture := startTLSVault(t, a, true)
	n := startNode(t, fixture.Server.TLSAddress, fixture, vaultCA(a.pem))
	certificate, key := a.issue(t, "client", time.Now().Add(time.Hour))
	n.requirePublished(t, "client",
		map[string]string{"tls-server-name": "vault.internal", "client-cert": "tls.crt", "client-key": "tls.key"},
		map[string]string{"tls.crt": certificate, "tls.key": key})
	// One pod's certificate must not open the way for the next.
	if _, err := n.publish(t, "without", map[string]string{"tls-server-name": "vault.internal"}, nil); err == nil {
		t.Error("a volume without a certificate used another's connection")
	}
	n.logs.requireNone(t, "PRIVATE KEY", password, "hvs.")
}

func TestAddressOnTheList(t *testing.T) {
	near, far := rig.StartVault(t), rig.StartVault(t)
	far.Write(t, "internal/data/database/config", map[string]any{"data": map[string]any{"username": "far", "password": "away"}})
	list, err := driver.ParseAllowList([]string{far.Server.Address})
	require.NoError(t, err)
	// The pod's token must be one that the other Vault trusts.
	n := startNode(t, near.Server.Address, far, func(c *driver.Config) { c.Vault.Addresses = list })
	got, err := n.publish(t, "far", map[string]string{"address": far.Server.Address}, nil)
	if err != nil || got != "postgresql://far:away@postgres:5432/wizard" {
		t.Errorf("got %q, %v", got, err)
	}
}

// spy is a proxy in front of a real Vault that keeps the headers it saw.
type spy struct {
	*httptest.Server
	mutex    sync.Mutex
	requests []*http.Request
}

// startSpy forwards to a Vault, or as a forward proxy to wherever it is asked.
func startSpy(t *testing.T, target string, change func(http.Header)) *spy {
	t.Helper()
	s := &spy{}
	proxy := &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			if target == "" {
				return
			}
			address, err := url.Parse(target)
			if err != nil {
				t.Error(err)
				return
			}
			r.SetURL(address)
		},
		ModifyResponse: func(response *http.Response) error {
			change(response.Header)
			return nil
		},
	}
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.mutex.Lock()
		s.requests = append(s.requests, r.Clone(t.Context()))
		s.mutex.Unlock()
		proxy.ServeHTTP(w, r)
	}))
	t.Cleanup(s.Close)
	return s
}

func (s *spy) seen(part string) []*http.Request {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	var found []*http.Request
	for _, request := range s.requests {
		if strings.Contains(request.URL.Path, part) {
			found = append(found, request)
		}
	}
	return found
}

func TestNamespaceAndConsistencyHeaders(t *testing.T) {
	fixture := rig.StartVault(t)
	// What a Vault cluster says after a write; a single Vault does not.
	s := startSpy(t, fixture.Server.Address, func(h http.Header) { h.Set("X-Vault-Index", "djE6c3RhdGU6MTo6") })
	n := startNode(t, s.URL, fixture)
	n.requirePublished(t, "tenant", map[string]string{"namespace": "team/app"}, nil)
	for _, part := range []string{"/auth/jwt/login", "/internal/data/database/config"} {
		requests := s.seen(part)
		if len(requests) == 0 {
			t.Fatalf("no request to %s", part)
		}
		for _, request := range requests {
			if got := strings.Trim(request.Header.Get("X-Vault-Namespace"), "/"); got != "team/app" {
				t.Errorf("%s: namespace %q", part, got)
			}
		}
	}
	reads := s.seen("/internal/data/database/config")
	if got := reads[len(reads)-1].Header.Get("X-Vault-Index"); got == "" {
		t.Error("a read does not ask for the state that the session has seen")
	}
}

func TestProxyOnTheList(t *testing.T) {
	fixture := rig.StartVault(t)
	s := startSpy(t, "", func(http.Header) {})
	list, err := driver.ParseAllowList([]string{s.URL})
	require.NoError(t, err)
	n := startNode(t, fixture.Server.Address, fixture, func(c *driver.Config) { c.Vault.Proxies = list })
	n.requirePublished(t, "proxied", map[string]string{"proxy-address": s.URL}, nil)
	if len(s.seen("/auth/jwt/login")) != 1 {
		t.Error("the login did not go through the proxy")
	}
}

func TestAppRole(t *testing.T) {
	fixture := rig.StartVault(t)
	fixture.Write(t, "sys/auth/approle", map[string]any{"type": "approle"})
	fixture.Write(t, "auth/approle/role/app", map[string]any{"token_policies": []string{"internal-app"}, "secret_id_num_uses": 1})
	roleID, err := fixture.Root.Logical().ReadWithContext(t.Context(), "auth/approle/role/app/role-id")
	require.NoError(t, err)
	secretID, err := fixture.Root.Logical().WriteWithContext(t.Context(), "auth/approle/role/app/secret-id", nil)
	require.NoError(t, err)
	n := startNode(t, fixture.Server.Address, fixture)
	attributes := map[string]string{"role": rig.Absent, "auth-type": "approle", "role-id": "id", "secret-id": "secret"}
	secret := map[string]string{"id": roleID.Data["role_id"].(string), "secret": secretID.Data["secret_id"].(string)}
	n.requirePublished(t, "approle", attributes, secret)
	_, err = n.publish(t, "used-up", attributes, secret)
	if err == nil || !strings.Contains(err.Error(), "check the role id and the secret id in the volume's Secret") || strings.Contains(err.Error(), secret["secret"]) {
		t.Errorf("a secret id that is used up: %v", err)
	}
	n.logs.requireNone(t, secret["secret"], secret["id"])
}

func TestDefaultRoleOfAJWTMount(t *testing.T) {
	fixture := rig.StartVault(t)
	n := startNode(t, fixture.Server.Address, fixture)
	if _, err := n.publish(t, "none", map[string]string{"role": rig.Absent}, nil); err == nil || !strings.Contains(err.Error(), "set the attribute role, or default_role of auth/jwt") {
		t.Errorf("without any role: %v", err)
	}
	config, err := fixture.Root.Logical().ReadWithContext(t.Context(), "auth/jwt/config")
	require.NoError(t, err)
	fixture.Write(t, "auth/jwt/config", map[string]any{"jwt_validation_pubkeys": config.Data["jwt_validation_pubkeys"], "default_role": "internal-app"})
	n.requirePublished(t, "default", map[string]string{"role": rig.Absent}, nil)
}

// testCA signs the certificates of one test.
type testCA struct {
	certificate *x509.Certificate
	key         *ecdsa.PrivateKey
	pem         string
}

func newCA(t *testing.T, name string) *testCA {
	t.Helper()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	key := rig.NewKey(t)
	certificate, text := sign(t, template, template, key, key)
	return &testCA{certificate: certificate, key: key, pem: text}
}

// issue returns a certificate and its key in PEM form, good for both sides.
func (a *testCA) issue(t *testing.T, name string, expires time.Time) (certificate, key string) {
	t.Helper()
	own := rig.NewKey(t)
	_, certificate = sign(t, &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: name}, DNSNames: []string{name}, IPAddresses: []net.IP{net.IPv6loopback},
		NotBefore: time.Now().Add(-2 * time.Hour), NotAfter: expires,
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}, a.certificate, own, a.key)
	encoded, err := x509.MarshalPKCS8PrivateKey(own)
	require.NoError(t, err)
	return certificate, string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: encoded}))
}

func sign(t *testing.T, template, parent *x509.Certificate, key, parentKey *ecdsa.PrivateKey) (*x509.Certificate, string) {
	t.Helper()
	encoded, err := x509.CreateCertificate(rand.Reader, template, parent, &key.PublicKey, parentKey)
	require.NoError(t, err)
	certificate, err := x509.ParseCertificate(encoded)
	require.NoError(t, err)
	return certificate, string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: encoded}))
}

// startTLSVault serves TLS for the name vault.internal, and asks for a client
// certificate if mutual. The name is not that of the address on purpose.
func startTLSVault(t *testing.T, a *testCA, mutual bool) *rig.Vault {
	t.Helper()
	directory := t.TempDir()
	write := func(name, content string) string {
		path := filepath.Join(directory, name)
		require.NoError(t, os.WriteFile(path, []byte(content), 0o600))
		return path
	}
	certificate, key := a.issue(t, "vault.internal", time.Now().Add(time.Hour))
	tls := &vaultserver.TLS{Certificate: write("tls.crt", certificate), Key: write("tls.key", key)}
	if mutual {
		tls.ClientCA = write("ca.crt", a.pem)
	}
	return rig.SetUpVault(t, vaultserver.ForTest(t, tls))
}

// Vault's own rate limit: a second's wait that it asks for is waited out inside
// the call; a minute's is reported.
func TestRateLimit(t *testing.T) {
	fixture := rig.StartVault(t)
	n := startNode(t, fixture.Server.Address, fixture)
	fixture.Write(t, "sys/quotas/rate-limit/logins", map[string]any{"path": "auth/jwt", "rate": 1, "interval": "1s"})
	var group sync.WaitGroup
	for i := range 3 {
		group.Go(func() { n.requirePublished(t, podName(i), nil, nil) })
	}
	group.Wait()

	fixture.Write(t, "sys/quotas/rate-limit/logins", map[string]any{"path": "auth/jwt", "rate": 1, "interval": "60s"})
	n.requirePublished(t, "last-one", nil, nil)
	_, err := n.publish(t, "one-too-many", nil, nil)
	if status.Code(err) != codes.Unavailable || !strings.Contains(err.Error(), "HTTP status 429") {
		t.Errorf("got %v", err)
	}
}

func TestSealedVault(t *testing.T) {
	fixture := rig.StartVault(t)
	n := startNode(t, fixture.Server.Address, fixture)
	require.NoError(t, fixture.Root.Sys().SealWithContext(t.Context()))
	for i := range 3 {
		_, err := n.publish(t, podName(i), map[string]string{"client-max-retries": "1", "auth-max-backoff": "100ms"}, nil)
		if status.Code(err) != codes.Unavailable || !strings.Contains(err.Error(), "Vault is sealed") {
			t.Errorf("publish %d: %v", i, err)
		}
	}
	// Three calls with two attempts each: the sixth request was not sent.
	opened := regexp.MustCompile(`"Circuit breaker of Vault changed" .*open=true cause="[^"]*Vault is sealed"`)
	if !opened.MatchString(n.logs.String()) {
		t.Error("the breaker did not open, or does not say so")
	}
}

// The shortest waitTimeout that a volume may ask for.
func TestClientTimeout(t *testing.T) {
	silent, _ := listenSilently(t)
	n := startNode(t, "http://"+silent, rig.NewIssuer(t))
	start := time.Now()
	_, err := n.publish(t, "impatient", map[string]string{"client-timeout": "1s", "client-max-retries": "0"}, nil)
	if status.Code(err) != codes.Unavailable || !strings.Contains(err.Error(), "deadline exceeded") {
		t.Errorf("got %v", err)
	}
	if took := time.Since(start); took > 20*time.Second {
		t.Errorf("it took %s; without the attribute it takes 30 s", took)
	}
	if !strings.Contains(n.logs.String(), `attribute="client-timeout" asked="1s" used="5s"`) {
		t.Error("the log does not say that the attribute was out of bounds")
	}
}
