package main

import (
	"github.com/spf13/cobra"

	"github.com/vaultmount/vaultmount/test/cluster"
)

func newLoadCommand(runDir *string) *cobra.Command {
	return &cobra.Command{
		Use:   "load IMAGE.tar",
		Short: "Load an image archive into the cluster",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := cluster.Open(*runDir)
			if err != nil {
				return err
			}
			return c.ImportImage(cmd.Context(), args[0])
		},
	}
}
