package main

import (
	"github.com/spf13/cobra"

	"github.com/vaultmount/vaultmount/test/cluster"
)

func newDownCommand(runDir *string) *cobra.Command {
	return &cobra.Command{
		Use:   "down",
		Short: "End the cluster and all it left",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return cluster.Down(cmd.Context(), *runDir)
		},
	}
}
