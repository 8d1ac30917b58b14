// Command vault is HashiCorp Vault with the kubernetes auth method and the
// database plugin for PostgreSQL, and without the cloud back-ends: a fifth of the
// official server's build time. It is a test tool (BUSL-1.1), never shipped with
// vaultmount or linked into it.
//
// Vault's "minimal" build tag leaves the kubernetes method out and offers no
// hook to add one, so "server" is put together here; every other command,
// "agent" among them, is Vault's own.
package main

import (
	"bufio"
	"os"
	"time"

	"github.com/hashicorp/cli"
	credkubernetes "github.com/hashicorp/vault-plugin-auth-kubernetes"
	logicalkv "github.com/hashicorp/vault-plugin-secrets-kv"
	"github.com/hashicorp/vault/audit"
	logicaldatabase "github.com/hashicorp/vault/builtin/logical/database"
	"github.com/hashicorp/vault/builtin/plugin"
	"github.com/hashicorp/vault/command"
	"github.com/hashicorp/vault/plugins/database/postgresql"
	"github.com/hashicorp/vault/sdk/database/dbplugin/v5"
	"github.com/hashicorp/vault/sdk/logical"
	"github.com/hashicorp/vault/sdk/physical"
	physfile "github.com/hashicorp/vault/sdk/physical/file"
	physinmem "github.com/hashicorp/vault/sdk/physical/inmem"
)

func main() {
	if len(os.Args) < 2 {
		os.Exit(command.Run(os.Args[1:]))
	}
	switch os.Args[1] {
	case "server":
		os.Exit(newServer().Run(os.Args[2:]))
	case postgresPlugin:
		go endWithParent(os.Getppid())
		dbplugin.ServeMultiplex(postgresql.New)
	default:
		os.Exit(command.Run(os.Args[1:]))
	}
}

// postgresPlugin is the argument that makes this program a plugin of the server:
// it is registered in the server's catalog under its own path.
const postgresPlugin = "postgresql-database-plugin"

// endWithParent ends a plugin whose server was killed, which by itself it would
// outlive.
func endWithParent(parent int) {
	for range time.Tick(time.Second) {
		if os.Getppid() != parent {
			os.Exit(1)
		}
	}
}

func newServer() *command.ServerCommand {
	ui := &cli.BasicUi{Reader: bufio.NewReader(os.Stdin), Writer: os.Stdout}
	return &command.ServerCommand{
		BaseCommand: &command.BaseCommand{UI: &command.VaultUI{Ui: ui}},
		AuditBackends: map[string]audit.Factory{
			"file": audit.NewFileBackend,
		},
		CredentialBackends: map[string]logical.Factory{
			"kubernetes": credkubernetes.Factory,
			"plugin":     plugin.Factory,
		},
		LogicalBackends: map[string]logical.Factory{
			"database": logicaldatabase.Factory,
			"kv":       logicalkv.Factory,
			"plugin":   plugin.Factory,
		},
		PhysicalBackends: map[string]physical.Factory{
			"file":                physfile.NewFileBackend,
			"inmem":               physinmem.NewInmem,
			"inmem_transactional": physinmem.NewTransactionalInmem,
		},
		ShutdownCh: command.MakeShutdownCh(),
		SighupCh:   command.MakeSighupCh(),
		SigUSR2Ch:  command.MakeSigUSR2Ch(),
	}
}
