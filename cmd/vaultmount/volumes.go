package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/vaultmount/vaultmount/driver/kubeletplugin"
	"github.com/vaultmount/vaultmount/driver/status"
)

// socketVariable lets the DaemonSet name its driver's socket.
const socketVariable = "VAULTMOUNT_SOCKET"

// volumesTimeout bounds the wait for a driver that does not answer.
const volumesTimeout = 10 * time.Second

type volumesOptions struct {
	driver status.Client
	output string
}

func newVolumesCommand() *cobra.Command {
	var options volumesOptions
	command := &cobra.Command{
		Use:   "volumes [NAME]",
		Short: "List this node's volumes",
		Long: `List the volumes of this node: their state, the next refresh, and the last error.
NAME is a pod, namespace/pod, namespace/pod/volume, or a volume id, and shows
everything about it.

The command asks the driver, so run it in the driver's pod on the node:

  kubectl exec -n vaultmount POD -- /vaultmount volumes`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(command *cobra.Command, arguments []string) error {
			return options.run(command.Context(), command.OutOrStdout(), arguments)
		},
	}
	addSocketFlag(command.Flags(), &options.driver)
	command.Flags().StringVarP(&options.output, "output", "o", "", "json, or a table if empty")
	return command
}

func addSocketFlag(flags *pflag.FlagSet, driverClient *status.Client) {
	socket := os.Getenv(socketVariable)
	if socket == "" {
		socket = kubeletplugin.StatusSocket("/var/lib/kubelet", "csi.vaultmount.dev")
	}
	flags.StringVar(&driverClient.Socket, "socket", socket, "socket of the driver; defaults to $"+socketVariable)
}

func (o *volumesOptions) run(ctx context.Context, out io.Writer, arguments []string) error {
	if o.output != "" && o.output != "json" {
		return usageError{fmt.Errorf("--output %q is not a format; write json, or leave it out for a table", o.output)}
	}
	ctx, cancel := context.WithTimeout(ctx, volumesTimeout)
	defer cancel()
	volumes, err := o.driver.Volumes(ctx)
	if err != nil {
		return usageError{err}
	}
	if len(arguments) == 1 {
		if volumes, err = status.Find(volumes, arguments[0]); err != nil {
			return err
		}
	}
	if o.output == "json" {
		encoder := json.NewEncoder(out)
		encoder.SetIndent("", "  ")
		return encoder.Encode(volumes)
	}
	if len(arguments) == 0 {
		return status.PrintTable(out, volumes, time.Now())
	}
	for i, volume := range volumes {
		if i > 0 {
			fmt.Fprintln(out)
		}
		if err := status.PrintVolume(out, volume, time.Now()); err != nil {
			return err
		}
	}
	return nil
}

// errNotRefreshed follows the lines that name the volumes.
var errNotRefreshed = errors.New("not all volumes are refreshed")

type refreshOptions struct {
	driver  status.Client
	all     bool
	timeout time.Duration
}

func newRefreshCommand() *cobra.Command {
	var options refreshOptions
	command := &cobra.Command{
		Use:   "refresh NAMESPACE/POD | --all",
		Short: "Refresh volumes of this node now",
		Long: `Refresh volumes of this node now, instead of at their next interval: read the
secrets from Vault, and write the files that changed. It prints one line a volume,
and the exit status is 1 if one failed or none matched. NAMESPACE/POD may also be
namespace/pod/volume or a volume id.

The command asks the driver, so run it in the driver's pod on the node:

  kubectl exec -n vaultmount POD -- /vaultmount refresh shop/orders-7f9c

A volume has one refresh at a time, and a node at most eight. --all takes turns
between namespaces.`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(command *cobra.Command, arguments []string) error {
			return options.run(command.Context(), command.OutOrStdout(), arguments)
		},
	}
	addSocketFlag(command.Flags(), &options.driver)
	command.Flags().BoolVar(&options.all, "all", false, "refresh all volumes of the node")
	command.Flags().DurationVar(&options.timeout, "timeout", 2*time.Minute, "how long to wait for the outcome")
	return command
}

func (o *refreshOptions) run(ctx context.Context, out io.Writer, arguments []string) error {
	if o.all == (len(arguments) == 1) {
		return usageError{errors.New("name one pod as NAMESPACE/POD, or write --all")}
	}
	name := ""
	if !o.all {
		if name = arguments[0]; name == "" {
			return usageError{errors.New("the name is empty; write NAMESPACE/POD, or --all")}
		}
	}
	ctx, cancel := context.WithTimeout(ctx, o.timeout)
	defer cancel()
	failed := false
	err := o.driver.Refresh(ctx, name, func(r status.Result) {
		outcome := "refreshed"
		if r.Error != "" {
			outcome, failed = "error: "+r.Error, true
		}
		fmt.Fprintf(out, "%s/%s %s %s\n", r.Namespace, r.Pod, r.Volume, outcome)
	})
	switch {
	case errors.Is(err, status.ErrNoDriver):
		return usageError{err}
	case err == nil && failed:
		return errNotRefreshed
	}
	return err
}
