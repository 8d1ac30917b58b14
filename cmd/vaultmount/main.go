// Command vaultmount serves Vault secrets to pods as files.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	// The image holds no certificates; these are the public authorities for a
	// Vault that uses one.
	_ "golang.org/x/crypto/x509roots/fallback"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := newCommand().ExecuteContext(ctx); err != nil {
		fmt.Fprintf(os.Stderr, "vaultmount: %v\n", err)
		os.Exit(1)
	}
}

func newCommand() *cobra.Command {
	command := &cobra.Command{
		Use:           "vaultmount",
		Short:         "HashiCorp Vault secrets as files in pods, without a sidecar",
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	command.AddCommand(newDriverCommand(), newWebhookCommand(), newTranslateCommand(), newVolumesCommand(), newRenderWorkerCommand(), newVersionCommand())
	return command
}
