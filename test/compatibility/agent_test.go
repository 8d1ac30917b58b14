package compatibility

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/vaultmount/vaultmount/test/parts"
)

// The user of the injector's agent, whose files have that owner.
const (
	agentUID = 100
	agentGID = 1000
)

// agent is the real Vault Agent, run as the injector runs it to fill a volume
// before a pod starts: as its user, once, with a file system that holds what the
// container of the injector's agent does.
type agent struct {
	program string
	address string
	token   string
}

func newAgent(t *testing.T, vault *vault) *agent {
	t.Helper()
	program, err := parts.Vault(t.Context(), os.Stderr)
	require.NoError(t, err)
	// Beside the containers, so that these can have it as a link.
	content, err := os.ReadFile(program)
	require.NoError(t, err)
	beside := filepath.Join(t.TempDir(), "vault")
	require.NoError(t, os.WriteFile(beside, content, 0o755))
	return &agent{program: beside, address: vault.server.Address, token: vault.token(t)}
}

// render runs one agent, which ends when the template is rendered or cannot be.
func (a *agent) render(t *testing.T, c testCase) outcome {
	t.Helper()
	root := a.container(t, c)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	command := exec.CommandContext(ctx, "/vault-program", "agent", "-config=/agent.json", "-log-level=error")
	command.Dir = "/"
	command.Env = []string{"HOME=/home/vault", "NAMESPACE=" + podNamespace, "HOST_IP=" + hostIP, "POD_IP=192.0.2.99"}
	command.SysProcAttr = &syscall.SysProcAttr{Chroot: root, Credential: &syscall.Credential{Uid: agentUID, Gid: agentGID}, Pdeathsig: syscall.SIGKILL}
	log, err := command.CombinedOutput()
	var exit *exec.ExitError
	switch {
	case errors.As(err, &exit) && exit.Exited():
		return outcome{failure: strings.TrimSpace(string(log))}
	case err != nil:
		t.Fatalf("run the agent: %v\n%s", err, log)
	}
	return outcome{files: readFiles(t, filepath.Join(root, "vault/secrets"))}
}

// container makes the agent's root directory.
func (a *agent) container(t *testing.T, c testCase) string {
	t.Helper()
	root, err := os.MkdirTemp(filepath.Dir(a.program), "container")
	require.NoError(t, err)
	require.NoError(t, os.Chmod(root, 0o755))
	require.NoError(t, os.Link(a.program, filepath.Join(root, "vault-program")))
	files := map[string]string{
		"etc/passwd": "root:x:0:0:root:/root:/bin/ash\nvault:x:100:1000::/home/vault:/bin/ash\n",
		"etc/group":  "root:x:0:\nvault:x:1000:\n",
		"agent.json": a.config(t, c),
		"token":      a.token,
		"var/run/secrets/kubernetes.io/serviceaccount/namespace": podNamespace,
		"var/run/secrets/kubernetes.io/serviceaccount/ca.crt":    clusterCA,
	}
	for key, value := range secretKeys() {
		files["vault/tls/"+key], files["vault/custom/"+key] = value, value
	}
	for name, content := range files {
		path := filepath.Join(root, name)
		require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o755))
		require.NoError(t, os.WriteFile(path, []byte(content), 0o644))
	}
	for name, mode := range map[string]os.FileMode{"vault/secrets": 0o777 | os.ModeSticky, "tmp": 0o777 | os.ModeSticky} {
		path := filepath.Join(root, name)
		require.NoError(t, os.Mkdir(path, mode))
		if err := os.Chmod(path, mode); err != nil { // less umask
			t.Fatal(err)
		}
	}
	return root
}

// config is that of the injector's init container. But for the login, which is
// none, and for the retries: a secret that is not there is not awaited.
func (a *agent) config(t *testing.T, c testCase) string {
	t.Helper()
	template := map[string]any{
		"contents": c.text, "destination": "/vault/secrets/" + fileName, "create_dest_dirs": true, "error_on_missing_key": c.errorOnMissingKey,
	}
	if c.leftDelim != "" {
		template["left_delimiter"] = c.leftDelim
	}
	if c.rightDelim != "" {
		template["right_delimiter"] = c.rightDelim
	}
	config, err := json.Marshal(map[string]any{
		"exit_after_auth": true,
		"vault":           map[string]any{"address": a.address, "retry": map[string]any{"num_retries": -1}},
		"template_config": map[string]any{"exit_on_retry_failure": true},
		"auto_auth":       map[string]any{"method": []any{map[string]any{"type": "token_file", "config": map[string]any{"token_file_path": "/token"}}}},
		"template":        []any{template},
	})
	require.NoError(t, err)
	return string(config)
}
