// Package vaultserver runs a real Vault server for one test, on a loopback port of
// its own: in dev mode, in memory and unsealed, or with what a server has in
// production, a storage that outlives it, a seal and an audit log. It fakes nothing
// and keeps nothing when the test is over.
package vaultserver

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/hashicorp/vault/api"
	"github.com/stretchr/testify/require"

	"github.com/vaultmount/vaultmount/test/parts"
)

// rootToken is what a dev server is told to make its root token.
const rootToken = "root"

// Server is a running Vault server.
type Server struct {
	Address    string // URL
	TLSAddress string // URL, if there was a TLS to serve
	Token      string // root token
	dir        string // of the log, and the server's home
	process    *process
}

// TLS makes a server serve TLS as well, on a port of its own. The fields are
// paths of PEM files.
type TLS struct {
	Certificate, Key string
	// ClientCA makes a client certificate signed by it a condition; empty for none.
	ClientCA string
}

// ForTest starts a server that stops with the test, and shows the server's log
// if the test fails. tls is nil for plain HTTP alone.
func ForTest(t testing.TB, tls *TLS) *Server {
	t.Helper()
	program, err := parts.Vault(t.Context(), os.Stderr)
	require.NoError(t, err)
	s, err := Start(t.Context(), program, tls)
	require.NoError(t, err)
	s.endWith(t)
	return s
}

func (s *Server) endWith(t testing.TB) {
	t.Cleanup(func() {
		log := s.Log()
		if err := s.Stop(); err != nil {
			t.Error(err)
		}
		if t.Failed() {
			t.Logf("log of the Vault server:\n%s", log)
		}
	})
}

// Start starts a server and returns when it answers; ctx bounds only that.
func Start(ctx context.Context, program string, tls *TLS) (*Server, error) {
	s, err := launch(program, tls)
	if err != nil {
		return nil, fmt.Errorf("start Vault server: %w", err)
	}
	if err := s.awaitReady(ctx); err != nil {
		err = fmt.Errorf("start Vault server: %w; its log:\n%s", err, s.Log())
		return nil, errors.Join(err, s.Stop())
	}
	return s, nil
}

// Client is a new client with the root token.
func (s *Server) Client() (*api.Client, error) {
	config := api.DefaultConfig()
	if config.Error != nil {
		return nil, fmt.Errorf("make Vault client: %w", config.Error)
	}
	config.Address = s.Address // not $VAULT_ADDR
	client, err := api.NewClient(config)
	if err != nil {
		return nil, fmt.Errorf("make Vault client: %w", err)
	}
	client.SetToken(s.Token)
	client.ClearNamespace() // not $VAULT_NAMESPACE
	return client, nil
}

// Log is what the server has logged so far.
func (s *Server) Log() string {
	content, err := os.ReadFile(s.logPath())
	if err != nil {
		return err.Error()
	}
	return string(content)
}

func (s *Server) logPath() string { return filepath.Join(s.dir, "vault.log") }

// Stop kills the server: in dev mode it has nothing to save. A second call does
// nothing.
func (s *Server) Stop() error {
	s.process.end()
	return os.RemoveAll(s.dir)
}
