package vaultserver

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

func launch(program string, tls *TLS) (*Server, error) {
	address, err := freeAddress("127.0.0.1")
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "vault-*")
	if err != nil {
		return nil, err
	}
	s := &Server{Address: "http://" + address, Token: rootToken, dir: dir}
	arguments := []string{
		"-dev", "-dev-root-token-id=" + s.Token,
		"-dev-listen-address=" + address,
		"-dev-no-store-token", // which would overwrite the user's own
	}
	if tls != nil {
		listener, err := s.addListener(*tls)
		if err != nil {
			return nil, errors.Join(err, os.RemoveAll(dir))
		}
		arguments = append(arguments, listener)
	}
	if err := s.start(program, arguments...); err != nil {
		return nil, errors.Join(err, s.Stop())
	}
	return s, nil
}

// start runs the server's process, which s.end ends.
func (s *Server) start(program string, arguments ...string) error {
	ctx, cancel := context.WithCancel(context.Background())
	s.process = &process{cancel: cancel, exited: make(chan struct{})}
	started := make(chan error)
	s.process.cmd = s.command(ctx, program, arguments)
	go s.process.run(s.process.cmd, s.logPath(), started)
	return <-started
}

// process is a running Vault.
type process struct {
	cancel context.CancelFunc
	exited chan struct{}
	cmd    *exec.Cmd
	err    error // how it ended; valid once exited is closed
}

// Pause stops the server in its tracks: it still takes connections, and answers
// nothing until Continue.
func (s *Server) Pause() error { return s.process.cmd.Process.Signal(unix.SIGSTOP) }

// Continue ends a Pause.
func (s *Server) Continue() error { return s.process.cmd.Process.Signal(unix.SIGCONT) }

func (p *process) end() {
	p.cancel()
	<-p.exited
}

// freeAddress picks a port of a host that nobody listens on. Vault cannot tell which port it
// got, so that it cannot be left to choose one.
func freeAddress(host string) (string, error) {
	listener, err := net.Listen("tcp", host+":0")
	if err != nil {
		return "", err
	}
	return listener.Addr().String(), listener.Close()
}

func (s *Server) command(ctx context.Context, program string, arguments []string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, program, append([]string{"server"}, arguments...)...)
	cmd.Dir = s.dir
	for _, variable := range os.Environ() {
		if !strings.HasPrefix(variable, "VAULT_") {
			cmd.Env = append(cmd.Env, variable)
		}
	}
	cmd.Env = append(cmd.Env, "HOME="+s.dir)
	// Whatever ends this process ends the server.
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: unix.SIGKILL}
	return cmd
}

// addListener configures a second listener, which dev mode itself has only with
// certificates of its own making.
func (s *Server) addListener(tls TLS) (argument string, err error) {
	address, err := freeAddress("127.0.0.1")
	if err != nil {
		return "", err
	}
	config := fmt.Sprintf("listener \"tcp\" {\n address = %q\n tls_cert_file = %q\n tls_key_file = %q\n", address, tls.Certificate, tls.Key)
	if tls.ClientCA != "" {
		config += fmt.Sprintf(" tls_require_and_verify_client_cert = \"true\"\n tls_client_ca_file = %q\n", tls.ClientCA)
	}
	path := filepath.Join(s.dir, "listener.hcl")
	if err := os.WriteFile(path, []byte(config+"}\n"), 0o600); err != nil {
		return "", err
	}
	s.TLSAddress = "https://" + address
	return "-config=" + path, nil
}

// run owns the process. It keeps to one thread as long as the process runs: the
// kernel sends Pdeathsig when the thread that started it ends.
func (p *process) run(cmd *exec.Cmd, logPath string, started chan<- error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	defer close(p.exited)
	log, err := os.OpenFile(logPath, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		started <- err
		return
	}
	defer log.Close()
	cmd.Stdout, cmd.Stderr = log, log
	err = cmd.Start()
	started <- err
	if err == nil {
		p.err = cmd.Wait()
	}
}

// awaitReady waits until the server is unsealed and active, which dev mode makes
// it by itself.
func (s *Server) awaitReady(ctx context.Context) error {
	return s.await(ctx, s.health)
}

// await polls until a check says that the server is as it should be.
func (s *Server) await(ctx context.Context, check func(context.Context) error) error {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		last := check(ctx)
		if last == nil {
			return nil
		}
		select {
		case <-s.process.exited:
			return fmt.Errorf("it ended: %w", s.process.err)
		case <-ctx.Done():
			return fmt.Errorf("%w (%w)", ctx.Err(), last)
		case <-tick.C:
		}
	}
}

func (s *Server) health(ctx context.Context) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, s.Address+"/v1/sys/health", nil)
	if err != nil {
		return err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("health: %s", response.Status)
	}
	return nil
}
