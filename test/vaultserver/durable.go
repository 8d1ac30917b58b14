package vaultserver

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"testing"

	"github.com/hashicorp/vault/api"
	"github.com/stretchr/testify/require"

	"github.com/vaultmount/vaultmount/test/parts"
)

// PostgresPlugin is the name of the plugin that every durable server has in its
// catalog, for plugin_name in the configuration of a database engine.
const PostgresPlugin = "postgresql-database-plugin"

// Durable is a server that can be sealed, and that can end and start again with
// what it stored. It has an audit log.
type Durable struct {
	*Server
	program string
	key     string // to unseal it
}

// DurableForTest starts a durable server that stops with the test.
func DurableForTest(t testing.TB) *Durable {
	t.Helper()
	program, err := parts.Vault(t.Context(), os.Stderr)
	require.NoError(t, err)
	d, err := startDurable(t.Context(), program)
	require.NoError(t, err)
	d.endWith(t)
	return d
}

// ownHost is a loopback address that nobody else has, so that two servers which
// start at once are not given one port; and not 127.0.0.1, since while the server is
// down, a connection to it must not get its port for its own end, which would keep
// the server from coming back.
func ownHost() string {
	return fmt.Sprintf("127.%d.%d.%d", 1+rand.IntN(254), rand.IntN(256), 1+rand.IntN(254))
}

func startDurable(ctx context.Context, program string) (*Durable, error) {
	address, err := freeAddress(ownHost())
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "vault-*")
	if err != nil {
		return nil, err
	}
	d := &Durable{Server: &Server{Address: "http://" + address, dir: dir}, program: program}
	if err := d.configure(address); err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	if err := d.setUp(ctx); err != nil {
		err = fmt.Errorf("start Vault server: %w; its log:\n%s", err, d.Log())
		return nil, errors.Join(err, d.Stop())
	}
	return d, nil
}

func (d *Durable) configure(address string) error {
	config := fmt.Sprintf(`
		storage "file" { path = %q }
		listener "tcp" {
			address     = %q
			tls_disable = true
		}
		plugin_directory   = %q
		api_addr           = %q
		disable_mlock      = true
		disable_clustering = true
	`, filepath.Join(d.dir, "storage"), address, filepath.Dir(d.program), d.Address)
	return os.WriteFile(d.configPath(), []byte(config), 0o600)
}

func (d *Durable) configPath() string { return filepath.Join(d.dir, "vault.hcl") }
func (d *Durable) auditPath() string  { return filepath.Join(d.dir, "audit.log") }

func (d *Durable) setUp(ctx context.Context) error {
	if err := d.startSealed(ctx); err != nil {
		return err
	}
	client, err := d.Client()
	if err != nil {
		return err
	}
	made, err := client.Sys().InitWithContext(ctx, &api.InitRequest{SecretShares: 1, SecretThreshold: 1})
	if err != nil {
		return fmt.Errorf("initialize: %w", err)
	}
	d.key, d.Token = made.Keys[0], made.RootToken
	if err := d.Unseal(ctx); err != nil {
		return err
	}
	client.SetToken(d.Token)
	err = client.Sys().EnableAuditWithOptionsWithContext(ctx, "file", &api.EnableAuditOptions{Type: "file", Options: map[string]string{"file_path": d.auditPath()}})
	if err != nil {
		return fmt.Errorf("enable the audit log: %w", err)
	}
	return d.registerPlugin(ctx, client)
}

// registerPlugin lets the server run its own program once more as the plugin.
func (d *Durable) registerPlugin(ctx context.Context, client *api.Client) error {
	sum, err := checksum(d.program)
	if err != nil {
		return err
	}
	err = client.Sys().RegisterPluginWithContext(ctx, &api.RegisterPluginInput{
		Name: PostgresPlugin, Type: api.PluginTypeDatabase, Command: filepath.Base(d.program), Args: []string{PostgresPlugin}, SHA256: sum,
	})
	if err != nil {
		return fmt.Errorf("register the database plugin: %w", err)
	}
	return nil
}

func checksum(path string) (string, error) {
	file, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer file.Close()
	hash := sha256.New()
	if _, err := io.Copy(hash, file); err != nil {
		return "", err
	}
	return hex.EncodeToString(hash.Sum(nil)), nil
}

// startSealed runs the process and returns when it answers at all.
func (d *Durable) startSealed(ctx context.Context) error {
	if err := d.start(d.program, "-config="+d.configPath()); err != nil {
		return err
	}
	return d.await(ctx, func(ctx context.Context) error {
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, d.Address+"/v1/sys/seal-status", nil)
		if err != nil {
			return err
		}
		response, err := http.DefaultClient.Do(request)
		if err != nil {
			return err
		}
		return response.Body.Close()
	})
}

// Seal makes the server refuse everything until Unseal.
func (d *Durable) Seal(ctx context.Context) error {
	client, err := d.Client()
	if err != nil {
		return err
	}
	if err := client.Sys().SealWithContext(ctx); err != nil {
		return fmt.Errorf("seal Vault: %w", err)
	}
	return nil
}

// Unseal returns when the server is active.
func (d *Durable) Unseal(ctx context.Context) error {
	client, err := d.Client()
	if err != nil {
		return err
	}
	if _, err := client.Sys().UnsealWithContext(ctx, d.key); err != nil {
		return fmt.Errorf("unseal Vault: %w", err)
	}
	return d.awaitReady(ctx)
}

// Kill ends the process as a crash does. What is stored stays for Restart.
func (d *Durable) Kill() { d.process.end() }

// Restart kills the process if it runs, starts another one at the same address,
// and unseals it.
func (d *Durable) Restart(ctx context.Context) error {
	d.Kill()
	if err := d.startSealed(ctx); err != nil {
		return fmt.Errorf("start Vault again: %w", err)
	}
	return d.Unseal(ctx)
}
