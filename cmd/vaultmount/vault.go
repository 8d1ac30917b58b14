package main

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/pflag"
	"k8s.io/klog/v2"

	"github.com/vaultmount/vaultmount/driver"
)

// vaultOptions say which Vault there is, and how far a volume may stray from it.
type vaultOptions struct {
	address          string
	caFile           string
	clusterCA        string
	addresses        []string
	proxies          []string
	forbidSkipVerify bool
	forbidTokenFile  bool
}

func (o *vaultOptions) addFlags(flags *pflag.FlagSet) {
	flags.StringVar(&o.address, "vault-address", "", "URL of Vault, for example https://vault.vault.svc:8200 (required)")
	flags.StringVar(&o.caFile, "vault-ca-file", "", "file of the authorities that sign Vault's certificate, in PEM form; read anew for each new volume; by default the public ones")
	flags.StringVar(&o.clusterCA, "cluster-ca-directory", "", "directory with the authorities of the cluster itself, ca.crt and, on OpenShift, service-ca.crt, for volumes whose ca-cert names them")
	flags.StringArrayVar(&o.addresses, "allow-address", nil, "URL that volumes may name as address, like https://vault.example.com:8200 or https://*.example.com:8200; repeatable; the pod's token is sent there")
	flags.StringArrayVar(&o.proxies, "allow-proxy", nil, "URL that volumes may name as proxy-address; repeatable")
	flags.BoolVar(&o.forbidSkipVerify, "forbid-tls-skip-verify", false, "refuse volumes that would accept any certificate")
	flags.BoolVar(&o.forbidTokenFile, "forbid-token-file", false, "refuse volumes that would hand their Vault token to the pod")
}

func (o *vaultOptions) config() (driver.VaultConfig, error) {
	config := driver.VaultConfig{ReadCA: o.readCA, ReadClusterCA: o.readClusterCA, ForbidSkipVerify: o.forbidSkipVerify, ForbidTokenFile: o.forbidTokenFile}
	if o.address == "" {
		return config, errors.New("--vault-address is missing; give the URL of Vault, for example https://vault.vault.svc:8200")
	}
	address, err := url.Parse(o.address)
	if err != nil || address.Host == "" || address.Scheme != "https" && address.Scheme != "http" || strings.Trim(address.Path, "/") != "" {
		return config, fmt.Errorf("--vault-address %q is not a URL; write it like https://vault.vault.svc:8200", o.address)
	}
	config.Address = address.Scheme + "://" + strings.ToLower(address.Host)
	if config.Addresses, err = driver.ParseAllowList(o.addresses); err != nil {
		return config, fmt.Errorf("--allow-address: %w", err)
	}
	if config.Proxies, err = driver.ParseAllowList(o.proxies); err != nil {
		return config, fmt.Errorf("--allow-proxy: %w", err)
	}
	// A wrong path shows at the start, not at the first pod.
	_, err = o.readCA()
	return config, err
}

// readClusterCA reads anew each time: Kubernetes replaces the files when an
// authority is rotated. Which of them there are differs between clusters.
func (o *vaultOptions) readClusterCA(name string) (string, error) {
	if o.clusterCA == "" {
		return "", nil
	}
	pem, err := os.ReadFile(filepath.Join(o.clusterCA, name))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("read --cluster-ca-directory: %w", err)
	}
	return string(pem), nil
}

func (o *vaultOptions) readCA() (string, error) {
	if o.caFile == "" {
		return "", nil
	}
	pem, err := os.ReadFile(o.caFile)
	if err != nil {
		return "", fmt.Errorf("read --vault-ca-file: %w", err)
	}
	return string(pem), nil
}

// warn tells of tokens that would cross a network in the clear.
func (o *vaultOptions) warn(logger klog.Logger) {
	for _, text := range append([]string{o.address}, o.addresses...) {
		address, err := url.Parse(text)
		if err == nil && address.Scheme == "http" && !isLoopback(address.Hostname()) {
			logger.Info("WARNING: tokens and secrets travel unencrypted; use https", "address", text)
		}
	}
}

func isLoopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}
