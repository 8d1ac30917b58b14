package main

import (
	"context"
	"encoding/json"
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
NAME is a pod, namespace/pod, namespace/pod/volume, or a volume id, and also shows
each secret, when the driver reads or renews it next, and when its lease ends.
JSON has further fields, such as the address of Vault and the end of the token.

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
	return status.Print(out, volumes, time.Now(), len(arguments) == 1)
}
