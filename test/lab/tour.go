package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/vaultmount/vaultmount/test/testbed"
)

// The tutorial's own files, and what a pod sees in the end.
const (
	tutorialFiles = "test/e2e/testdata/tutorial/"
	secretFile    = "/vault/secrets/database-config.txt"
	connection    = "postgresql://db-readonly-username:db-secret-password@postgres:5432/wizard"
)

// waitTimeout bounds each wait of the tour; all take seconds.
const waitTimeout = 90 * time.Second

// tour plays the injector's tutorial to somebody who watches: it says what comes,
// prints each command as it would be typed, and what the command answers. It ends
// with an error where the answer is not the tutorial's.
type tour struct {
	bed *testbed.Testbed
	out io.Writer
}

func (t tour) play(ctx context.Context) error {
	for _, step := range []struct {
		title string
		do    func(context.Context) error
	}{
		{"A pod that writes its volume itself.", t.native},
		{"One policy in the API server translates the annotations of the Vault Agent Injector. Nothing else has to run.", t.installPolicy},
		{"A deployment without annotations gets nothing.", t.startPlain},
		{"Patched with annotations, it gets its secret as a file. The pod is 1/1: no sidecar, no init container.", t.inject},
		{"A template gives the file the form that the application wants.", t.template},
		{"A pod of its own works the same.", t.payroll},
		{"A service account that the role is not bound to: the pod waits, and its events say why, in Vault's words.", t.website},
		{"The same for another namespace, until it has a role of its own.", t.issues},
	} {
		fmt.Fprintf(t.out, "\n# %s\n", step.title)
		if err := step.do(ctx); err != nil {
			return err
		}
	}
	return nil
}

func (t tour) native(ctx context.Context) error {
	for _, command := range [][]string{
		{"apply", "--kustomize", testbed.Manifest("example")},
		{"wait", "--for=condition=Ready", "pod/wizard", "--timeout=" + waitTimeout.String()},
	} {
		if err := t.run(ctx, command...); err != nil {
			return err
		}
	}
	return t.show(ctx, "default", "wizard", connection)
}

func (t tour) installPolicy(ctx context.Context) error {
	if err := t.run(ctx, "apply", "--kustomize", "deploy/policy"); err != nil {
		return err
	}
	return t.awaitPolicy(ctx)
}

// awaitPolicy waits until the API server acts on the policy: until then the guard,
// on which it may act sooner, rejects annotated pods.
func (t tour) awaitPolicy(ctx context.Context) error {
	return t.await(ctx, "the policy translates pods", func() (bool, error) {
		return t.bed.ProbeAdmission(ctx).Translates, nil
	})
}

func (t tour) startPlain(ctx context.Context) error {
	if err := t.run(ctx, "apply", "--filename="+tutorialFiles+"deployment-orgchart.yaml"); err != nil {
		return err
	}
	pod, err := t.ready(ctx, "default", "orgchart")
	if err != nil {
		return err
	}
	if err := t.run(ctx, "exec", pod, "--", "ls", "/vault/secrets"); err == nil {
		return errors.New("the pod without annotations has secrets")
	}
	return nil
}

func (t tour) inject(ctx context.Context) error {
	if err := t.run(ctx, "patch", "deployment", "orgchart", "--patch-file="+tutorialFiles+"patch-inject-secrets.yaml"); err != nil {
		return err
	}
	pod, err := t.ready(ctx, "default", "orgchart")
	if err != nil {
		return err
	}
	if err := t.run(ctx, "get", "pods", "--selector=app=orgchart"); err != nil {
		return err
	}
	return t.show(ctx, "default", pod, "data: map[password:db-secret-password username:db-readonly-username]")
}

func (t tour) template(ctx context.Context) error {
	if err := t.run(ctx, "patch", "deployment", "orgchart", "--patch-file="+tutorialFiles+"patch-inject-secrets-as-template.yaml"); err != nil {
		return err
	}
	return t.showConnection(ctx, "default", "orgchart")
}

func (t tour) payroll(ctx context.Context) error {
	if err := t.run(ctx, "apply", "--filename="+tutorialFiles+"pod-payroll.yaml"); err != nil {
		return err
	}
	return t.showConnection(ctx, "default", "payroll")
}

func (t tour) website(ctx context.Context) error {
	if err := t.run(ctx, "apply", "--filename="+tutorialFiles+"deployment-website.yaml"); err != nil {
		return err
	}
	if err := t.showRefusal(ctx, "default", "website", "service account name not authorized"); err != nil {
		return err
	}
	if err := t.run(ctx, "patch", "deployment", "website", "--patch-file="+tutorialFiles+"patch-website.yaml"); err != nil {
		return err
	}
	return t.showConnection(ctx, "default", "website")
}

func (t tour) issues(ctx context.Context) error {
	for _, command := range [][]string{
		{"create", "namespace", "offsite"},
		{"create", "serviceaccount", "internal-app", "--namespace=offsite"},
		{"apply", "--namespace=offsite", "--filename=" + tutorialFiles + "deployment-issues.yaml"},
	} {
		if err := t.run(ctx, command...); err != nil {
			return err
		}
	}
	if err := t.showRefusal(ctx, "offsite", "issues", "namespace not authorized"); err != nil {
		return err
	}
	role := strings.Fields("vault write auth/kubernetes/role/offsite-app bound_service_account_names=internal-app bound_service_account_namespaces=offsite policies=internal-app ttl=24h")
	if err := t.run(ctx, append([]string{"exec", "vault-0", "--"}, role...)...); err != nil {
		return err
	}
	if err := t.run(ctx, "patch", "deployment", "issues", "--namespace=offsite", "--patch-file="+tutorialFiles+"patch-issues.yaml"); err != nil {
		return err
	}
	return t.showConnection(ctx, "offsite", "issues")
}
