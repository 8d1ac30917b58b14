package component

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/vaultmount/vaultmount/test/postgres"
	"github.com/vaultmount/vaultmount/test/rig"
	"github.com/vaultmount/vaultmount/test/vaultserver"
)

// lastingFixture is a Vault that can be sealed and killed, and tells what it was asked.
type lastingFixture struct {
	*rig.Vault
	durable *vaultserver.Durable
}

func startLastingVault(t *testing.T) *lastingFixture {
	t.Helper()
	durable := vaultserver.DurableForTest(t)
	return &lastingFixture{Vault: rig.SetUpVault(t, durable.Server), durable: durable}
}

// role lets internal-app log in under a name of its own, with a policy and more
// fields of a JWT role.
func (f *lastingFixture) role(t *testing.T, name, policy string, fields map[string]any) {
	t.Helper()
	f.Write(t, "sys/policies/acl/"+name, map[string]any{"policy": policy})
	role := map[string]any{
		"role_type": "jwt", "user_claim": "sub", "bound_audiences": []string{"vault"},
		"bound_subject": "system:serviceaccount:default:internal-app", "token_policies": []string{name}, "token_ttl": "1h",
	}
	for key, value := range fields {
		role[key] = value
	}
	f.Write(t, "auth/jwt/role/"+name, role)
}

// requests counts what Vault was asked and did not refuse.
func (f *lastingFixture) requests(t *testing.T, operation, path string) int {
	t.Helper()
	all, err := f.durable.Audit()
	require.NoError(t, err)
	count := 0
	for _, request := range all {
		if request.Operation == operation && request.Path == path && request.Error == "" {
			count++
		}
	}
	return count
}

// databaseTemplate writes what opens a session.
const databaseTemplate = `{{ with secret "database/creds/app" }}{{ .Data.username }} {{ .Data.password }}{{ end }}`

// startDatabase has the fixture's Vault make roles in a PostgreSQL, which keeps
// books of them: when each ends, and how many there have been.
func startDatabase(t *testing.T, f *lastingFixture, ttl, maxTTL time.Duration) *postgres.Server {
	t.Helper()
	database := postgres.ForTest(t)
	execute(t, database, `CREATE TABLE made (name text)`)
	f.Write(t, "sys/mounts/database", map[string]any{"type": "database"})
	f.Write(t, "database/config/app", map[string]any{
		"plugin_name": vaultserver.PostgresPlugin, "connection_url": database.DSN("{{username}}", "{{password}}"),
		"username": postgres.Admin, "password": postgres.AdminPassword, "allowed_roles": "*",
	})
	f.Write(t, "database/roles/app", map[string]any{
		"db_name": "app", "default_ttl": ttl.String(), "max_ttl": maxTTL.String(),
		"creation_statements": []string{
			`CREATE ROLE "{{name}}" LOGIN PASSWORD '{{password}}' VALID UNTIL '{{expiration}}'`,
			`INSERT INTO made VALUES ('{{name}}')`,
		},
		"renew_statements": []string{`ALTER ROLE "{{name}}" VALID UNTIL '{{expiration}}'`},
	})
	f.role(t, "database", `
		path "database/creds/app" { capabilities = ["read"] }
		path "database/static-creds/fixed" { capabilities = ["read"] }
		path "internal/data/database/config" { capabilities = ["read"] }`, nil)
	return database
}

func execute(t *testing.T, database *postgres.Server, statement string) {
	t.Helper()
	session := openSession(t, database)
	defer session.Close(t.Context())
	if _, err := session.Exec(t.Context(), statement); err != nil {
		t.Fatal(err)
	}
}

func openSession(t *testing.T, database *postgres.Server) *pgx.Conn {
	t.Helper()
	session, err := pgx.Connect(t.Context(), database.DSN(postgres.Admin, postgres.AdminPassword))
	require.NoError(t, err)
	return session
}

// count runs a query whose result is one number.
func count(t *testing.T, database *postgres.Server, query string) int {
	t.Helper()
	session := openSession(t, database)
	defer session.Close(t.Context())
	var number int
	require.NoError(t, session.QueryRow(t.Context(), query).Scan(&number))
	return number
}

func rolesMade(t *testing.T, database *postgres.Server) int {
	t.Helper()
	return count(t, database, `SELECT count(*) FROM made`)
}

func rolesThere(t *testing.T, database *postgres.Server) int {
	t.Helper()
	return count(t, database, `SELECT count(*) FROM pg_roles JOIN made ON rolname = name`)
}

// application opens a session with the credentials in a file, over and over, as a
// program does that connects again.
type application struct {
	database *postgres.Server
	file     string

	mutex    sync.Mutex
	sessions int
	// slowest is the longest time between two looks.
	slowest time.Duration
	// after counts sessions that failed after the end of their lease.
	after int
	// gaps are sessions that failed before it.
	gaps []string
}

// start runs the application until the function that it returns is called.
func (a *application) start(t *testing.T) (stop func()) {
	t.Helper()
	books := openSession(t, a.database)
	ctx, cancel := context.WithCancel(t.Context())
	var ended sync.WaitGroup
	ended.Go(func() {
		a.run(ctx, books)
	})
	return sync.OnceFunc(func() {
		cancel()
		ended.Wait()
		books.Close(context.Background())
	})
}

func (a *application) run(ctx context.Context, books *pgx.Conn) {
	ends := map[string]time.Time{}
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for last := time.Now(); ; {
		err := a.connect(ctx, books, ends)
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		now := time.Now()
		a.note(err, now.Sub(last))
		last = now
	}
}

// margin is by how much Vault has a role in a database outlast its lease.
const margin = 5 * time.Second

// errEnded is a lease that has ended.
var errEnded = errors.New("the lease has ended")

func (a *application) note(err error, since time.Duration) {
	a.mutex.Lock()
	defer a.mutex.Unlock()
	a.slowest = max(a.slowest, since)
	switch {
	case err == nil:
		a.sessions++
	case errors.Is(err, errEnded):
		a.after++
	default:
		a.gaps = append(a.gaps, time.Now().Format(time.TimeOnly)+" "+err.Error())
	}
}

// connect opens a session with what the file holds. If it fails, and the file has
// changed meanwhile, it is the new content that counts.
func (a *application) connect(ctx context.Context, books *pgx.Conn, ends map[string]time.Time) error {
	content, err := os.ReadFile(a.file)
	if err != nil {
		return err
	}
	for {
		user, password, _ := strings.Cut(string(content), " ")
		var end time.Time
		if err := books.QueryRow(ctx, `SELECT rolvaliduntil FROM pg_roles WHERE rolname = $1`, user).Scan(&end); err == nil {
			ends[user] = end.Add(-margin)
		}
		err := a.database.Ping(ctx, user, password)
		if err == nil {
			return nil
		}
		again, readErr := os.ReadFile(a.file)
		if readErr != nil {
			return readErr
		}
		if string(again) != string(content) {
			content = again
			continue
		}
		if end, known := ends[user]; known && time.Now().After(end) {
			return fmt.Errorf("%w: %w", errEnded, err)
		}
		return fmt.Errorf("role %s, whose lease lasts until %s: %w", user, ends[user].Format(time.TimeOnly), err)
	}
}

// standstill is longer than a machine that gives its processes their turns keeps one
// waiting. What runs out in a few seconds may have run out then, whatever the
// driver does.
const standstill = 2 * time.Second

// requireNoGap accepts sessions that failed after the end of a lease only where
// leases must have ended.
func (a *application) requireNoGap(t *testing.T, leasesEnd bool) {
	t.Helper()
	a.mutex.Lock()
	defer a.mutex.Unlock()
	t.Logf("%d sessions, %d failed after the end of a lease, %d before; at most %s between two", a.sessions, a.after, len(a.gaps), a.slowest.Round(time.Millisecond))
	if a.after > 0 && !leasesEnd && a.slowest < standstill {
		t.Errorf("%d sessions failed after the end of a lease that should have been renewed or replaced", a.after)
	}
	for _, gap := range a.gaps {
		t.Errorf("a gap: %s", gap)
	}
	if a.sessions == 0 {
		t.Error("no session was opened at all")
	}
}

// A static role keeps its name, and Vault changes its password at times of its own,
// which it tells. The file follows each change by itself.
func TestStaticRoleFollowsItsRotation(t *testing.T) {
	t.Parallel()
	fixture := startLastingVault(t)
	database := startDatabase(t, fixture, leaseTTL, leaseMaxTTL)
	execute(t, database, `CREATE ROLE app LOGIN`)
	fixture.Write(t, "database/static-roles/fixed", map[string]any{"db_name": "app", "username": "app", "rotation_period": "5s"})
	n := startNode(t, fixture.Server.Address, fixture.Vault)
	request := n.request(t, "app", map[string]string{
		"role": "database", "template/credentials": strings.ReplaceAll(databaseTemplate, "database/creds/app", "database/static-creds/fixed"),
	})
	n.mustPublish(t, request)
	used := map[string]bool{}
	rig.Eventually(t, "two passwords of the file have opened a session", func() bool {
		user, secret, _ := strings.Cut(mustRead(t, rig.VolumeFile(request, "credentials")), " ")
		if !used[secret] && database.Ping(t.Context(), user, secret) == nil {
			used[secret] = true
		}
		return len(used) >= 2
	})
	n.logs.requireNone(t, slices.Collect(maps.Keys(used))...)
}
