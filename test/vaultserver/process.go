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
	address, err := freeAddress()
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "vault-*")
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	s := &Server{Address: "http://" + address, Token: rootToken, dir: dir, cancel: cancel, exited: make(chan struct{})}
	cmd := s.command(ctx, program, address)
	if tls != nil {
		if err := s.addListener(cmd, *tls); err != nil {
			cancel()
			return nil, errors.Join(err, os.RemoveAll(dir))
		}
	}
	started := make(chan error)
	go s.run(cmd, started)
	if err := <-started; err != nil {
		return nil, errors.Join(err, s.Stop())
	}
	return s, nil
}

// freeAddress picks a port nobody listens on. Vault cannot tell which port it
// got, so that it cannot be left to choose one.
func freeAddress() (string, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	return listener.Addr().String(), listener.Close()
}

func (s *Server) command(ctx context.Context, program, address string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, program, "server", "-dev",
		"-dev-root-token-id="+s.Token,
		"-dev-listen-address="+address,
		"-dev-no-store-token", // which would overwrite the user's own
	)
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
func (s *Server) addListener(cmd *exec.Cmd, tls TLS) error {
	address, err := freeAddress()
	if err != nil {
		return err
	}
	config := fmt.Sprintf("listener \"tcp\" {\n address = %q\n tls_cert_file = %q\n tls_key_file = %q\n", address, tls.Certificate, tls.Key)
	if tls.ClientCA != "" {
		config += fmt.Sprintf(" tls_require_and_verify_client_cert = \"true\"\n tls_client_ca_file = %q\n", tls.ClientCA)
	}
	path := filepath.Join(s.dir, "listener.hcl")
	if err := os.WriteFile(path, []byte(config+"}\n"), 0o600); err != nil {
		return err
	}
	cmd.Args = append(cmd.Args, "-config="+path)
	s.TLSAddress = "https://" + address
	return nil
}

// run owns the process. It keeps to one thread as long as the process runs: the
// kernel sends Pdeathsig when the thread that started it ends.
func (s *Server) run(cmd *exec.Cmd, started chan<- error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	defer close(s.exited)
	log, err := os.Create(s.logPath())
	if err != nil {
		started <- err
		return
	}
	defer log.Close()
	cmd.Stdout, cmd.Stderr = log, log
	err = cmd.Start()
	started <- err
	if err == nil {
		s.err = cmd.Wait()
	}
}

// awaitReady polls until the server is unsealed and active, which dev mode makes
// it by itself.
func (s *Server) awaitReady(ctx context.Context) error {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		last := s.health(ctx)
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
