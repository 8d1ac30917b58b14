// Command vaultmount serves Vault secrets to pods as files.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	// The image holds no certificates; these are the public CA certificates, for a Vault
	// whose certificate one of them signs.
	_ "golang.org/x/crypto/x509roots/fallback"
)

// The exit status of a command that fails.
const (
	exitFailed = 1 // the answer is no: a refused manifest, a volume that is not refreshed
	exitUsage  = 2 // wrong flags or arguments, or a file or a driver that cannot be read
)

// usageError is an error with the exit status exitUsage.
type usageError struct{ error }

// Unwrap returns the cause.
func (e usageError) Unwrap() error { return e.error }

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := newCommand().ExecuteContext(ctx); err != nil {
		fmt.Fprintf(os.Stderr, "vaultmount: %v\n", err)
		os.Exit(exitStatus(err))
	}
}

func exitStatus(err error) int {
	if _, ok := errors.AsType[usageError](err); ok {
		return exitUsage
	}
	return exitFailed
}

func newCommand() *cobra.Command {
	command := &cobra.Command{
		Use:           "vaultmount",
		Short:         "HashiCorp Vault secrets as files in pods, without a sidecar",
		Version:       version,
		Args:          cobra.NoArgs,
		RunE:          func(command *cobra.Command, _ []string) error { return command.Help() },
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	command.SetVersionTemplate("vaultmount {{ .Version }}\n")
	command.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return usageError{err} })
	command.AddCommand(newDriverCommand(), newWebhookCommand(), newTranslateCommand(), newVolumesCommand(), newRefreshCommand(), newSandboxWorkerCommand(), newVersionCommand())
	for _, each := range append(command.Commands(), command) {
		validate := each.Args
		each.Args = func(command *cobra.Command, arguments []string) error {
			if err := validate(command, arguments); err != nil {
				return usageError{err}
			}
			return nil
		}
	}
	return command
}
