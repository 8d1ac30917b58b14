package main

import (
	"errors"
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"github.com/vaultmount/vaultmount/test/cluster"
	"github.com/vaultmount/vaultmount/test/parts"
	"github.com/vaultmount/vaultmount/test/usermode"
)

func newUserModeCommand() *cobra.Command {
	var mebibytes int64
	command := &cobra.Command{
		Use:   "usermode -- COMMAND [ARGUMENT...]",
		Short: "Run a command on User Mode Linux, whose control groups are of version 2",
		Args:  cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			kernel, err := parts.UserModeLinux(cmd.Context(), cmd.ErrOrStderr())
			if err != nil {
				return err
			}
			dir, err := os.Getwd()
			if err != nil {
				return fmt.Errorf("run in user mode: %w", err)
			}
			err = usermode.Run(cmd.Context(), kernel, usermode.Command{
				Args: args, Dir: dir, Env: os.Environ(), Memory: mebibytes << 20, Output: cmd.OutOrStdout(),
			})
			var exit *usermode.ExitError
			if errors.As(err, &exit) {
				return &cluster.ExitError{Name: args[0], Code: exit.Code}
			}
			return err
		},
	}
	command.Flags().Int64Var(&mebibytes, "memory", 3072, "memory of that kernel, in MiB")
	return command
}
