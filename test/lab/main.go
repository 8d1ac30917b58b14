// Command lab keeps a one-node Kubernetes with a Vault server at hand for trying
// vaultmount out. It is a front door to the packages parts, image and cluster
// and holds no logic of its own.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/vaultmount/vaultmount/test/cluster"
)

func main() {
	cluster.Hold() // does not return in the process that holds a cluster
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := newCommand().ExecuteContext(ctx)
	stop()
	if err == nil {
		return
	}
	var exit *cluster.ExitError
	if errors.As(err, &exit) {
		os.Exit(exit.Code) // the command run in the cluster has told why
	}
	fmt.Fprintln(os.Stderr, "lab:", err)
	os.Exit(1)
}

func newCommand() *cobra.Command {
	var runDir string
	lab := &cobra.Command{
		Use:           "lab",
		Short:         "A one-node Kubernetes for trying vaultmount, gone without a trace when it ends",
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	lab.PersistentFlags().StringVar(&runDir, "run-dir", "", "directory of the cluster's kubeconfig and logs (default: run in the cache)")
	lab.AddCommand(
		newBuildCommand(),
		newDemoCommand(&runDir),
		newUpCommand(&runDir),
		newDownCommand(&runDir),
		newImageCommand(),
		newKubectlCommand(&runDir),
		newLoadCommand(&runDir),
		newRunCommand(&runDir),
		newUserModeCommand(),
	)
	return lab
}
