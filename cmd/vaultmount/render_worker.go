package main

import (
	"github.com/spf13/cobra"

	worker "github.com/vaultmount/vaultmount/provider/sandbox"
)

// newRenderWorkerCommand is the other end of worker.Start: the driver starts its own
// program once more to run templates in.
func newRenderWorkerCommand() *cobra.Command {
	return &cobra.Command{
		Use:    worker.Command,
		Short:  "Run templates for the driver that started it",
		Hidden: true,
		Args:   cobra.NoArgs,
		RunE:   func(*cobra.Command, []string) error { return worker.Main() },
	}
}
