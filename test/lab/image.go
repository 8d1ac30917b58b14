package main

import (
	"github.com/spf13/cobra"

	"github.com/vaultmount/vaultmount/test/image"
)

func newImageCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "image PROGRAM ARCHIVE.tar",
		Short: "Write the driver's image as an archive that containerd and Docker load",
		Args:  cobra.ExactArgs(2),
		RunE: func(_ *cobra.Command, args []string) error {
			return image.Vaultmount(args[0]).Save(args[1])
		},
	}
}
