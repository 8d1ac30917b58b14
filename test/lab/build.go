package main

import (
	"github.com/spf13/cobra"

	"github.com/vaultmount/vaultmount/test/parts"
)

func newBuildCommand() *cobra.Command {
	var source string
	command := &cobra.Command{
		Use:   "build",
		Short: "Build the parts of the cluster that the cache does not hold",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			_, err := parts.Build(cmd.Context(), parts.Source(source), cmd.ErrOrStderr())
			return err
		},
	}
	addSourceFlag(command, &source)
	return command
}

// addSourceFlag lets the user choose where the container runtime comes from.
func addSourceFlag(command *cobra.Command, source *string) {
	command.Flags().StringVar(source, "runtime", string(parts.Packaged), "where containerd, runc, etcd and the network plugins come from: "+
		string(parts.Packaged)+" (the distribution) or "+string(parts.Current)+" (built from source, with crun beside)")
}
