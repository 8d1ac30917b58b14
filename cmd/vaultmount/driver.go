package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/klog/v2"
	"k8s.io/klog/v2/textlogger"
	"k8s.io/utils/clock"

	"github.com/vaultmount/vaultmount/driver"
	"github.com/vaultmount/vaultmount/driver/annotation"
	"github.com/vaultmount/vaultmount/driver/state"
	"github.com/vaultmount/vaultmount/driver/tmpfs"
	"github.com/vaultmount/vaultmount/provider"
	"github.com/vaultmount/vaultmount/provider/render/worker"
	"github.com/vaultmount/vaultmount/provider/vault"
)

// stopTimeout is what revocations get when the driver ends; those that are left
// are the next process's.
const stopTimeout = 10 * time.Second

type driverOptions struct {
	endpoint      string
	nodeName      string
	hostIP        string
	kubeletRoot   string
	driverName    string
	vault         vaultOptions
	volumeSize    string
	maxVolumeSize string
	annotations   annotation.Translator
	interval      time.Duration
	revoke        bool
	templateCPU   time.Duration
	verbosity     int
}

func newDriverCommand() *cobra.Command {
	var options driverOptions
	command := &cobra.Command{
		Use:   "driver",
		Short: "Serve volumes to the kubelet of one node (what the DaemonSet runs)",
		Long: `Serve volumes to the kubelet of one node. Needs root (CAP_SYS_ADMIN), Linux 5.12
or newer, and the kubelet's directory at the same path as on the host, with
mounts propagated in both directions.

The driver registers itself with the kubelet. It uses no Kubernetes API and has
no credential of its own: towards Vault it is the pod whose volume it makes.`,
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
	flags.StringVar(&o.annotations.Prefix, "annotation-prefix", annotation.DefaultPrefix, "prefix of the injector's annotations in volumes that hold them verbatim")
	flags.BoolVar(&o.annotations.AllowUnknownPerms, "allow-unknown-perms", false, "take agent-inject-perms-X of no file X, which is refused otherwise: another file may be readable by all")
	flags.BoolVar(&o.annotations.AllowQuit, "allow-quit", false, "take agent-enable-quit, which is refused otherwise: nothing answers the pod's call to it")
	flags.DurationVar(&o.interval, "static-secret-render-interval", provider.DefaultInterval, "time between two reads of a secret without a lease, of volumes that do not ask for another; at least 10s")
	flags.BoolVar(&o.revoke, "revoke-on-unpublish", true, "revoke the Vault token of a pod that is gone, and its leases, unless a volume says otherwise")
	flags.DurationVar(&o.templateCPU, "template-cpu", worker.DefaultCPU, "processor time that rendering one file may take")
	flags.IntVarP(&o.verbosity, "verbosity", "v", 2, "log verbosity: 0 errors and start, 2 each volume, 5 each call")
}

func (o *driverOptions) run(ctx context.Context, logs io.Writer) (err error) {
	if err := clearVaultEnvironment(); err != nil {
		return err
	}
	// consul-template logs through the global logger, with words of its own choice.
	log.SetOutput(io.Discard)
	logger := textlogger.NewLogger(textlogger.NewConfig(textlogger.Output(logs), textlogger.Verbosity(o.verbosity)))
	config, err := o.config()
	if err != nil {
		return err
	}
	if err := config.Validate(); err != nil {
		return fmt.Errorf("configure the driver: %w", err)
	}
	mounter, err := tmpfs.NewMounter()
	if err != nil {
		return err
	}
	o.vault.warn(logger)
	// Where templates cannot be confined, none is run.
	renderers := worker.New(logger, worker.Config{Limits: worker.Limits{CPU: o.templateCPU}})
	if err := renderers.Start(ctx); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, stop(renderers.Stop)) }()
	store, err := state.Open(mounter, driver.StateDirectory(config.KubeletRoot, config.Name))
	if err != nil {
		return err
	}
	mounts, err := driver.NewMounts(logger, mounter, store)
	if err != nil {
		return err
	}
	secrets := provider.New(provider.Config{
		Logger: logger, Servers: vault.NewServers(logger, time.Now), Renderer: renderers,
		Files: mounts, Store: store, Clock: clock.RealClock{},
	})
	defer func() {
		err = errors.Join(err, stop(func(ctx context.Context) error { secrets.Stop(ctx); return nil }))
	}()
	return o.serve(klog.NewContext(ctx, logger), config, mounts, secrets)
}

func (o *driverOptions) serve(ctx context.Context, config driver.Config, mounts *driver.Mounts, secrets *provider.Provider) error {
	plugin, err := driver.New(config, mounts, secrets)
	if err != nil {
		return err
	}
	if err := secrets.Resume(mounts.IsMounted); err != nil {
		return err
	}
	if o.endpoint == "" {
		o.endpoint = driver.DefaultEndpoint(config.KubeletRoot, config.Name)
	}
	return plugin.Run(ctx, o.endpoint)
}

func stop(what func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(context.Background(), stopTimeout)
	defer cancel()
	return what(ctx)
}

func (o *driverOptions) config() (driver.Config, error) {
	config := driver.Config{
		Name: o.driverName, Version: version, NodeName: o.nodeName, HostIP: o.hostIP, KubeletRoot: o.kubeletRoot,
		StaticInterval: o.interval, KeepTokens: !o.revoke, Annotations: o.annotations,
	}
	if o.nodeName == "" {
		return config, errors.New("--node-name is missing, and so is $NODE_NAME")
	}
	if o.hostIP != "" && net.ParseIP(o.hostIP) == nil {
		return config, fmt.Errorf("--host-ip %q is not an IP address; leave it out if no template asks for it", o.hostIP)
	}
	if o.templateCPU <= 0 {
		return config, fmt.Errorf("--template-cpu %s leaves no time; write for example %s", o.templateCPU, worker.DefaultCPU)
	}
	var err error
	if config.VolumeSize, err = parseBytes("--volume-size", o.volumeSize); err != nil {
		return config, err
	}
	if config.MaxVolumeSize, err = parseBytes("--max-volume-size", o.maxVolumeSize); err != nil {
		return config, err
	}
	config.Vault, err = o.vault.config()
	return config, err
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
