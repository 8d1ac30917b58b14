package main

import (
	"context"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/vaultmount/vaultmount/test/testbed"
)

func newDemoCommand(runDir *string) *cobra.Command {
	var keep bool
	command := &cobra.Command{
		Use:   "demo",
		Short: "Show a pod that reads a Vault secret from a file",
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
	bed, err := testbed.Up(ctx, runDir, out)
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
	if err := show(ctx, bed, out); err != nil {
		return err
	}
	fmt.Fprintf(out, "\ndone in %.0f s\n", time.Since(start).Seconds())
	if keep {
		explain(bed, out)
	}
	return nil
}

// show does what a user would, and prints the commands as they would be typed.
func show(ctx context.Context, bed *testbed.Testbed, out io.Writer) error {
	commands := [][]string{
		{"apply", "--kustomize", testbed.Manifest("example")},
		{"wait", "--for=condition=Ready", "pod/wizard", "--timeout=60s"},
		{"get", "pods"},
		{"exec", "wizard", "--", "cat", "/vault/secrets/database-config.txt"},
	}
	for _, command := range commands {
		fmt.Fprintf(out, "\n$ kubectl %s\n", strings.Join(command, " "))
		printed, err := bed.Kubectl(ctx, command...)
		fmt.Fprint(out, printed)
		if err != nil {
			return err
		}
		if !strings.HasSuffix(printed, "\n") {
			fmt.Fprintln(out)
		}
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
