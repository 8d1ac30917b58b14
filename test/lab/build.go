package main

import (
	"github.com/spf13/cobra"

	"github.com/vaultmount/vaultmount/test/parts"
)

func newBuildCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "build",
		Short: "Build the parts of the cluster that the cache does not hold",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			_, err := parts.Build(cmd.Context(), cmd.ErrOrStderr())
			return err
		},
	}
}
