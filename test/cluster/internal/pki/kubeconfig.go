package pki

import (
	"encoding/base64"
	"fmt"
)

// Kubeconfig is a kubeconfig for the API server at a URL and the user of pair.
func (a *CA) Kubeconfig(server string, pair Pair) []byte {
	encoded := base64.StdEncoding.EncodeToString
	return fmt.Appendf(nil, `apiVersion: v1
kind: Config
current-context: vaultmount
contexts:
- name: vaultmount
  context: {cluster: vaultmount, user: vaultmount}
clusters:
- name: vaultmount
  cluster:
    server: %s
    certificate-authority-data: %s
users:
- name: vaultmount
  user:
    client-certificate-data: %s
    client-key-data: %s
`, server, encoded(a.CertPEM), encoded(pair.CertPEM), encoded(pair.KeyPEM))
}
