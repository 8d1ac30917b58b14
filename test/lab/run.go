package main

import (
	"os"

	"github.com/spf13/cobra"

	"github.com/vaultmount/vaultmount/test/cluster"
)

func newRunCommand(runDir *string) *cobra.Command {
	return &cobra.Command{
		Use:   "run -- COMMAND [ARGUMENT...]",
		Short: "Run a command inside the cluster's namespaces",
		Args:  cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := cluster.Open(*runDir)
			if err != nil {
				return err
			}
			return c.Run(cmd.Context(), cluster.Command{
				Args: args, Dir: "/", Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr,
			})
		},
	}
}
