// Package component tests the driver's parts together on one machine, with real
// ones next to them: tmpfs mounts, a Vault server, gRPC over unix sockets. What
// it plays itself is the kubelet, as a client of the driver's sockets.
package component

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
	"github.com/hashicorp/vault/api"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"k8s.io/klog/v2"
	"k8s.io/klog/v2/textlogger"
	"k8s.io/utils/clock"

	"github.com/vaultmount/vaultmount/driver"
	"github.com/vaultmount/vaultmount/driver/state"
	"github.com/vaultmount/vaultmount/driver/tmpfs"
	"github.com/vaultmount/vaultmount/provider"
	"github.com/vaultmount/vaultmount/provider/render/worker"
	"github.com/vaultmount/vaultmount/provider/vault"
	"github.com/vaultmount/vaultmount/test/vaultserver"
)

const (
	driverName = "csi.vaultmount.dev"
	password   = "db-secret-password"
)

// node is a driver that serves on its sockets, and all that a test needs to play
// the kubelet in front of it.
type node struct {
	*vaultFixture
	kubelet string // root directory
	config  driver.Config
	clock   clock.Clock
	logs    *logBuffer

	calls    csi.NodeClient
	provider *provider.Provider
	stop     func() // ends the driver; what is mounted stays
}

// startNode runs a driver in this process, so that the race detector sees it.
func startNode(t *testing.T, address string, fixture *vaultFixture, changes ...func(*driver.Config)) *node {
	t.Helper()
	n := newNode(t, address, fixture, changes...)
	n.start(t)
	return n
}

func newNode(t *testing.T, address string, fixture *vaultFixture, changes ...func(*driver.Config)) *node {
	t.Helper()
	n := &node{vaultFixture: fixture, kubelet: newKubelet(t), clock: clock.RealClock{}, logs: &logBuffer{}}
	n.config = driver.Config{
		Name: driverName, Version: "test", NodeName: "node-1", KubeletRoot: n.kubelet, VolumeSize: mebibyte, MaxVolumeSize: 16 * mebibyte,
		Vault: driver.VaultConfig{Address: address, ReadCA: func() (string, error) { return "", nil }},
	}
	for _, change := range changes {
		change(&n.config)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("log of the driver:\n%s", n.logs)
		}
	})
	return n
}

// start runs a driver on the node; the one before must have been stopped.
func (n *node) start(t *testing.T) {
	t.Helper()
	logger := textlogger.NewLogger(textlogger.NewConfig(textlogger.Output(n.logs), textlogger.Verbosity(10)))
	mounter := newMounter(t)
	store, err := state.Open(mounter, driver.StateDirectory(n.kubelet, driverName))
	if err != nil {
		t.Fatal(err)
	}
	mounts, err := driver.NewMounts(logger, mounter, store)
	if err != nil {
		t.Fatal(err)
	}
	workers := startWorkers(t, logger)
	n.provider = provider.New(provider.Config{
		Logger: logger, Servers: vault.NewServers(logger, time.Now), Renderer: workers,
		Files: mounts, Store: store, Clock: n.clock,
	})
	plugin, err := driver.New(n.config, mounts, n.provider)
	if err != nil {
		t.Fatal(err)
	}
	if err := n.provider.Resume(mounts.IsMounted); err != nil {
		t.Fatal(err)
	}
	connection := dial(t, n.endpoint())
	n.calls = csi.NewNodeClient(connection)
	ctx, cancel := context.WithCancel(klog.NewContext(context.Background(), logger))
	ended := make(chan error, 1)
	go func() {
		ended <- plugin.Run(ctx, n.endpoint())
		connection.Close() // calls fail at once instead of waiting for a driver
	}()
	n.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("the driver ended: %v", err)
		}
		stopping, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		n.provider.Stop(stopping)
		if err := workers.Stop(stopping); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(n.stop)
}

// newKubelet returns a kubelet's root directory with what a kubelet has made
// before any driver starts.
func newKubelet(t *testing.T) string {
	t.Helper()
	root := shortDir(t)
	for _, directory := range []string{"pods", "plugins_registry"} {
		if err := os.Mkdir(filepath.Join(root, directory), 0o750); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() {
		if err := tmpfs.Remove(driver.StateDirectory(root, driverName)); err != nil {
			t.Errorf("clean up: %v", err)
		}
	})
	return root
}

// startWorkers confines templates as the DaemonSet does, in processes of the real
// program.
func startWorkers(t *testing.T, logger klog.Logger) *worker.Pool {
	t.Helper()
	workers := worker.New(logger, worker.Config{Program: program(t), Limits: worker.Limits{Idle: time.Second}})
	if err := workers.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	return workers
}

// shortDir is for paths of sockets, which hold 107 bytes: t.TempDir's hold the
// name of the test.
func shortDir(t *testing.T) string {
	t.Helper()
	directory, err := os.MkdirTemp("", "node")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(directory); err != nil {
			t.Error(err)
		}
	})
	return directory
}

func (n *node) endpoint() string { return driver.DefaultEndpoint(n.kubelet, driverName) }

// dial connects to a unix socket, also to one that is not there yet.
func dial(t *testing.T, socket string) *grpc.ClientConn {
	t.Helper()
	connection, err := grpc.NewClient("unix://"+socket,
		grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithDefaultCallOptions(grpc.WaitForReady(true)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { connection.Close() })
	return connection
}

// request is what the kubelet sends for a volume of a pod of that name. It makes
// the parent of the target path, as the kubelet does.
func (n *node) request(t *testing.T, pod string, attributes map[string]string) *csi.NodePublishVolumeRequest {
	t.Helper()
	parent := filepath.Join(n.kubelet, "pods", pod+"-uid", "volumes", "kubernetes.io~csi", "vault-secrets")
	if err := os.MkdirAll(parent, 0o750); err != nil {
		t.Fatal(err)
	}
	// By which the kubelet knows what it has to unpublish.
	if err := os.WriteFile(filepath.Join(parent, "vol_data.json"), []byte("{}"), 0o600); err != nil {
		t.Fatal(err)
	}
	target := filepath.Join(parent, "mount")
	t.Cleanup(func() {
		if err := tmpfs.Remove(target); err != nil {
			t.Errorf("clean up: %v", err)
		}
	})
	volumeContext := map[string]string{
		"csi.storage.k8s.io/ephemeral":           "true",
		"csi.storage.k8s.io/pod.name":            pod,
		"csi.storage.k8s.io/pod.namespace":       "default",
		"csi.storage.k8s.io/pod.uid":             pod + "-uid",
		"csi.storage.k8s.io/serviceAccount.name": "internal-app",
		"role":                                   "internal-app",
		"auth-type":                              "jwt",
	}
	for key, value := range attributes {
		if value == absent {
			delete(volumeContext, key)
			continue
		}
		volumeContext[key] = value
	}
	return &csi.NodePublishVolumeRequest{
		VolumeId:         "csi-" + pod,
		TargetPath:       target,
		VolumeCapability: &csi.VolumeCapability{AccessType: &csi.VolumeCapability_Mount{Mount: &csi.VolumeCapability_MountVolume{}}},
		VolumeContext:    volumeContext,
		Secrets:          map[string]string{"csi.storage.k8s.io/serviceAccount.tokens": n.tokens(t, pod, "internal-app")},
	}
}

// absent leaves an attribute out that request would set.
const absent = "\x00"

func unpublishRequest(request *csi.NodePublishVolumeRequest) *csi.NodeUnpublishVolumeRequest {
	return &csi.NodeUnpublishVolumeRequest{VolumeId: request.GetVolumeId(), TargetPath: request.GetTargetPath()}
}

// vaultFixture is a Vault with secrets, and an issuer of service-account tokens
// that it trusts.
type vaultFixture struct {
	server *vaultserver.Server
	root   *api.Client
	signer jose.Signer
}

func startVault(t *testing.T) *vaultFixture {
	t.Helper()
	return setUpVault(t, vaultserver.ForTest(t, nil))
}

func setUpVault(t *testing.T, server *vaultserver.Server) *vaultFixture {
	t.Helper()
	f := &vaultFixture{server: server}
	client, err := f.server.Client()
	if err != nil {
		t.Fatal(err)
	}
	f.root = client
	key := newKey(t)
	f.signer = newSigner(t, key)
	public, err := x509.MarshalPKIXPublicKey(&key.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	f.write(t, "sys/mounts/internal", map[string]any{"type": "kv", "options": map[string]any{"version": "2"}})
	f.write(t, "sys/mounts/old", map[string]any{"type": "kv", "options": map[string]any{"version": "1"}})
	f.write(t, "internal/data/database/config", map[string]any{"data": map[string]any{"username": "db-readonly-username", "password": password}})
	f.write(t, "old/app", map[string]any{"name": "value", "html": "<&>"})
	f.write(t, "sys/policies/acl/internal-app", map[string]any{"policy": `
		path "internal/data/database/*" { capabilities = ["read"] }
		path "internal/metadata/database" { capabilities = ["list"] }
		path "old/*" { capabilities = ["read"] }`})
	f.write(t, "sys/auth/jwt", map[string]any{"type": "jwt"})
	f.write(t, "auth/jwt/config", map[string]any{
		"jwt_validation_pubkeys": string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: public})),
	})
	f.write(t, "auth/jwt/role/internal-app", map[string]any{
		"role_type": "jwt", "user_claim": "sub", "bound_audiences": []string{"vault"},
		"bound_subject": "system:serviceaccount:default:internal-app", "token_policies": []string{"internal-app"}, "token_ttl": "1h",
	})
	return f
}

func newKey(t *testing.T) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func newSigner(t *testing.T, key *ecdsa.PrivateKey) jose.Signer {
	t.Helper()
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.ES256, Key: key}, nil)
	if err != nil {
		t.Fatal(err)
	}
	return signer
}

func (f *vaultFixture) write(t *testing.T, path string, data map[string]any) {
	t.Helper()
	if _, err := f.root.Logical().WriteWithContext(t.Context(), path, data); err != nil {
		t.Fatal(err)
	}
}

// tokens is what the kubelet sends under serviceAccount.tokens for a pod.
func (f *vaultFixture) tokens(t *testing.T, pod, serviceAccount string) string {
	t.Helper()
	audiences := map[string]map[string]string{}
	for _, audience := range []string{"", "vault"} {
		token, err := jwt.Signed(f.signer).Claims(jwt.Claims{
			Subject:  "system:serviceaccount:default:" + serviceAccount,
			Expiry:   jwt.NewNumericDate(time.Now().Add(time.Hour)),
			IssuedAt: jwt.NewNumericDate(time.Now()),
		}).Claims(map[string]any{"aud": []string{audience}, "kubernetes.io": map[string]any{
			"namespace":      "default",
			"pod":            map[string]string{"name": pod, "uid": pod + "-uid"},
			"serviceaccount": map[string]string{"name": serviceAccount, "uid": serviceAccount + "-uid"},
		}}).Serialize()
		if err != nil {
			t.Fatal(err)
		}
		audiences[audience] = map[string]string{"token": token, "expirationTimestamp": time.Now().Add(time.Hour).Format(time.RFC3339)}
	}
	text, err := json.Marshal(audiences)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// podTokens counts the Vault tokens of pods.
func (f *vaultFixture) podTokens(t *testing.T) int {
	t.Helper()
	secret, err := f.root.Logical().ListWithContext(t.Context(), "auth/token/accessors")
	if err != nil {
		t.Fatal(err)
	}
	const root = 1
	return len(secret.Data["keys"].([]any)) - root
}

// eventually asks until the condition holds or the test's time is over.
func eventually(t *testing.T, what string, condition func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for !condition() {
		select {
		case <-ctx.Done():
			t.Fatalf("it never happened that %s", what)
		case <-tick.C:
		}
	}
}

// logBuffer collects what a driver logs while it runs.
type logBuffer struct {
	mutex sync.Mutex
	text  bytes.Buffer
}

func (b *logBuffer) Write(p []byte) (int, error) {
	b.mutex.Lock()
	defer b.mutex.Unlock()
	return b.text.Write(p)
}

func (b *logBuffer) String() string {
	b.mutex.Lock()
	defer b.mutex.Unlock()
	return b.text.String()
}

func (b *logBuffer) requireNone(t *testing.T, canaries ...string) {
	t.Helper()
	text := b.String()
	if text == "" {
		t.Error("nothing was logged, so the logs prove nothing")
	}
	for _, canary := range canaries {
		if canary == "" || strings.Contains(text, canary) {
			t.Errorf("the logs hold %q", canary)
		}
	}
}

func volumeFile(request *csi.NodePublishVolumeRequest, name string) string {
	return filepath.Join(request.GetTargetPath(), name)
}

func podName(i int) string { return fmt.Sprintf("pod-%d", i) }
