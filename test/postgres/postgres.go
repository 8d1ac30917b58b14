// Package postgres runs a real PostgreSQL server for one test, on a unix socket of
// its own, with passwords that are checked. It keeps nothing when the server has
// stopped.
package postgres

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/vaultmount/vaultmount/test/parts"
)

// Admin may do everything.
const (
	Admin         = "postgres"
	AdminPassword = "admin-password"
)

// serverID is who the server takes itself for: it refuses to run as root.
const serverID = 1000

// Server is a running PostgreSQL server.
type Server struct {
	directory string // of the data, the socket and the log
	part      parts.Postgres
	cancel    context.CancelFunc
	exited    chan struct{}
	err       error // how the server ended; valid once exited is closed
}

// ForTest starts a server that stops with the test, and shows the server's log
// if the test fails.
func ForTest(t testing.TB) *Server {
	t.Helper()
	part, err := parts.PostgreSQL(t.Context(), os.Stderr)
	require.NoError(t, err)
	s, err := start(t.Context(), part)
	require.NoError(t, err)
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("log of the PostgreSQL server:\n%s", s.log())
		}
		if err := s.stop(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// DSN is for opening a session, in the form key=value.
func (s *Server) DSN(user, password string) string {
	return fmt.Sprintf("host=%s user=%s password=%s dbname=postgres", s.directory, user, password)
}

func start(ctx context.Context, part parts.Postgres) (*Server, error) {
	directory, err := os.MkdirTemp("", "postgres-*")
	if err != nil {
		return nil, err
	}
	running, cancel := context.WithCancel(context.Background())
	s := &Server{directory: directory, part: part, cancel: cancel, exited: make(chan struct{})}
	if err := s.initialize(ctx); err != nil {
		cancel()
		return nil, errors.Join(fmt.Errorf("make a PostgreSQL database: %w", err), os.RemoveAll(directory))
	}
	started := make(chan error)
	go s.run(running, started)
	if err := <-started; err != nil {
		return nil, errors.Join(fmt.Errorf("start PostgreSQL: %w", err), s.stop())
	}
	if err := s.awaitReady(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("start PostgreSQL: %w; its log:\n%s", err, s.log()), s.stop())
	}
	return s, nil
}

func (s *Server) initialize(ctx context.Context) error {
	password := filepath.Join(s.directory, "password")
	if err := os.WriteFile(password, []byte(AdminPassword), 0o600); err != nil {
		return err
	}
	runtime.LockOSThread() // see run
	defer runtime.UnlockOSThread()
	text, err := s.command(ctx, "initdb", "--pgdata="+s.data(), "--username="+Admin, "--pwfile="+password,
		"--auth=scram-sha-256", "--no-locale", "--encoding=UTF8", "--no-sync").CombinedOutput()
	if err != nil {
		return fmt.Errorf("%w\n%s", err, text)
	}
	return nil
}

// command runs a program of the server in a user namespace, where the caller has
// another id but the same rights to files.
func (s *Server) command(ctx context.Context, name string, arguments ...string) *exec.Cmd {
	command := exec.CommandContext(ctx, filepath.Join(s.part.Bin, name), arguments...)
	command.Dir = s.directory
	command.Env = []string{"PATH=" + os.Getenv("PATH"), "LD_LIBRARY_PATH=" + s.part.Libraries, "LC_ALL=C", "TZ=UTC"}
	command.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  syscall.CLONE_NEWUSER,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: serverID, HostID: os.Getuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: serverID, HostID: os.Getgid(), Size: 1}},
		// Whatever ends this process ends the server.
		Pdeathsig: unix.SIGQUIT,
	}
	return command
}

func (s *Server) data() string    { return filepath.Join(s.directory, "data") }
func (s *Server) logPath() string { return filepath.Join(s.directory, "postgres.log") }

// run owns the process. It keeps to one thread as long as the process runs: the
// kernel sends Pdeathsig when the thread that started it ends.
func (s *Server) run(ctx context.Context, started chan<- error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	defer close(s.exited)
	log, err := os.Create(s.logPath())
	if err != nil {
		started <- err
		return
	}
	defer log.Close()
	// A session on a socket of its own needs no port that another might take. The
	// compiler of queries is not among the packages.
	command := s.command(ctx, "postgres", "-D", s.data(), "-k", s.directory, "-c", "listen_addresses=", "-c", "jit=off",
		"-c", "fsync=off", "-c", "synchronous_commit=off", "-c", "full_page_writes=off", "-c", "log_connections=on")
	// An immediate end, of the children too, without a shutdown that waits for
	// sessions.
	command.Cancel = func() error { return command.Process.Signal(unix.SIGQUIT) }
	command.Stdout, command.Stderr = log, log
	err = command.Start()
	started <- err
	if err == nil {
		s.err = command.Wait()
	}
}

// awaitReady polls until the server takes a session.
func (s *Server) awaitReady(ctx context.Context) error {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		last := s.Ping(ctx, Admin, AdminPassword)
		if last == nil {
			return nil
		}
		select {
		case <-s.exited:
			return fmt.Errorf("it ended: %w", s.err)
		case <-ctx.Done():
			return fmt.Errorf("%w (%w)", ctx.Err(), last)
		case <-tick.C:
		}
	}
}

// Ping opens a session and ends it.
func (s *Server) Ping(ctx context.Context, user, password string) error {
	session, err := pgx.Connect(ctx, s.DSN(user, password))
	if err != nil {
		return err
	}
	return session.Close(ctx)
}

func (s *Server) log() string {
	content, err := os.ReadFile(s.logPath())
	if err != nil {
		return err.Error()
	}
	return string(content)
}

func (s *Server) stop() error {
	s.cancel()
	<-s.exited
	return os.RemoveAll(s.directory)
}
