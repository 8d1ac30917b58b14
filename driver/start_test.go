package driver

import (
	"context"

	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
	"k8s.io/klog/v2"
)

// Restoring many volumes takes time. Probes are answered meanwhile, or the kubelet would
// kill the process again and again; a call for a volume waits.
func TestProbesAreAnsweredWhileVolumesAreRestored(t *testing.T) {
	t.Parallel()
	config := newNode(t)
	restored := make(chan struct{})
	p := newProcessThat(t, config, func(_ context.Context, locked func() error) (*Charge, error) {
		if err := locked(); err != nil {
			return nil, err
		}
		<-restored
		return newCharge(config)
	})
	ctx, cancel := context.WithCancel(logged(t, t.Context()))
	ended := make(chan error, 1)
	go func() { ended <- p.Run(ctx) }()
	eventually(t, "the process is alive", func() bool { return p.Alive(t.Context()) == nil })
	if p.current() != nil || p.Ready(t.Context()) == nil || !getsInfo(t, p.endpoint) {
		t.Errorf("before the volumes are restored: ready %v", p.Ready(t.Context()))
	}
	if links, err := p.announcements(); err != nil || len(links) > 0 {
		t.Errorf("the kubelet finds %q, %v", links, err)
	}
	call := beginUnpublish(t, config)
	close(restored)
	must(t, call.RecvMsg(&csi.NodeUnpublishVolumeResponse{}))
	cancel()
	must(t, <-ended)
}

// The kubelet learns why, long before it gives up by itself.
func TestCallIsUnavailableWhenRestoringTakesLong(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		config := Config{Name: "csi.vaultmount.dev", NodeName: "node", KubeletRoot: "/var/lib/kubelet", VolumeSize: 1, MaxVolumeSize: 1}
		p, err := NewPlugin(config, "/nowhere", nil, nothing{})
		must(t, err)
		start := time.Now()
		_, err = p.NodeUnpublishVolume(t.Context(), &csi.NodeUnpublishVolumeRequest{})
		if code(err) != codes.Unavailable || time.Since(start) != chargeAfter {
			t.Errorf("after %s: %v", time.Since(start), err)
		}
	})
}

// A process that cannot have all its sockets leaves those of the one before alone.
func TestFailedStartLeavesTheSocketsAlone(t *testing.T) {
	t.Parallel()
	config := newNode(t)
	before := newProcess(t, config)
	run(t, before)
	status := StatusSocket(config.KubeletRoot, config.Name)
	sockets := []string{before.endpoint, before.registrationSocket(), status}
	var files []os.FileInfo
	for _, socket := range sockets {
		file, err := os.Lstat(socket)
		must(t, err)
		files = append(files, file)
	}
	// The name under which it would be bound is taken.
	hidden := filepath.Join(filepath.Dir(status), "."+filepath.Base(status))
	must(t, os.MkdirAll(filepath.Join(hidden, "x"), 0o700))
	next := newProcess(t, config)
	if err := next.Run(logged(t, t.Context())); err == nil {
		t.Error("it starts")
	}
	for i, socket := range sockets {
		file, err := os.Lstat(socket)
		if err != nil || !os.SameFile(file, files[i]) {
			t.Errorf("%s is not that of the process before: %v", socket, err)
		}
	}
	if !getsInfo(t, before.endpoint) {
		t.Error("the process before does not answer")
	}
}

// Whatever takes the CSI socket away, the kubelet finds it at the same path again, by
// the registration that it has.
func TestGuardRestoresTheSocketOfCSI(t *testing.T) {
	t.Parallel()
	remove := func(t *testing.T, path string) { must(t, os.Remove(path)) }
	replace := func(t *testing.T, path string) { // as a process that was killed
		t.Helper()
		remove(t, path)
		listener, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
		must(t, err)
		listener.SetUnlinkOnClose(false)
		must(t, listener.Close())
	}
	for name, change := range map[string]func(*testing.T, string){"it is removed": remove, "it leads to nobody": replace} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p, served := serveRegistered(t)
			announced := link(t, p)
			change(t, p.endpoint)
			g := guard{term: served}
			g.look()
			if !getsInfo(t, p.endpoint) || link(t, p) != announced {
				t.Error("the kubelet does not find the driver")
			}
			must(t, p.Ready(t.Context()))
		})
	}
	t.Run("another process answers there", func(t *testing.T) {
		t.Parallel()
		p, served := serveRegistered(t)
		other, err := listen(p.endpoint)
		must(t, err)
		defer other.Close()
		g := guard{term: served}
		g.look()
		if there, err := os.Lstat(p.endpoint); err != nil || !os.SameFile(there, other.file) {
			t.Errorf("its socket is replaced: %v", err)
		}
	})
}

type stopped struct{ after time.Duration }

func (s stopped) GracefulStop() { time.Sleep(s.after) }

func TestStopIsBounded(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct{ takes, want time.Duration }{
		"calls that finish":               {time.Second, time.Second},
		"calls that end when cancelled":   {replaceAfter + time.Second, replaceAfter + time.Second},
		"a call that hears nothing of it": {time.Hour, replaceAfter + cancelAfter},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				start, cancelled := time.Now(), false
				stopWithin(stopped{test.takes}, replaceAfter, func() { cancelled = true })
				if got := time.Since(start); got != test.want || cancelled != (test.takes > replaceAfter) {
					t.Errorf("it takes %s, and calls are cancelled: %t", got, cancelled)
				}
				time.Sleep(test.takes) // the goroutine that is left behind ends
			})
		})
	}
}

func TestDirectoryOfTheEndpointIsMade(t *testing.T) {
	t.Parallel()
	config := newNode(t)
	p := newProcess(t, config)
	p.endpoint = filepath.Join(config.KubeletRoot, "else", "where", "csi.sock")
	run(t, p)
	if !getsInfo(t, p.endpoint) {
		t.Error("nobody answers there")
	}
	if info, err := os.Stat(filepath.Dir(p.endpoint)); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("its directory is open to others: %v, %v", info.Mode(), err)
	}
}

// The paths of the registration are no patterns.
func TestRegistrationBelowAnyPath(t *testing.T) {
	t.Parallel()
	config := newNode(t)
	root := filepath.Join(config.KubeletRoot, "[a-]*")
	config.KubeletRoot = root
	must(t, os.MkdirAll(filepath.Join(root, "plugins_registry"), 0o700))
	must(t, os.Symlink("nowhere", filepath.Join(root, "plugins_registry", config.Name+"-reg-old.sock")))
	p := newProcess(t, config)
	run(t, p)
	eventually(t, "the link of before is replaced", func() bool {
		links, err := p.announcements()
		return err == nil && len(links) == 1 && !strings.Contains(links[0], "old")
	})
}

func newCharge(config Config) (*Charge, error) {
	mounts, err := NewMounts(klog.Background(), nil, nothing{})
	if err != nil {
		return nil, err
	}
	d, err := New(config, mounts, nothing{})
	return &Charge{Driver: d, Reporter: nothing{}, State: nothing{}, Close: func(context.Context, bool) error { return nil }}, err
}
