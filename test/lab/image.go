package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/vaultmount/vaultmount/test/image"
	"github.com/vaultmount/vaultmount/test/parts"
	"github.com/vaultmount/vaultmount/test/release"
)

func newImageCommand() *cobra.Command {
	var version string
	command := &cobra.Command{
		Use:   "image DIRECTORY",
		Short: "Build the driver's images as archives, each with a list of what is in it",
		Args:  cobra.ExactArgs(1),
		RunE: func(command *cobra.Command, args []string) error {
			root, err := parts.Checkout()
			if err != nil {
				return err
			}
			built, err := release.Of(command.Context(), root, version, os.Getenv("SOURCE_DATE_EPOCH"))
			if err != nil {
				return err
			}
			if err := built.Write(command.Context(), args[0], command.ErrOrStderr()); err != nil {
				return err
			}
			return printIndex(command, args[0])
		},
	}
	command.Flags().StringVar(&version, "version", "dev", "version of the release, and tag of the image")
	return command
}

// printIndex tells which file to push, and what a registry will know it by.
func printIndex(command *cobra.Command, directory string) error {
	index := filepath.Join(directory, "vaultmount.tar")
	digest, err := image.Digest(index)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(command.OutOrStdout(), "%s is %s for %s\n", index, digest, strings.Join(release.Architectures(), " and "))
	return err
}
