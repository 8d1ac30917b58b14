package kubeletplugin

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/types/known/wrapperspb"
	"k8s.io/klog/v2/textlogger"
	registration "k8s.io/kubelet/pkg/apis/pluginregistration/v1"
)

// newNode makes a kubelet's root directory. Its name is short: paths of sockets hold
// 107 bytes, and t.TempDir's hold the name of the test.
func newNode(t *testing.T) Config {
	t.Helper()
	root, err := os.MkdirTemp("", "node")
	must(t, err)
	t.Cleanup(func() { _ = os.RemoveAll(root) })
	must(t, os.Mkdir(filepath.Join(root, "plugins_registry"), 0o700))
	return Config{Name: "csi.vaultmount.dev", KubeletRoot: root}
}

// instance is a plugin with a CSI server of one method.
type instance struct {
	*Plugin
	csi.UnimplementedIdentityServer

	server *grpc.Server
}

func (*instance) Probe(context.Context, *csi.ProbeRequest) (*csi.ProbeResponse, error) {
	return &csi.ProbeResponse{Ready: wrapperspb.Bool(true)}, nil
}

func newInstance(t *testing.T, config Config) *instance {
	t.Helper()
	i := &instance{Plugin: New(textlogger.NewLogger(textlogger.NewConfig(textlogger.Output(t.Output()))), config), server: grpc.NewServer()}
	csi.RegisterIdentityServer(i.server, i)
	t.Cleanup(i.server.Stop)
	return i
}

// start makes the instance active and registers it.
func (i *instance) start(t *testing.T) {
	t.Helper()
	must(t, i.Activate(t.Context()))
	must(t, i.Serve(i.server.Serve))
	must(t, i.Register())
}

// startStandby returns once the instance waits for the active one.
func (i *instance) startStandby(t *testing.T) (active <-chan error) {
	t.Helper()
	activated := make(chan error, 1)
	go func() { activated <- i.Activate(t.Context()) }()
	eventually(t, "the instance is a ready standby", func() bool { return i.Ready(t.Context()) == nil })
	return activated
}

// stop reports whether the node was handed off.
func (i *instance) stop(t *testing.T) bool {
	t.Helper()
	handOff, err := i.BeginStop()
	must(t, err)
	i.server.GracefulStop()
	must(t, i.Stop(handOff))
	must(t, i.Release())
	return handOff
}

// crash leaves what the kernel leaves of a process that is killed.
func (i *instance) crash() {
	for _, each := range i.sockets {
		_ = each.Close()
	}
	closeFile(i.lock.instance)
}

// notify is the kubelet's last call to a link.
func (i *instance) notify(t *testing.T) {
	t.Helper()
	kubelet := registration.NewRegistrationClient(dial(t, i.onlyLink(t)))
	info, err := kubelet.GetInfo(t.Context(), &registration.InfoRequest{})
	if err != nil || info.GetEndpoint() != i.config.Endpoint {
		t.Fatalf("the kubelet reads %v, %v", info, err)
	}
	_, err = kubelet.NotifyRegistrationStatus(t.Context(), &registration.RegistrationStatus{PluginRegistered: true})
	must(t, err)
}

func (i *instance) onlyLink(t *testing.T) string {
	t.Helper()
	links, err := i.config.links()
	if err != nil || len(links) != 1 {
		t.Fatalf("the kubelet finds %q, %v", links, err)
	}
	return links[0]
}

func dial(t *testing.T, socket string) *grpc.ClientConn {
	t.Helper()
	connection, err := grpc.NewClient("unix://"+socket, grpc.WithTransportCredentials(insecure.NewCredentials()))
	must(t, err)
	t.Cleanup(func() { connection.Close() })
	return connection
}

func eventually(t *testing.T, what string, is func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !is(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("it never happens: %s", what)
		}
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// Whether the next instance keeps the link decides whether the kubelet takes the driver off
// the node, and whether it ever calls the next instance.
func TestHandOffOfTheRegistration(t *testing.T) {
	t.Parallel()
	handOff := func(t *testing.T, i *instance) {
		if !i.stop(t) {
			t.Error("the node is not handed off")
		}
	}
	for name, test := range map[string]struct {
		registered bool // the kubelet knows the instance before
		standby    bool // the next one waits for it
		end        func(*testing.T, *instance)
		keeps      bool
	}{
		"to a standby":                             {true, true, handOff, true},
		"to a standby, before the kubelet came":    {false, true, handOff, false},
		"to a standby, by a crash":                 {true, true, func(_ *testing.T, i *instance) { i.crash() }, true},
		"no standby, by a crash or after a reboot": {true, false, func(_ *testing.T, i *instance) { i.crash() }, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			config := newNode(t)
			before, next := newInstance(t, config), newInstance(t, config)
			before.start(t)
			link := before.onlyLink(t)
			if test.registered {
				before.notify(t)
				must(t, before.Ready(t.Context()))
			}
			if test.standby {
				activated := next.startStandby(t)
				if next.IsRegistered() || next.Alive(t.Context()) != nil {
					t.Errorf("a standby is registered: %t, and alive: %v", next.IsRegistered(), next.Alive(t.Context()))
				}
				test.end(t, before)
				must(t, <-activated)
				must(t, next.Serve(next.server.Serve))
				must(t, next.Register())
			} else {
				test.end(t, before)
				next.start(t)
			}
			if kept := next.onlyLink(t) == link; kept != test.keeps || next.IsRegistered() != test.keeps {
				t.Errorf("the link is kept: %t, and the driver registered: %t; want %t", kept, next.IsRegistered(), test.keeps)
			}
			must(t, next.Alive(t.Context()))
			next.notify(t)
			must(t, next.Ready(t.Context()))
			if next.stop(t) {
				t.Error("it hands off to nobody")
			}
		})
	}
}

// Without a standby, nothing is left on the node.
func TestStopLeavesNothing(t *testing.T) {
	t.Parallel()
	i := newInstance(t, newNode(t))
	i.start(t)
	if i.stop(t) {
		t.Error("it hands off to nobody")
	}
	for _, directory := range []string{i.config.directory(), i.config.registry()} {
		if entries, err := os.ReadDir(directory); err != nil || len(entries) > 0 {
			t.Errorf("%s holds %v, %v", directory, entries, err)
		}
	}
}

// A standby that is told to stop does so, and the active instance does not wait for it.
func TestStandbyIsStopped(t *testing.T) {
	t.Parallel()
	config := newNode(t)
	active, next := newInstance(t, config), newInstance(t, config)
	active.start(t)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- next.Activate(ctx) }()
	eventually(t, "the instance is a standby", func() bool { return next.Ready(t.Context()) == nil })
	cancel()
	if err := <-ended; err == nil {
		t.Error("it is active")
	}
	if active.stop(t) {
		t.Error("the node is handed off to a standby that is gone")
	}
}

// Instances come and go at any time: one is active at a time, and the last leaves nothing.
func TestOneInstanceIsActive(t *testing.T) {
	t.Parallel()
	directory := t.TempDir()
	var active atomic.Int32
	var group sync.WaitGroup
	for range 8 {
		group.Go(func() {
			for range 8 {
				lock, err := acquire(t.Context(), directory, func() {})
				if err != nil || active.Add(1) != 1 {
					t.Errorf("%d instances are active; %v", active.Load(), err)
					return
				}
				_, err = lock.hasStandby()
				active.Add(-1)
				if err := lock.Release(); err != nil {
					t.Error(err)
				}
				if err != nil {
					t.Error(err)
				}
			}
		})
	}
	group.Wait()
	lock, err := acquire(t.Context(), directory, func() { t.Error("another instance is active") })
	must(t, err)
	if is, err := lock.hasStandby(); is || err != nil {
		t.Errorf("a standby is left: %t, %v", is, err)
	}
	must(t, lock.Release())
	if entries, err := os.ReadDir(directory); err != nil || len(entries) > 0 {
		t.Errorf("the directory holds %v, %v", entries, err)
	}
}

// Where somebody removes what the kubelet finds the driver by, nothing but a restart makes
// it again: the instance is not alive.
func TestInstanceThatTheKubeletCannotFindIsNotAlive(t *testing.T) {
	t.Parallel()
	remove := func(path func(*testing.T, *instance) string) func(*testing.T, *instance) {
		return func(t *testing.T, i *instance) { must(t, os.Remove(path(t, i))) }
	}
	for name, test := range map[string]struct {
		change func(*testing.T, *instance)
		want   string
	}{
		"the link":                        {remove(func(t *testing.T, i *instance) string { return i.onlyLink(t) }), "was removed"},
		"the kubelet's directory":         {func(t *testing.T, i *instance) { must(t, os.RemoveAll(i.config.registry())) }, "was removed"},
		"the socket of the registration":  {remove(func(_ *testing.T, i *instance) string { return i.config.registrationSocket() }), "reg.sock was removed or replaced"},
		"the socket of CSI":               {remove(func(_ *testing.T, i *instance) string { return i.config.Endpoint }), "csi.sock was removed or replaced"},
		"the socket of CSI, by a new one": {func(t *testing.T, i *instance) { rebind(t, i.config.Endpoint) }, "csi.sock was removed or replaced"},
		"a server that does not answer":   {func(_ *testing.T, i *instance) { i.server.Stop() }, "probe the driver"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			i := newInstance(t, newNode(t))
			i.start(t)
			i.notify(t)
			must(t, i.Alive(t.Context()))
			test.change(t, i)
			if err := i.Alive(t.Context()); err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("it is alive: %v, want %q", err, test.want)
			}
			if i.IsRegistered() && strings.HasSuffix(test.want, "was removed") {
				t.Error("it is registered")
			}
			i.stop(t)
		})
	}
}

func rebind(t *testing.T, path string) {
	t.Helper()
	other, err := listen(path)
	must(t, err)
	t.Cleanup(func() { other.Close() })
}

func TestDirectoryOfTheEndpointIsMade(t *testing.T) {
	t.Parallel()
	config := newNode(t)
	config.Endpoint = filepath.Join(config.KubeletRoot, "else", "where", "csi.sock")
	i := newInstance(t, config)
	i.start(t)
	must(t, probe(t.Context(), config.Endpoint))
	if info, err := os.Stat(filepath.Dir(config.Endpoint)); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("its directory is open to others: %v, %v", info.Mode(), err)
	}
	i.stop(t)
}

// The paths of the registration are no patterns.
func TestRegistrationBelowAnyPath(t *testing.T) {
	t.Parallel()
	config := newNode(t)
	config.KubeletRoot = filepath.Join(config.KubeletRoot, "[a-]*")
	must(t, os.MkdirAll(config.registry(), 0o700))
	must(t, os.Symlink("nowhere", filepath.Join(config.registry(), config.Name+"-reg-old.sock")))
	i := newInstance(t, config)
	i.start(t)
	if link := i.onlyLink(t); strings.Contains(link, "old") {
		t.Error("the link of before is still there")
	}
	i.stop(t)
}

func TestSocketPathsAreLimited(t *testing.T) {
	t.Parallel()
	config := newNode(t)
	config.KubeletRoot = filepath.Join(config.KubeletRoot, strings.Repeat("x", 90))
	i := newInstance(t, config)
	must(t, i.Activate(t.Context()))
	if err := i.Serve(i.server.Serve); err == nil || !strings.Contains(err.Error(), "a socket path has at most 106 bytes; shorten --kubelet-root") {
		t.Errorf("got %v", err)
	}
	must(t, i.Release())
}
