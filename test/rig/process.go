package rig

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"runtime"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials/insecure"
)

// Process is the program as a process of its own, at its highest verbosity.
type Process struct {
	*exec.Cmd
	Log *Log // shown when the test fails
}

// Again starts the program once more, after its end. The log goes on.
func (p *Process) Again(t testing.TB) *Process {
	t.Helper()
	return run(t, p.Log, p.Args)
}

// StartProcess runs the program as the DaemonSet does, in an environment that
// would lead the Vault client astray. It ends with the test at the latest.
func StartProcess(t testing.TB, kubelet *Kubelet, address string, arguments ...string) *Process {
	t.Helper()
	return StartProgram(t, Program(t), kubelet, address, arguments...)
}

// StartProgram is StartProcess for another build of the program.
func StartProgram(t testing.TB, program string, kubelet *Kubelet, address string, arguments ...string) *Process {
	t.Helper()
	return run(t, newLog(t, "driver"), driverCommand(program, kubelet, address, arguments))
}

func driverCommand(program string, kubelet *Kubelet, address string, arguments []string) []string {
	return append([]string{program, "driver", "--vault-address=" + address, "--kubelet-root=" + kubelet.Root, "--metrics-bind-address=127.0.0.1:0", "--verbosity=10"}, arguments...)
}

// newLog holds no secret at the end of the test, and is shown when the test fails.
func newLog(t testing.TB, of string) *Log {
	t.Helper()
	log := &Log{}
	t.Cleanup(func() {
		RequireNoSecretIn(t, of, log)
		if t.Failed() {
			t.Logf("log of the %s:\n%s", of, log)
		}
	})
	return log
}

func run(t testing.TB, log *Log, arguments []string) *Process {
	t.Helper()
	p := &Process{Cmd: exec.Command(arguments[0], arguments[1:]...), Log: log}
	p.Env = append(os.Environ(), "NODE_NAME=node-1", "VAULT_ADDR=http://127.0.0.1:1", "VAULT_TOKEN=canary", "VAULT_NAMESPACE=canary", "VAULT_MAX_RETRIES=none")
	p.Stderr = log
	p.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: unix.SIGKILL}
	started, ended := make(chan error), make(chan struct{})
	go func() {
		// The kernel sends Pdeathsig when the thread ends that started the process, and
		// threads of workers in the test's own process end.
		runtime.LockOSThread()
		started <- p.Start()
		<-ended
	}()
	must(t, <-started)
	t.Cleanup(func() {
		defer close(ended)
		if p.ProcessState == nil {
			_ = p.Process.Kill()
			_ = p.Wait()
		}
	})
	return p
}

// Kill ends the driver as the kernel does when memory runs out.
func (p *Process) Kill(t testing.TB) {
	t.Helper()
	if err := p.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = p.Wait() // killed
}

// Stop ends the driver as the kubelet ends its pod.
func (p *Process) Stop(t testing.TB) {
	t.Helper()
	if err := p.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := p.Wait(); err != nil {
		t.Errorf("after SIGTERM the program ends with %v", err)
	}
}

// Calls are the kubelet's to a driver's socket. Each connects for itself, as the
// kubelet does, and waits for a driver that is not there yet: a connection from
// before a kill may not have noticed that its other end is dead.
func Calls(socket string) csi.NodeClient { return csi.NewNodeClient(reconnecting{socket}) }

type reconnecting struct{ socket string }

// Invoke implements grpc.ClientConnInterface.
func (r reconnecting) Invoke(ctx context.Context, method string, arguments, reply any, options ...grpc.CallOption) error {
	// A driver is back within milliseconds; by default the next look is after a second.
	// On a busy machine, one that is there takes longer than that to greet.
	soon := grpc.ConnectParams{
		Backoff:           backoff.Config{BaseDelay: 5 * time.Millisecond, Multiplier: 1.2, MaxDelay: 50 * time.Millisecond},
		MinConnectTimeout: waitTimeout,
	}
	connection, err := grpc.NewClient("unix://"+r.socket, grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithConnectParams(soon))
	if err != nil {
		return err
	}
	defer connection.Close()
	return connection.Invoke(ctx, method, arguments, reply, append(options, grpc.WaitForReady(true))...)
}

// NewStream implements grpc.ClientConnInterface.
func (reconnecting) NewStream(context.Context, *grpc.StreamDesc, string, ...grpc.CallOption) (grpc.ClientStream, error) {
	return nil, errors.New("CSI has no streams")
}

// Log collects what a driver logs while it runs.
type Log struct {
	mutex sync.Mutex
	text  bytes.Buffer
}

// Write implements io.Writer.
func (l *Log) Write(p []byte) (int, error) {
	l.mutex.Lock()
	defer l.mutex.Unlock()
	return l.text.Write(p)
}

// String is all that was logged so far.
func (l *Log) String() string {
	l.mutex.Lock()
	defer l.mutex.Unlock()
	return l.text.String()
}
