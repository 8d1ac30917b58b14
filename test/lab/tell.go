package main

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"
)

// run runs kubectl, and prints the command and its answer.
func (t tour) run(ctx context.Context, arguments ...string) error {
	_, err := t.answer(ctx, arguments...)
	return err
}

// answer runs kubectl, prints the command as it would be typed and what it prints
// or says went wrong, and returns what it prints.
func (t tour) answer(ctx context.Context, arguments ...string) (string, error) {
	typed := slices.DeleteFunc(slices.Clone(arguments), func(argument string) bool { return argument == "--namespace=default" })
	fmt.Fprintf(t.out, "$ kubectl %s\n", strings.Join(typed, " "))
	printed, err := t.bed.Kubectl(ctx, arguments...)
	fmt.Fprint(t.out, printed)
	if printed != "" && !strings.HasSuffix(printed, "\n") {
		fmt.Fprintln(t.out)
	}
	if err != nil {
		// The output of the command follows the command, which is printed already.
		output := err.Error()
		if _, words, ok := strings.Cut(output, "exit status "); ok {
			_, output, _ = strings.Cut(words, ": ")
		}
		fmt.Fprintln(t.out, output)
	}
	return printed, err
}

// show prints a pod's file, and holds its beginning against what it should be.
func (t tour) show(ctx context.Context, namespace, pod, want string) error {
	got, err := t.answer(ctx, "exec", pod, "--namespace="+namespace, "--", "cat", secretFile)
	if err != nil {
		return err
	}
	if !strings.HasPrefix(got, want) {
		return fmt.Errorf("%s in %s does not begin with %q", secretFile, pod, want)
	}
	return nil
}

func (t tour) showConnection(ctx context.Context, namespace, app string) error {
	pod, err := t.ready(ctx, namespace, app)
	if err != nil {
		return err
	}
	return t.show(ctx, namespace, pod, connection)
}

// showRefusal prints the events of an app's pod once they hold Vault's words.
func (t tour) showRefusal(ctx context.Context, namespace, app, words string) error {
	var pods []string
	err := t.await(ctx, "the pod of "+app+" is made", func() (found bool, err error) {
		pods, err = t.pods(ctx, namespace, app)
		return len(pods) == 1, err
	})
	if err != nil {
		return err
	}
	command := []string{"get", "events", "--namespace=" + namespace, "--field-selector=reason=FailedMount,involvedObject.name=" + pods[0], "--output=custom-columns=MESSAGE:.message"}
	err = t.await(ctx, "an event says "+words, func() (bool, error) {
		events, err := t.bed.Kubectl(ctx, command...)
		return strings.Contains(events, words), err
	})
	if err != nil {
		return err
	}
	return t.run(ctx, command...)
}

// ready waits until the newest pod of an app is its only one, and ready.
func (t tour) ready(ctx context.Context, namespace, app string) (string, error) {
	if app != "payroll" {
		if err := t.run(ctx, "rollout", "status", "deployment/"+app, "--namespace="+namespace, "--timeout="+waitTimeout.String()); err != nil {
			return "", err
		}
	}
	var pods []string
	err := t.await(ctx, "the old pod of "+app+" is gone", func() (gone bool, err error) {
		pods, err = t.pods(ctx, namespace, app)
		return len(pods) == 1, err
	})
	if err != nil {
		return "", err
	}
	return pods[0], t.run(ctx, "wait", "--for=condition=Ready", "pod/"+pods[0], "--namespace="+namespace, "--timeout="+waitTimeout.String())
}

func (t tour) pods(ctx context.Context, namespace, app string) ([]string, error) {
	names, err := t.bed.Kubectl(ctx, "get", "pods", "--selector=app="+app, "--namespace="+namespace, "--output=jsonpath={.items[*].metadata.name}")
	return strings.Fields(names), err
}

// await asks until the condition holds, or waitTimeout is over.
func (t tour) await(ctx context.Context, what string, holds func() (bool, error)) error {
	ctx, cancel := context.WithTimeout(ctx, waitTimeout)
	defer cancel()
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for {
		done, err := holds()
		if done || err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait until %s: %w", what, ctx.Err())
		case <-tick.C:
		}
	}
}
