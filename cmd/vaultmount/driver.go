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
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/klog/v2"

	"github.com/vaultmount/vaultmount/driver"
	"github.com/vaultmount/vaultmount/driver/injector"
	"github.com/vaultmount/vaultmount/provider"
	"github.com/vaultmount/vaultmount/provider/sandbox"
)

// driverOptions are flags: those of the driver's configuration, and those of its parts.
type driverOptions struct {
	settings     driver.Config
	vault        vaultOptions
	endpoint     string
	shareLogins  string
	templateCPU  time.Duration
	listen       string
	events       bool
	startupTaint string
	log          logOptions

	revoke, setSecurityContext bool
}

func newDriverCommand() *cobra.Command {
	var options driverOptions
	command := &cobra.Command{
		Use:   "driver",
		Short: "Serve volumes to the kubelet of one node (what the DaemonSet runs)",
		Long: `Serve volumes to the kubelet of one node. Needs root (CAP_SYS_ADMIN), Linux 5.12
or newer, and the kubelet's directory at the same path as on the host, with
mounts propagated in both directions.

The driver registers itself with the kubelet. It has no credential of its own: it
logs in to Vault with the token of the volume's pod. It uses the Kubernetes API
only for --events and --startup-taint.

A driver that starts beside another is its standby: it is ready, and becomes
active when the other one stops.`,
		Args: cobra.NoArgs,
		RunE: func(command *cobra.Command, _ []string) error {
			return options.run(command.Context(), command.ErrOrStderr())
		},
	}
	options.addFlags(command.Flags())
	return command
}

func (o *driverOptions) addFlags(flags *pflag.FlagSet) {
	flags.SortFlags = false
	o.vault.addFlags(flags)
	flags.StringVar(&o.settings.NodeName, "node-name", os.Getenv("NODE_NAME"), "name of the Node object; defaults to $NODE_NAME")
	flags.StringVar(&o.settings.HostIP, "host-ip", os.Getenv("HOST_IP"), "the node's IP address, for templates that use it; defaults to $HOST_IP")
	flags.StringVar(&o.settings.KubeletRoot, "kubelet-root", "/var/lib/kubelet", "the kubelet's --root-dir")
	flags.StringVar(&o.settings.Name, "driver-name", "csi.vaultmount.dev", "name of the CSIDriver object")
	flags.StringVar(&o.endpoint, "csi-endpoint", "", "path of the CSI socket; empty means KUBELET-ROOT/plugins/DRIVER-NAME/csi.sock")
	addBytesFlag(flags, &o.settings.VolumeSize, "volume-size", "1Mi", "size of a volume without the attribute size; a volume holds its files twice during a rotation")
	addBytesFlag(flags, &o.settings.MaxVolumeSize, "max-volume-size", "16Mi", "largest size of a volume; counts against the driver's memory limit")
	addBytesFlag(flags, &o.settings.VolumeCapacity, "volume-capacity", "128Mi", "capacity of the node for volumes: their sizes, 1 KiB for each inode, and what the driver keeps of Vault's responses; counts against the driver's memory limit; 0 means no limit")
	flags.IntVar(&o.settings.NamespaceShare, "namespace-share", driver.DefaultNamespaceShare, "part of --volume-capacity that the volumes of one namespace may take, in percent")
	flags.StringVar(&o.settings.Annotations.Prefix, "annotation-prefix", injector.DefaultPrefix, "prefix of the injector's annotations in volumes that the policy has filled")
	flags.BoolVar(&o.settings.Annotations.AllowUnknownPerms, "allow-unknown-perms", false, "accept agent-inject-perms-X without a file X; by default such a volume is rejected, because a misspelt X leaves another file readable by all")
	flags.BoolVar(&o.settings.Annotations.AllowQuit, "allow-quit", false, "accept agent-enable-quit; by default such a volume is rejected, because nothing answers the pod's call")
	addSecurityContextFlag(flags, &o.setSecurityContext)
	flags.DurationVar(&o.settings.StaticInterval, "static-secret-render-interval", provider.DefaultInterval, "time between two reads of a secret without a lease, for volumes without the attribute; at least 10s")
	flags.BoolVar(&o.revoke, "revoke-on-unpublish", true, "revoke the Vault token of a deleted pod, and its leases; a volume may override it")
	flags.StringVar(&o.shareLogins, "share-logins", string(provider.ShareNothing), "pods of the node that share a Vault token and the reads of KV secrets: none, or those of a serviceaccount with the same login; Vault's audit log shows them as one then")
	flags.DurationVar(&o.templateCPU, "template-cpu-limit", sandbox.DefaultCPU, "CPU time that rendering the files of one volume may take")
	flags.StringVar(&o.listen, "metrics-bind-address", ":8080", "address to serve /healthz, /readyz and /metrics at; empty disables")
	flags.BoolVar(&o.events, "events", false, "write an Event about a pod when the refresh of its files fails, and when it succeeds again; needs permission to create and patch events")
	flags.StringVar(&o.startupTaint, "startup-taint", "", "key of a taint to remove from the node when the kubelet has registered the driver, for example csi.vaultmount.dev/agent-not-ready; empty disables; needs permission to get and patch nodes")
	o.log.addFlags(flags, "0 errors and start, 2 each volume, 5 each call")
}

func (o *driverOptions) config() (config driver.Config, err error) {
	config = o.settings
	config.Version, config.KeepTokens = version, !o.revoke
	config.Annotations.NoSecurityContext = !o.setSecurityContext
	switch {
	case config.NodeName == "":
		return config, errors.New("--node-name and $NODE_NAME are empty; set one of them")
	case config.HostIP != "" && net.ParseIP(config.HostIP) == nil:
		return config, fmt.Errorf("--host-ip %q is not an IP address; omit it if no template uses it", config.HostIP)
	case o.templateCPU <= 0:
		return config, fmt.Errorf("--template-cpu-limit %s is not positive; write for example %s", o.templateCPU, sandbox.DefaultCPU)
	case config.VolumeSize == 0 || config.MaxVolumeSize == 0:
		return config, errors.New("--volume-size and --max-volume-size must not be 0; write for example 1Mi")
	case config.NamespaceShare < 1 || config.NamespaceShare > 100:
		return config, fmt.Errorf("--namespace-share %d is not a percentage from 1 to 100", config.NamespaceShare)
	}
	config.Vault, err = o.vault.config()
	return config, err
}

// bytesFlag is a flag with a quantity of bytes, like 1Mi.
type bytesFlag struct {
	text  string
	bytes *int64
}

func addBytesFlag(flags *pflag.FlagSet, bytes *int64, name, value, usage string) {
	initial := resource.MustParse(value)
	*bytes = initial.Value()
	flags.Var(&bytesFlag{value, bytes}, name, usage)
}

// Set implements pflag.Value.
func (f *bytesFlag) Set(text string) error {
	quantity, err := resource.ParseQuantity(text)
	if err != nil || quantity.Sign() < 0 {
		return errors.New("it is not a quantity of bytes; write for example 1Mi")
	}
	f.text, *f.bytes = text, quantity.Value()
	return nil
}

// String implements pflag.Value.
func (f *bytesFlag) String() string { return f.text }

// Type implements pflag.Value.
func (f *bytesFlag) Type() string { return "bytes" }

// clearVaultEnvironment keeps VAULT_ADDR, VAULT_TOKEN and the like, which the Vault client
// reads itself, from overriding a flag or an attribute.
func clearVaultEnvironment() error {
	for _, variable := range os.Environ() {
		name, _, _ := strings.Cut(variable, "=")
		if !strings.HasPrefix(name, "VAULT_") {
			continue
		}
		if err := os.Unsetenv(name); err != nil {
			return fmt.Errorf("clear $%s: %w", name, err)
		}
	}
	return nil
}

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
