package conformance

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
	"github.com/hashicorp/vault/api"
	"golang.org/x/sys/unix"
	"sigs.k8s.io/yaml"

	"github.com/vaultmount/vaultmount/driver"
	"github.com/vaultmount/vaultmount/driver/tmpfs"
	"github.com/vaultmount/vaultmount/test/parts"
	"github.com/vaultmount/vaultmount/test/vaultserver"
)

const (
	driverName = "csi.vaultmount.dev"
	pod        = "conformance"
)

// program is a driver in a process of its own, and what the kubelet has made for
// the pod whose volumes it is asked for.
type program struct {
	socket       string
	targetParent string
	signer       jose.Signer
}

func startProgram(t *testing.T) *program {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.ES256, Key: key}, nil)
	if err != nil {
		t.Fatal(err)
	}
	root := newKubelet(t)
	p := &program{
		socket:       driver.DefaultEndpoint(root, driverName),
		targetParent: filepath.Join(root, "pods", pod+"-uid", "volumes", "kubernetes.io~csi", "vault-secrets"),
		signer:       signer,
	}
	// The suite makes the last directory, before each spec.
	if err := os.MkdirAll(filepath.Dir(p.targetParent), 0o750); err != nil {
		t.Fatal(err)
	}
	path, err := parts.Vaultmount(t.Context(), t.TempDir(), t.Output())
	if err != nil {
		t.Fatal(err)
	}
	run(t, exec.Command(path, "driver", "--vault-address="+startVault(t, &key.PublicKey), "--kubelet-root="+root, "--verbosity=10"))
	return p
}

// newKubelet returns a kubelet's root directory. Its name is short, since paths of
// sockets hold 107 bytes.
func newKubelet(t *testing.T) string {
	t.Helper()
	root, err := os.MkdirTemp("", "node")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := tmpfs.Remove(driver.StateDirectory(root, driverName)); err != nil {
			t.Errorf("clean up: %v", err)
		}
		if err := os.RemoveAll(root); err != nil {
			t.Error(err)
		}
	})
	if err := os.Mkdir(filepath.Join(root, "plugins_registry"), 0o750); err != nil {
		t.Fatal(err)
	}
	return root
}

func run(t *testing.T, command *exec.Cmd) {
	t.Helper()
	command.Env = append(os.Environ(), "NODE_NAME=node-1")
	command.Stderr = t.Output()
	command.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: unix.SIGKILL}
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := command.Process.Signal(syscall.SIGTERM); err != nil {
			t.Error(err)
		}
		if err := command.Wait(); err != nil {
			t.Errorf("after SIGTERM the program ends with %v", err)
		}
	})
}

// startVault returns the address of a Vault with one secret for the pod's service
// account, whose tokens it checks with a key.
func startVault(t *testing.T, key *ecdsa.PublicKey) string {
	t.Helper()
	server := vaultserver.ForTest(t, nil)
	client, err := server.Client()
	if err != nil {
		t.Fatal(err)
	}
	public, err := x509.MarshalPKIXPublicKey(key)
	if err != nil {
		t.Fatal(err)
	}
	write(t, client, "sys/mounts/internal", map[string]any{"type": "kv", "options": map[string]any{"version": "2"}})
	write(t, client, "internal/data/app", map[string]any{"data": map[string]any{"key": "value"}})
	write(t, client, "sys/policies/acl/app", map[string]any{"policy": `path "internal/data/app" { capabilities = ["read"] }`})
	write(t, client, "sys/auth/jwt", map[string]any{"type": "jwt"})
	write(t, client, "auth/jwt/config", map[string]any{
		"jwt_validation_pubkeys": string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: public})),
	})
	write(t, client, "auth/jwt/role/app", map[string]any{
		"role_type": "jwt", "user_claim": "sub", "bound_audiences": []string{"vault"},
		"bound_subject": "system:serviceaccount:default:app", "token_policies": []string{"app"}, "token_ttl": "1h",
	})
	return server.Address
}

func write(t *testing.T, client *api.Client, path string, data map[string]any) {
	t.Helper()
	if _, err := client.Logical().WriteWithContext(t.Context(), path, data); err != nil {
		t.Fatal(err)
	}
}

// volumeContext is what the kubelet sends for a volume in a pod.
func (p *program) volumeContext() map[string]string {
	return map[string]string{
		"csi.storage.k8s.io/ephemeral":           "true",
		"csi.storage.k8s.io/pod.name":            pod,
		"csi.storage.k8s.io/pod.namespace":       "default",
		"csi.storage.k8s.io/pod.uid":             pod + "-uid",
		"csi.storage.k8s.io/serviceAccount.name": "app",
		"role":                                   "app",
		"auth-type":                              "jwt",
		"template/app.txt":                       `{{ with secret "internal/data/app" }}{{ .Data.data.key }}{{ end }}`,
	}
}

// secretsFile holds what the kubelet sends under serviceAccount.tokens, for the
// suite.
func (p *program) secretsFile(t *testing.T) string {
	t.Helper()
	expiry := time.Now().Add(time.Hour)
	token, err := jwt.Signed(p.signer).Claims(jwt.Claims{
		Subject: "system:serviceaccount:default:app", Audience: jwt.Audience{"vault"},
		Expiry: jwt.NewNumericDate(expiry), IssuedAt: jwt.NewNumericDate(time.Now()),
	}).Claims(map[string]any{"kubernetes.io": map[string]any{
		"namespace":      "default",
		"pod":            map[string]string{"name": pod, "uid": pod + "-uid"},
		"serviceaccount": map[string]string{"name": "app", "uid": "app-uid"},
	}}).Serialize()
	if err != nil {
		t.Fatal(err)
	}
	tokens, err := json.Marshal(map[string]any{"vault": map[string]any{"token": token, "expirationTimestamp": expiry}})
	if err != nil {
		t.Fatal(err)
	}
	text, err := yaml.Marshal(map[string]any{"NodePublishVolumeSecret": map[string]string{"csi.storage.k8s.io/serviceAccount.tokens": string(tokens)}})
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "secrets.yaml")
	if err := os.WriteFile(path, text, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}
