package holder

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// program is one program of Kubernetes.
type program struct {
	name string // of its log
	path string
	args []string
}

// start starts a program that must run as long as the cluster does: its end is
// the cluster's, unless a restart was asked for.
func (h *holder) start(p program) (program, error) {
	pid, exited, err := h.launch(p, os.O_TRUNC)
	if err != nil {
		return p, err
	}
	h.restarts.began(p.name, pid)
	h.wg.Go(func() {
		for {
			status := <-exited
			if !h.restarts.take(p.name) {
				h.end(fmt.Errorf("%s ended with %s; %s", p.name, describe(status), h.lastLines(p)))
				return
			}
			if pid, exited, err = h.launch(p, os.O_APPEND); err != nil {
				h.end(err)
				return
			}
			h.restarts.began(p.name, pid)
		}
	})
	return p, nil
}

// launch runs a program; how says what becomes of the log that is there.
func (h *holder) launch(p program, how int) (pid int, exited <-chan unix.WaitStatus, err error) {
	log, err := os.OpenFile(h.log(p.name), os.O_CREATE|os.O_WRONLY|how, 0o644)
	if err != nil {
		return 0, nil, fmt.Errorf("start %s: %w", p.name, err)
	}
	defer log.Close()
	cmd := exec.Command(p.path, p.args...)
	cmd.Dir = "/"
	cmd.Stdout, cmd.Stderr = log, log
	pid, exited, err = h.children.start(cmd)
	if err != nil {
		return 0, nil, fmt.Errorf("start %s: %w", p.name, err)
	}
	return pid, exited, nil
}

// await polls a program until probe succeeds.
func (h *holder) await(ctx context.Context, p program, probe func(context.Context) error) error {
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		last := attempt(ctx, probe)
		if last == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait for %s (%w): %w; %s", p.name, last, context.Cause(ctx), h.lastLines(p))
		case <-tick.C:
		}
	}
}

// attempt bounds one probe: a program that accepts connections may not answer.
func attempt(ctx context.Context, probe func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	return probe(ctx)
}

// lastLines quotes the end of a program's log.
func (h *holder) lastLines(p program) string {
	path := h.log(p.name)
	content, err := os.ReadFile(path)
	if err != nil {
		return err.Error()
	}
	lines := strings.Split(strings.TrimSpace(string(content)), "\n")
	lines = lines[max(0, len(lines)-15):]
	return fmt.Sprintf("the end of %s:\n%s", path, strings.Join(lines, "\n"))
}
