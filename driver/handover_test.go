package driver

import (
	"testing"

	"google.golang.org/grpc"
	registration "k8s.io/kubelet/pkg/apis/pluginregistration/v1"
)

// A process that takes over is ready once the kubelet has registered the driver. The
// kubelet tells that once for each link: who does not hear it from the process before
// makes a new one.
func TestTakeOverIsRegistered(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name   string
		before func(*testing.T, *Plugin) (late func())
		want   bool // it is registered at once, by the link that is there
	}{
		{"the kubelet has registered the driver", func(t *testing.T, before *Plugin) func() {
			run(t, before)
			notify(t, dial(t, link(t, before)))
			return func() {}
		}, true},
		{"the kubelet is about to, and tells the process before", func(t *testing.T, before *Plugin) func() {
			run(t, before)
			kubelet := dial(t, link(t, before))
			getRegistrationInfo(t, kubelet)
			return func() { notify(t, kubelet) }
		}, false},
		{"the process before dies in the hand-over", func(t *testing.T, before *Plugin) func() {
			die(t, before)
			return func() {}
		}, false},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			config := newNode(t)
			before, next := newProcess(t, config), newProcess(t, config)
			late := test.before(t, before)
			announced := link(t, before)
			run(t, next)
			awaitAnnounced(t, next, announced, test.want)
			late()
			if err := next.Ready(t.Context()); (err == nil) != test.want {
				t.Errorf("before any notice of the kubelet: %v", err)
			}
			notify(t, dial(t, link(t, next)))
			if err := next.Ready(t.Context()); err != nil {
				t.Errorf("after the notice: %v", err)
			}
		})
	}
}

// A process that takes the volumes back may have missed what the kubelet told the one
// that had taken them over.
func TestTakingBackIsRegistered(t *testing.T) {
	t.Parallel()
	for name, registered := range map[string]bool{"the kubelet had registered the driver": true, "it had not, as far as is known": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := newProcess(t, newNode(t))
			run(t, p)
			announced := link(t, p)
			if registered {
				notify(t, dial(t, announced))
			}
			next, err := findPredecessor(p.registrationSocket())
			if err != nil {
				t.Fatal(err)
			}
			if is, err := next.take(t.Context()); err != nil || is != registered {
				t.Errorf("the next process hears %t, %v", is, err)
			}
			next.close()
			eventually(t, "the volumes are taken back", func() bool { return p.current() != nil })
			awaitAnnounced(t, p, announced, registered)
		})
	}
}

// die plays a process that is announced, and that ends when the next one asks it for
// the volumes.
func die(t *testing.T, p *Plugin) {
	t.Helper()
	socket, err := listen(p.registrationSocket())
	if err != nil {
		t.Fatal(err)
	}
	if err := p.announce(); err != nil {
		t.Fatal(err)
	}
	go func() {
		connection, err := socket.Accept()
		socket.Close()
		if err == nil {
			connection.Close()
		}
	}()
	t.Cleanup(func() { socket.Close() })
}

// awaitAnnounced waits for a process to be registered by the link of before, or to be
// announced by another, and not ready before the kubelet's notice.
func awaitAnnounced(t *testing.T, p *Plugin, before string, registered bool) {
	t.Helper()
	eventually(t, "it is registered by the same link, or announced by another", func() bool {
		links, err := p.announcements()
		return err == nil && len(links) == 1 && (links[0] == before) == registered && (p.Ready(t.Context()) == nil) == registered
	})
}

// getRegistrationInfo is the kubelet's first call to a link.
func getRegistrationInfo(t *testing.T, kubelet *grpc.ClientConn) {
	t.Helper()
	if _, err := registration.NewRegistrationClient(kubelet).GetInfo(t.Context(), &registration.InfoRequest{}); err != nil {
		t.Fatal(err)
	}
}

// notify is the kubelet's last call to a link.
func notify(t *testing.T, kubelet *grpc.ClientConn) {
	t.Helper()
	if _, err := registration.NewRegistrationClient(kubelet).NotifyRegistrationStatus(t.Context(), &registration.RegistrationStatus{PluginRegistered: true}); err != nil {
		t.Fatal(err)
	}
}
