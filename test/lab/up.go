package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"github.com/vaultmount/vaultmount/test/cluster"
	"github.com/vaultmount/vaultmount/test/image"
	"github.com/vaultmount/vaultmount/test/parts"
)

func newUpCommand(runDir *string) *cobra.Command {
	var (
		source        string
		syncFrequency time.Duration
	)
	command := &cobra.Command{
		Use:   "up",
		Short: "Bring the cluster up and leave it running",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return up(cmd, parts.Source(source), cluster.Options{
				RunDir:        *runDir,
				SyncFrequency: syncFrequency,
				Forward:       []string{cluster.NodeIP + ":8200"}, // a Vault on the host's network
				Progress:      cmd.ErrOrStderr(),
			})
		},
	}
	addSourceFlag(command, &source)
	command.Flags().DurationVar(&syncFrequency, "sync-frequency", 5*time.Second, "how often the kubelet publishes volumes again")
	return command
}

func up(cmd *cobra.Command, source parts.Source, options cluster.Options) error {
	ctx := cmd.Context()
	p, err := parts.Build(ctx, source, cmd.ErrOrStderr())
	if err != nil {
		return err
	}
	options.Parts = p
	busybox, err := saveBusybox(ctx, p)
	if err != nil {
		return err
	}
	options.Images = []string{busybox}
	c, err := cluster.Up(ctx, options)
	if err != nil {
		return err
	}
	if err := c.Keep(); err != nil {
		return err
	}
	fmt.Fprintf(cmd.OutOrStdout(), "export KUBECONFIG=%s\n", c.Kubeconfig())
	return nil
}

// saveBusybox makes the image that users run their first pods from.
func saveBusybox(ctx context.Context, p *parts.Parts) (archive string, err error) {
	cache, err := parts.CacheDir()
	if err != nil {
		return "", err
	}
	dir := filepath.Join(cache, "images")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	busybox, err := image.Busybox(ctx, p.Runtime.Busybox)
	if err != nil {
		return "", err
	}
	archive = filepath.Join(dir, "busybox.tar")
	return archive, busybox.Save(archive)
}
