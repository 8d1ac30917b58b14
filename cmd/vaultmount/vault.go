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

// vaultOptions name the Vault of the driver, and what a volume may set differently.
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
	flags.StringVar(&o.caFile, "vault-ca-file", "", "PEM file of the CA certificates that sign Vault's certificate; read again for each new volume; empty means the public CAs")
	flags.StringVar(&o.clusterCA, "cluster-ca-directory", "", "directory with the cluster's CA certificates, ca.crt and, on OpenShift, service-ca.crt, for volumes whose ca-cert names them")
	flags.StringArrayVar(&o.addresses, "allow-address", nil, "URL that volumes may use as address, like https://vault.example.com:8200 or https://*.example.com:8200; repeatable; the driver sends the pod's token there")
	flags.StringArrayVar(&o.proxies, "allow-proxy", nil, "URL that volumes may use as proxy-address; repeatable")
	flags.BoolVar(&o.forbidSkipVerify, "forbid-tls-skip-verify", false, "refuse volumes that skip the verification of certificates")
	flags.BoolVar(&o.forbidTokenFile, "forbid-token-file", false, "refuse volumes that write their Vault token into a file")
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
	// Report a wrong path at the start, not at the first pod.
	_, err = o.readCA()
	return config, err
}

// readClusterCA reads the file each time, because Kubernetes replaces it when the CA is
// rotated. Not every cluster has every file.
func (o *vaultOptions) readClusterCA(name string) (string, error) {
	if o.clusterCA == "" {
		return "", nil
	}
	pem, err := os.ReadFile(filepath.Join(o.clusterCA, name))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("read the files of --cluster-ca-directory: %w", err)
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

// warn logs addresses to which tokens travel unencrypted.
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
