package bench

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/vaultmount/vaultmount/test/parts"
	"github.com/vaultmount/vaultmount/test/rig"
)

// agent is the real Vault Agent of one pod, with the configuration that the injector
// writes for it: one file for each secret.
type agent struct {
	program, directory string
	paths              []string
}

func newAgent(b testing.TB, vault *rig.Vault, pod string, paths []string, interval time.Duration) *agent {
	b.Helper()
	program, err := parts.Vault(b.Context(), os.Stderr)
	require.NoError(b, err)
	a := &agent{program: program, directory: b.TempDir(), paths: paths}
	require.NoError(b, os.WriteFile(filepath.Join(a.directory, "jwt"), []byte(jwtOf(b, vault, pod)), 0o600))
	for name, initial := range map[string]bool{"init.json": true, "sidecar.json": false} {
		text, err := json.Marshal(a.config(vault.Server.Address, initial, interval))
		require.NoError(b, err)
		require.NoError(b, os.WriteFile(filepath.Join(a.directory, name), text, 0o600))
	}
	return a
}

// config is the injector's, with the login by jwt in place of kubernetes: both send
// the pod's token once.
func (a *agent) config(address string, initial bool, interval time.Duration) map[string]any {
	var templates []any
	for i, path := range a.paths {
		templates = append(templates, map[string]any{
			"contents": templateOf(path), "destination": a.file(i), "create_dest_dirs": true,
			"left_delimiter": "{{", "right_delimiter": "}}", "error_on_missing_key": false,
		})
	}
	settings := map[string]any{"exit_on_retry_failure": true}
	if interval > 0 {
		settings["static_secret_render_interval"] = interval.String()
	}
	return map[string]any{
		"exit_after_auth": initial,
		"pid_file":        filepath.Join(a.directory, "pid"),
		"vault":           map[string]any{"address": address},
		"auto_auth": map[string]any{
			"method": map[string]any{"type": "jwt", "mount_path": "auth/jwt", "config": map[string]any{
				"role": rig.Role, "path": filepath.Join(a.directory, "jwt"), "remove_jwt_after_reading": false,
			}},
			"sink": []any{map[string]any{"type": "file", "config": map[string]any{"path": filepath.Join(a.directory, "token")}}},
		},
		"template_config": settings,
		"template":        templates,
	}
}

func (a *agent) file(i int) string {
	return filepath.Join(a.directory, "secrets", fmt.Sprintf("file-%d", i))
}

func (a *agent) command(config string) *exec.Cmd {
	command := exec.Command(a.program, "agent", "-config="+filepath.Join(a.directory, config), "-log-level=error")
	for _, variable := range os.Environ() {
		if !strings.HasPrefix(variable, "VAULT_") {
			command.Env = append(command.Env, variable)
		}
	}
	command.Env = append(command.Env, "HOME="+a.directory)
	command.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	return command
}

// initialize runs the init container's process, and returns when its files could be
// read first, and when it ended and the pod's containers could start.
func (a *agent) initialize(b testing.TB) (readable, ended time.Duration) {
	b.Helper()
	command := a.command("init.json")
	start := time.Now()
	require.NoError(b, command.Start())
	done := make(chan error, 1)
	go func() { done <- command.Wait() }()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case err := <-done:
			if err != nil {
				b.Fatalf("the agent ends with %v", err)
			}
			ended = time.Since(start)
			if readable == 0 {
				readable = ended
			}
			return readable, ended
		case <-tick.C:
			if readable == 0 && a.rendered(b) {
				readable = time.Since(start)
			}
		}
	}
}

func (a *agent) rendered(b testing.TB) bool {
	for i := range a.paths {
		if _, err := os.Stat(a.file(i)); errors.Is(err, fs.ErrNotExist) {
			return false
		} else if err != nil {
			b.Fatal(err)
		}
	}
	return true
}

func (a *agent) awaitFiles(b testing.TB) {
	b.Helper()
	rig.Eventually(b, "the agent has rendered its files", func() bool { return a.rendered(b) })
}

// awaitSidecar waits until the sidecar has logged in and rendered as well: it writes
// its token when it has one, and the files are there from the init container.
func (a *agent) awaitSidecar(b testing.TB) {
	b.Helper()
	info, err := os.Stat(filepath.Join(a.directory, "token"))
	require.NoError(b, err)
	rig.Eventually(b, "the sidecar has a token of its own", func() bool {
		now, err := os.Stat(filepath.Join(a.directory, "token"))
		return err == nil && now.ModTime().After(info.ModTime())
	})
	time.Sleep(time.Second) // for its reads, which change no file
}

// sidecar runs the sidecar's process until the benchmark ends, or somebody ends it.
func (a *agent) sidecar(b testing.TB) *exec.Cmd {
	b.Helper()
	command := a.command("sidecar.json")
	require.NoError(b, command.Start())
	b.Cleanup(func() { end(command) })
	return command
}

func end(command *exec.Cmd) {
	_ = command.Process.Kill() // or it has ended
	_ = command.Wait()         // killed
}
