package main

import (
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/vaultmount/vaultmount/driver"
	"github.com/vaultmount/vaultmount/driver/injector"
	"github.com/vaultmount/vaultmount/provider"
	worker "github.com/vaultmount/vaultmount/provider/sandbox"
)

type driverOptions struct {
	endpoint       string
	nodeName       string
	hostIP         string
	kubeletRoot    string
	driverName     string
	vault          vaultOptions
	volumeSize     string
	maxVolumeSize  string
	volumeCapacity string
	share          int
	annotations    injector.Translator
	interval       time.Duration
	revoke         bool
	shareLogins    string
	templateCPU    time.Duration
	listen         string
	events         bool
	startupTaint   string
	verbosity      int

	setSecurityContext bool
}

func newDriverCommand() *cobra.Command {
	var options driverOptions
	command := &cobra.Command{
		Use:   "driver",
		Short: "Serve volumes to the kubelet of one node (what the DaemonSet runs)",
		Long: `Serve volumes to the kubelet of one node. Needs root (CAP_SYS_ADMIN), Linux 5.12
or newer, and the kubelet's directory at the same path as on the host, with
mounts propagated in both directions.

The driver registers itself with the kubelet. It has no credential of its own:
towards Vault it is the pod whose volume it makes. It uses no Kubernetes API,
unless it is told to tell pods of trouble (--events) or to remove a taint.

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
	flags.StringVar(&o.nodeName, "node-name", os.Getenv("NODE_NAME"), "name of the Node object; by default $NODE_NAME")
	flags.StringVar(&o.hostIP, "host-ip", os.Getenv("HOST_IP"), "the node's address, for templates that ask for it; by default $HOST_IP")
	flags.StringVar(&o.kubeletRoot, "kubelet-root", "/var/lib/kubelet", "the kubelet's --root-dir")
	flags.StringVar(&o.driverName, "driver-name", "csi.vaultmount.dev", "name of the CSIDriver object")
	flags.StringVar(&o.endpoint, "csi-endpoint", "", "path of the CSI socket; by default KUBELET-ROOT/plugins/DRIVER-NAME/csi.sock")
	flags.StringVar(&o.volumeSize, "volume-size", "1Mi", "size of a volume that does not ask for one; holds the files twice")
	flags.StringVar(&o.maxVolumeSize, "max-volume-size", "16Mi", "largest size that a volume may ask for; counts against the driver's memory limit")
	flags.StringVar(&o.volumeCapacity, "volume-capacity", "128Mi", "capacity of the node for volumes: their sizes, 1 KiB for each inode, and what the driver keeps of Vault's responses; counts against the driver's memory limit; 0 for no limit")
	flags.IntVar(&o.share, "namespace-share", driver.DefaultNamespaceShare, "part of --volume-capacity that the volumes of one namespace may take, in percent")
	flags.StringVar(&o.annotations.Prefix, "annotation-prefix", injector.DefaultPrefix, "prefix of the injector's annotations in volumes that hold them verbatim")
	flags.BoolVar(&o.annotations.AllowUnknownPerms, "allow-unknown-perms", false, "take agent-inject-perms-X of no file X, which is refused otherwise: another file may be readable by all")
	flags.BoolVar(&o.annotations.AllowQuit, "allow-quit", false, "take agent-enable-quit, which is refused otherwise: nothing answers the pod's call to it")
	addSecurityContextFlag(flags, &o.setSecurityContext)
	flags.DurationVar(&o.interval, "static-secret-render-interval", provider.DefaultInterval, "time between two reads of a secret without a lease, of volumes that do not ask for another; at least 10s")
	flags.BoolVar(&o.revoke, "revoke-on-unpublish", true, "revoke the Vault token of a pod that is gone, and its leases, unless a volume says otherwise")
	flags.StringVar(&o.shareLogins, "share-logins", string(provider.ShareNothing), "which pods of the node share a Vault token and the reads of KV secrets: none, or those of a serviceaccount that log in alike; Vault's audit log does not tell them apart then")
	flags.DurationVar(&o.templateCPU, "template-cpu-limit", worker.DefaultCPU, "CPU time that rendering the files of one volume may take")
	flags.StringVar(&o.listen, "metrics-bind-address", ":8080", "address to serve /healthz, /readyz and /metrics at; empty disables")
	flags.BoolVar(&o.events, "events", false, "tell pods by Events when the refresh of their files fails, and when it succeeds again; needs a service account that may create and patch events")
	flags.StringVar(&o.startupTaint, "startup-taint", "", "key of a start-up taint to remove from the node once the kubelet knows the driver, for example csi.vaultmount.dev/agent-not-ready; needs a service account that may get and patch nodes")
	flags.IntVarP(&o.verbosity, "verbosity", "v", 2, "log verbosity: 0 errors and start, 2 each volume, 5 each call")
}

func (o *driverOptions) config() (driver.Config, error) {
	config := driver.Config{
		Name: o.driverName, Version: version, NodeName: o.nodeName, HostIP: o.hostIP, KubeletRoot: o.kubeletRoot,
		StaticInterval: o.interval, KeepTokens: !o.revoke, Annotations: o.annotations,
	}
	config.Annotations.NoSecurityContext = !o.setSecurityContext
	if o.nodeName == "" {
		return config, errors.New("--node-name is missing, and so is $NODE_NAME")
	}
	if o.hostIP != "" && net.ParseIP(o.hostIP) == nil {
		return config, fmt.Errorf("--host-ip %q is not an IP address; leave it out if no template asks for it", o.hostIP)
	}
	if o.templateCPU <= 0 {
		return config, fmt.Errorf("--template-cpu-limit %s leaves no time; write for example %s", o.templateCPU, worker.DefaultCPU)
	}
	var err error
	if config.VolumeSize, err = parseBytes("--volume-size", o.volumeSize); err != nil {
		return config, err
	}
	if config.MaxVolumeSize, err = parseBytes("--max-volume-size", o.maxVolumeSize); err != nil {
		return config, err
	}
	if config.VolumeCapacity, err = o.capacity(); err != nil {
		return config, err
	}
	if config.NamespaceShare = o.share; o.share < 1 || o.share > 100 {
		return config, fmt.Errorf("--namespace-share %d is not a percentage from 1 to 100", o.share)
	}
	config.Vault, err = o.vault.config()
	return config, err
}

func (o *driverOptions) capacity() (int64, error) {
	if o.volumeCapacity == "0" {
		return 0, nil
	}
	return parseBytes("--volume-capacity", o.volumeCapacity)
}

func parseBytes(flag, text string) (int64, error) {
	quantity, err := resource.ParseQuantity(text)
	if err != nil || quantity.Value() <= 0 {
		return 0, fmt.Errorf("%s %q is not a quantity of bytes; write for example 1Mi", flag, text)
	}
	return quantity.Value(), nil
}

// clearVaultEnvironment keeps VAULT_ADDR, VAULT_TOKEN and their kin, which the
// Vault client reads by itself, from overriding a flag or an attribute.
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
