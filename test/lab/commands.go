package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/vaultmount/vaultmount/test/cluster"
	"github.com/vaultmount/vaultmount/test/image"
	"github.com/vaultmount/vaultmount/test/parts"
	"github.com/vaultmount/vaultmount/test/release"
	"github.com/vaultmount/vaultmount/test/usermode"
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
