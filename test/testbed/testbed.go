// Package testbed is a cluster with all that a pod with a volume needs: a Vault
// server that the tutorial's commands have set up, and the driver as deploy/
// installs it. The demo and the end-to-end tests start from it.
//
// It knows how to ask the cluster for things by kubectl, as a user would; what
// the answers should be is for its callers to say.
package testbed

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/vaultmount/vaultmount/test/cluster"
	"github.com/vaultmount/vaultmount/test/parts"
)

// readyTimeout bounds the wait for a pod of the testbed; it takes seconds.
const readyTimeout = 2 * time.Minute

// Testbed is a cluster that is up.
type Testbed struct {
	*cluster.Cluster

	kubectl  string
	checkout string
}

// Up brings the testbed up, on the container runtime of a source. It ends with the
// calling process unless Keep is called; runDir is empty for the usual place.
func Up(ctx context.Context, source parts.Source, runDir string, progress io.Writer) (*Testbed, error) {
	all, err := parts.Build(ctx, source, progress)
	if err != nil {
		return nil, err
	}
	checkout, err := parts.Checkout()
	if err != nil {
		return nil, err
	}
	scratch, err := os.MkdirTemp("", "vaultmount-testbed-")
	if err != nil {
		return nil, fmt.Errorf("make a directory for images: %w", err)
	}
	defer os.RemoveAll(scratch)
	images, err := buildImages(ctx, all, scratch, progress)
	if err != nil {
		return nil, err
	}
	c, err := cluster.Up(ctx, cluster.Options{Parts: all, RunDir: runDir, Images: images, Progress: progress})
	if err != nil {
		return nil, err
	}
	t := &Testbed{Cluster: c, kubectl: all.Kubectl(), checkout: checkout}
	if err := t.install(ctx, progress); err != nil {
		stopping, cancel := context.WithTimeout(context.WithoutCancel(ctx), readyTimeout)
		defer cancel()
		return nil, errors.Join(err, c.Down(stopping))
	}
	return t, nil
}

// install puts Vault and the driver into the cluster.
func (t *Testbed) install(ctx context.Context, progress io.Writer) error {
	ctx, cancel := context.WithTimeout(ctx, readyTimeout)
	defer cancel()
	steps := []struct {
		title string
		do    func(context.Context) error
	}{
		{"installing the driver from deploy/", t.applyDriver},
		{"starting Vault", t.startVault},
		{"setting Vault up as the tutorial says", t.setUpVault},
		{"waiting for the driver", t.awaitDriver},
	}
	for _, step := range steps {
		start := time.Now()
		if err := step.do(ctx); err != nil {
			return fmt.Errorf("%s: %w", step.title, err)
		}
		fmt.Fprintf(progress, "%s … %.1f s\n", step.title, time.Since(start).Seconds())
	}
	return nil
}

func (t *Testbed) applyDriver(ctx context.Context) error {
	_, err := t.Kubectl(ctx, "apply", "-k", Manifest("driver"))
	return err
}

func (t *Testbed) startVault(ctx context.Context) error {
	if _, err := t.Kubectl(ctx, "apply", "-k", Manifest("vault")); err != nil {
		return err
	}
	_, err := t.Kubectl(ctx, "rollout", "status", "statefulset/vault")
	return err
}

func (t *Testbed) setUpVault(ctx context.Context) error {
	script, err := os.ReadFile(filepath.Join(t.checkout, "deploy", "examples", "vault.sh"))
	if err != nil {
		return fmt.Errorf("read the script: %w", err)
	}
	// The cluster has no DNS and no Service addresses.
	_, err = t.Vault(ctx, "export KUBERNETES_HOST=https://10.111.0.1:6443\n"+string(script))
	return err
}

func (t *Testbed) awaitDriver(ctx context.Context) error {
	_, err := t.Kubectl(ctx, "rollout", "status", "daemonset/vaultmount", "--namespace=vaultmount")
	return err
}

// Manifest is the path of a file or directory of the testbed, from the top of the
// checkout, where kubectl runs.
func Manifest(name string) string { return filepath.Join("test", "testbed", name) }

// Vault runs a shell script in the pod vault-0, as root of Vault, and returns
// what it printed.
func (t *Testbed) Vault(ctx context.Context, script string) (string, error) {
	return t.KubectlWithInput(ctx, script, "exec", "--stdin", "vault-0", "--", "sh", "-s")
}

// Kubectl runs kubectl and returns what it printed. The error holds what it said
// on standard error.
func (t *Testbed) Kubectl(ctx context.Context, arguments ...string) (string, error) {
	return t.KubectlWithInput(ctx, "", arguments...)
}

// KubectlWithInput is Kubectl with standard input.
func (t *Testbed) KubectlWithInput(ctx context.Context, input string, arguments ...string) (string, error) {
	command := exec.CommandContext(ctx, t.kubectl, arguments...)
	command.Dir = t.checkout
	command.Env = append(os.Environ(), t.Environment()...)
	command.Stdin = strings.NewReader(input)
	var stdout, stderr bytes.Buffer
	command.Stdout, command.Stderr = &stdout, &stderr
	if err := command.Run(); err != nil {
		return stdout.String(), fmt.Errorf("kubectl %s: %w: %s", strings.Join(arguments, " "), err, strings.TrimSpace(stderr.String()))
	}
	return stdout.String(), nil
}

// KubectlPath is the program to run by hand.
func (t *Testbed) KubectlPath() string { return t.kubectl }
