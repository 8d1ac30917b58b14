package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"k8s.io/klog/v2/textlogger"
)

func TestDriverRefusesBadFlags(t *testing.T) {
	tests := map[string]struct {
		arguments []string
		want      string
	}{
		"no address":    {[]string{"--node-name=n"}, "--vault-address is missing; give the URL of Vault"},
		"no scheme":     {[]string{"--node-name=n", "--vault-address=vault:8200"}, `--vault-address "vault:8200" is not a URL`},
		"no node":       {[]string{"--node-name=", "--vault-address=http://vault:8200"}, "--node-name and $NODE_NAME are empty"},
		"size":          {[]string{"--node-name=n", "--vault-address=http://vault:8200", "--volume-size=big"}, `invalid argument "big" for "--volume-size" flag: it is not a quantity of bytes; write for example 1Mi`},
		"no size":       {[]string{"--node-name=n", "--vault-address=http://vault:8200", "--volume-size=0"}, "--volume-size and --max-volume-size must not be 0"},
		"negative":      {[]string{"--node-name=n", "--vault-address=http://vault:8200", "--volume-capacity=-1Mi"}, "it is not a quantity of bytes"},
		"sizes":         {[]string{"--node-name=n", "--vault-address=http://vault:8200", "--volume-size=32Mi"}, "is less than the usual one"},
		"relative root": {[]string{"--node-name=n", "--vault-address=http://vault:8200", "--kubelet-root=kubelet"}, "is not an absolute path"},
		"ca file":       {[]string{"--node-name=n", "--vault-address=https://vault:8200", "--vault-ca-file=/nowhere"}, "read --vault-ca-file: open /nowhere: no such file"},
		"allow-list":    {[]string{"--node-name=n", "--vault-address=https://vault:8200", "--allow-address=*"}, `--allow-address: "*" is not a URL of scheme, host and port`},
		"prefix":        {[]string{"--node-name=n", "--vault-address=https://vault:8200", "--annotation-prefix=vault.example.com"}, `the prefix of annotations "vault.example.com" is not a domain with a slash`},
		"host ip":       {[]string{"--node-name=n", "--vault-address=http://vault:8200", "--host-ip=node-1"}, `--host-ip "node-1" is not an IP address`},
		"template cpu":  {[]string{"--node-name=n", "--vault-address=https://vault:8200", "--template-cpu-limit=0s"}, "--template-cpu-limit 0s is not positive; write for example 2s"},
		"sharing":       {[]string{"--node-name=n", "--vault-address=https://vault:8200", "--share-logins=pods"}, `--share-logins: "pods" is no way to share logins; write none or serviceaccount`},
		"argument":      {[]string{"now"}, `unknown command "now"`},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			command := newCommand()
			command.SetArgs(append([]string{"driver"}, test.arguments...))
			err := command.ExecuteContext(t.Context())
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %v, want %s", err, test.want)
			}
		})
	}
}

func TestClearVaultEnvironment(t *testing.T) {
	t.Setenv("VAULT_ADDR", "http://elsewhere")
	t.Setenv("VAULT_TOKEN", "canary")
	t.Setenv("VAULTS", "another program's")
	if err := clearVaultEnvironment(); err != nil {
		t.Fatal(err)
	}
	for _, variable := range os.Environ() {
		if strings.HasPrefix(variable, "VAULT_") {
			t.Errorf("%s is still set", variable)
		}
	}
	if os.Getenv("VAULTS") == "" {
		t.Error("a variable of another program is gone")
	}
}

func TestWarnsOfUnencryptedVaults(t *testing.T) {
	for address, want := range map[string]bool{"http://vault:8200": true, "https://vault:8200": false, "http://127.0.0.1:8200": false, "http://localhost:8200": false} {
		var logs bytes.Buffer
		options := vaultOptions{address: address}
		options.warn(textlogger.NewLogger(textlogger.NewConfig(textlogger.Output(&logs))))
		if got := strings.Contains(logs.String(), "WARNING: tokens and secrets travel unencrypted"); got != want {
			t.Errorf("%s: warned=%t", address, got)
		}
	}
}

// A cluster has one CA certificate or two, and Kubernetes replaces the files.
func TestClusterCA(t *testing.T) {
	t.Parallel()
	directory := t.TempDir()
	if err := os.WriteFile(filepath.Join(directory, "ca.crt"), []byte("the CA"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(directory, "directory"), 0o755); err != nil {
		t.Fatal(err)
	}
	tests := map[string]struct {
		directory, name, want string
		fails                 bool
	}{
		"there":          {directory, "ca.crt", "the CA", false},
		"not there":      {directory, "service-ca.crt", "", false},
		"not readable":   {directory, "directory", "", true},
		"none are given": {"", "ca.crt", "", false},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			options := vaultOptions{clusterCA: test.directory}
			got, err := options.readClusterCA(test.name)
			if got != test.want || (err != nil) != test.fails {
				t.Errorf("got %q, %v", got, err)
			}
		})
	}
}
