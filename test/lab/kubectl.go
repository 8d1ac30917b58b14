package main

import (
	"fmt"
	"os"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/vaultmount/vaultmount/test/cluster"
	"github.com/vaultmount/vaultmount/test/parts"
)

func newKubectlCommand(runDir *string) *cobra.Command {
	return &cobra.Command{
		Use:   "kubectl -- ARGUMENT...",
		Short: "Run kubectl for the cluster",
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := cluster.Open(*runDir)
			if err != nil {
				return err
			}
			p, err := parts.Build(cmd.Context(), parts.Packaged, cmd.ErrOrStderr())
			if err != nil {
				return err
			}
			// kubectl takes this process over: signals and exit status are its own.
			argv := append([]string{"kubectl"}, args...)
			if err := unix.Exec(p.Kubectl(), argv, append(os.Environ(), c.Environment()...)); err != nil {
				return fmt.Errorf("run kubectl: %w", err)
			}
			return nil
		},
	}
}
