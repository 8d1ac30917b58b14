package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/vaultmount/vaultmount/driver"
	"github.com/vaultmount/vaultmount/driver/monitor"
)

type volumesOptions struct {
	socket string
	output string
}

// socketVariable lets the DaemonSet say where its driver's sockets are.
const socketVariable = "VAULTMOUNT_SOCKET"

// askTimeout bounds the wait for a driver that does not answer.
const askTimeout = 10 * time.Second

func newVolumesCommand() *cobra.Command {
	var options volumesOptions
	command := &cobra.Command{
		Use:   "volumes [NAME]",
		Short: "Tell what the driver of this node knows of its volumes",
		Long: `Tell what the driver of this node knows of its volumes: their state, when what is
due, and why if something cannot be refreshed. NAME is a pod, namespace/pod,
namespace/pod/volume, or a volume id, and tells all about it.

It asks the driver, so run it beside it:

  kubectl exec -n vaultmount daemonset/vaultmount -- /vaultmount volumes`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(command *cobra.Command, arguments []string) error {
			return options.run(command.Context(), command.OutOrStdout(), arguments)
		},
	}
	socket := os.Getenv(socketVariable)
	if socket == "" {
		socket = driver.StatusSocket("/var/lib/kubelet", "csi.vaultmount.dev")
	}
	command.Flags().StringVar(&options.socket, "socket", socket, "socket of the driver; by default $"+socketVariable)
	command.Flags().StringVarP(&options.output, "output", "o", "", "json, or a table if empty")
	return command
}

func (o *volumesOptions) run(ctx context.Context, out io.Writer, arguments []string) error {
	if o.output != "" && o.output != "json" {
		return fmt.Errorf("--output %q is not a format; write json, or leave it out for a table", o.output)
	}
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	volumes, err := monitor.AskVolumes(ctx, o.socket)
	if err != nil {
		return fmt.Errorf("%w; does the driver run here, and is %s (--socket) its socket?", err, o.socket)
	}
	if len(arguments) == 1 {
		if volumes, err = monitor.Find(volumes, arguments[0]); err != nil {
			return err
		}
	}
	if o.output == "json" {
		encoder := json.NewEncoder(out)
		encoder.SetIndent("", "  ")
		return encoder.Encode(volumes)
	}
	if len(arguments) == 0 {
		return monitor.PrintTable(out, volumes, time.Now())
	}
	for i, volume := range volumes {
		if i > 0 {
			fmt.Fprintln(out)
		}
		if err := monitor.PrintVolume(out, volume, time.Now()); err != nil {
			return err
		}
	}
	return nil
}
