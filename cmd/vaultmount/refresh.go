package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/vaultmount/vaultmount/driver/status"
)

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
	case errors.Is(ctx.Err(), context.DeadlineExceeded):
		return fmt.Errorf("%w within %s; raise --timeout", errNotRefreshed, o.timeout)
	case errors.Is(err, status.ErrNoDriver):
		return usageError{err}
	case err == nil && failed:
		return errNotRefreshed
	}
	return err
}
