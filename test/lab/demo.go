package main

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/vaultmount/vaultmount/test/parts"
	"github.com/vaultmount/vaultmount/test/testbed"
)

func newDemoCommand(runDir *string) *cobra.Command {
	var keep bool
	command := &cobra.Command{
		Use:   "demo",
		Short: "Play the injector's tutorial, with vaultmount in its place",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return demo(cmd.Context(), *runDir, keep, cmd.OutOrStdout())
		},
	}
	command.Flags().BoolVar(&keep, "keep", false, "leave the cluster running")
	return command
}

func demo(ctx context.Context, runDir string, keep bool, out io.Writer) (err error) {
	start := time.Now()
	bed, err := testbed.Up(ctx, parts.Packaged, runDir, out)
	if err != nil {
		return err
	}
	defer func() {
		if err == nil && keep {
			err = bed.Keep()
			return
		}
		stopping, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
		defer cancel()
		if downErr := bed.Down(stopping); err == nil {
			err = downErr
		}
	}()
	if err := (tour{bed, out}).play(ctx); err != nil {
		return err
	}
	fmt.Fprintf(out, "\ndone in %.0f s\n", time.Since(start).Seconds())
	if keep {
		explain(bed, out)
	}
	return nil
}

func explain(bed *testbed.Testbed, out io.Writer) {
	fmt.Fprintf(out, `
The cluster stays up. To use it:
  export KUBECONFIG=%s
  alias kubectl=%s
  kubectl get pods --all-namespaces
  kubectl exec vault-0 -- vault kv get internal/database/config
To end it:
  make demo-down
`, bed.Kubeconfig(), bed.KubectlPath())
}
