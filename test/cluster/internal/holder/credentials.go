package holder

import (
	"fmt"
	"os"
	"path/filepath"

	"github.com/vaultmount/vaultmount/test/cluster/internal/pki"
)

func pkiFile(name string) string { return filepath.Join(state, "pki", name) }

// writeCredentials makes the cluster's CA and all that it signs, and
// returns the holder's own client of the API server.
func (h *holder) writeCredentials() (*apiClient, error) {
	ca, err := pki.NewCA("vaultmount-test")
	if err != nil {
		return nil, err
	}
	if err := writeKeys(ca); err != nil {
		return nil, err
	}
	for name, user := range map[string]string{
		"kubelet":            "system:node:" + Node,
		"controller-manager": "system:kube-controller-manager",
		"scheduler":          "system:kube-scheduler",
	} {
		pair, err := ca.Issue(user, groupsOf(name))
		if err != nil {
			return nil, err
		}
		if err := writeKubeconfig(pkiFile(name+".kubeconfig"), ca, "https://"+APIAddress, pair); err != nil {
			return nil, err
		}
	}
	admin, err := ca.Issue("admin", []string{"system:masters"})
	if err != nil {
		return nil, err
	}
	if err := writeKubeconfig(pkiFile("admin.kubeconfig"), ca, "https://"+APIAddress, admin); err != nil {
		return nil, err
	}
	if err := writeKubeconfig(h.kubeconfig(), ca, h.APIURL, admin); err != nil {
		return nil, err
	}
	return newAPIClient(ca.CertPEM, admin)
}

// groupsOf: only the kubelet gets its rights by a group.
func groupsOf(name string) []string {
	if name == "kubelet" {
		return []string{"system:nodes"}
	}
	return nil
}

// writeKeys writes the serving certificates. The API server's is also what it
// shows to the kubelet, when it asks for logs: hence its group.
func writeKeys(ca *pki.CA) error {
	apiserver, err := ca.Issue("kube-apiserver", []string{"system:masters"},
		"127.0.0.1", "localhost", NodeIP, serviceIP,
		"kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local")
	if err != nil {
		return err
	}
	kubelet, err := ca.Issue("system:node:"+Node, []string{"system:nodes"}, NodeIP, Node)
	if err != nil {
		return err
	}
	private, public, err := pki.NewSigningKey()
	if err != nil {
		return err
	}
	for name, content := range map[string][]byte{
		"ca.crt":              ca.CertPEM,
		"apiserver.crt":       apiserver.CertPEM,
		"apiserver.key":       apiserver.KeyPEM,
		"kubelet.crt":         kubelet.CertPEM,
		"kubelet.key":         kubelet.KeyPEM,
		"service-account.key": private,
		"service-account.pub": public,
	} {
		if err := os.WriteFile(pkiFile(name), content, 0o600); err != nil {
			return fmt.Errorf("write %s: %w", name, err)
		}
	}
	return nil
}

func writeKubeconfig(path string, ca *pki.CA, server string, pair pki.Pair) error {
	if err := os.WriteFile(path, ca.Kubeconfig(server, pair), 0o600); err != nil {
		return fmt.Errorf("write kubeconfig: %w", err)
	}
	return nil
}
