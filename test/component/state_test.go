package component

import (
	"errors"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"github.com/stretchr/testify/require"

	"github.com/vaultmount/vaultmount/driver/kubeletplugin"
	"github.com/vaultmount/vaultmount/driver/tmpfs"
	"github.com/vaultmount/vaultmount/provider"
	"github.com/vaultmount/vaultmount/test/rig"
)

// passage is a network path to Vault that can break.
type passage struct {
	address string

	mutex       sync.Mutex
	broken      bool
	connections map[net.Conn]bool
}

func openPassage(t *testing.T, to string) *passage {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	p := &passage{address: "http://" + listener.Addr().String(), connections: map[net.Conn]bool{}}
	var group sync.WaitGroup
	group.Go(func() {
		for {
			near, err := listener.Accept()
			if err != nil {
				return
			}
			group.Go(func() { p.carry(near, strings.TrimPrefix(to, "http://")) })
		}
	})
	t.Cleanup(func() {
		listener.Close()
		p.setBroken(true)
		group.Wait()
	})
	return p
}

// setBroken ends all connections and refuses new ones, or lets them pass again.
func (p *passage) setBroken(broken bool) {
	p.mutex.Lock()
	defer p.mutex.Unlock()
	p.broken = broken
	if broken {
		for connection := range p.connections {
			connection.Close()
		}
	}
}

// enter reports false when the passage is broken.
func (p *passage) enter(near, far net.Conn) bool {
	p.mutex.Lock()
	defer p.mutex.Unlock()
	p.connections[near], p.connections[far] = true, true
	return !p.broken
}

func (p *passage) leave(near, far net.Conn) {
	p.mutex.Lock()
	defer p.mutex.Unlock()
	delete(p.connections, near)
	delete(p.connections, far)
}

// carry serves one connection until either side ends it, or the passage breaks.
func (p *passage) carry(near net.Conn, to string) {
	defer near.Close()
	far, err := net.Dial("tcp", to)
	if err != nil {
		return
	}
	defer far.Close()
	defer p.leave(near, far)
	if !p.enter(near, far) {
		return
	}
	var back sync.WaitGroup
	back.Go(func() {
		_, _ = io.Copy(near, far) // ends when either side is closed
		near.Close()
	})
	_, _ = io.Copy(far, near)
	far.Close()
	back.Wait()
}

// A driver that restarts while Vault cannot be reached goes on with what it has:
// the kubelet is answered, the files stay, and later neither a login nor a read is
// made up for.
func TestRestartWithoutVault(t *testing.T) {
	fixture := rig.StartVault(t)
	way := openPassage(t, fixture.Server.Address)
	n := startNode(t, way.address, fixture)
	request := n.request(t, "survivor", map[string]string{"template/a": passwordTemplate, "token-file": "token"})
	n.mustPublish(t, request)
	token, before := mustRead(t, rig.VolumeFile(request, "token")), identify(t, request.GetTargetPath())

	way.setBroken(true)
	n.stop()
	n.start(t)
	n.mustPublish(t, request)
	if after := identify(t, request.GetTargetPath()); after != before {
		t.Errorf("the volume changed from %+v to %+v", before, after)
	}
	if volumes := n.volumes.Statuses(); len(volumes) != 1 || volumes[0].Err != nil || volumes[0].Pod != "default/survivor" {
		t.Errorf("the driver knows the volumes %+v", volumes)
	}
	way.setBroken(false)
	n.stop()
	n.start(t)
	n.waitIdle(t)
	if got := fixture.PodTokens(t); got != 1 {
		t.Errorf("Vault holds %d tokens of pods, want 1", got)
	}
	n.mustUnpublish(t, request)
	rig.Eventually(t, "the token is revoked", func() bool { return fixture.PodTokens(t) == 0 })
	n.logs.requireNone(t, password, token)
}

// The pod is deleted during an outage, and the driver ends before it is over.
func TestRevocationWaitsForVaultAndOutlivesTheDriver(t *testing.T) {
	fixture := rig.StartVault(t)
	way := openPassage(t, fixture.Server.Address)
	n := startNode(t, way.address, fixture)
	request := n.request(t, "leaving", map[string]string{"template/a": passwordTemplate})
	n.mustPublish(t, request)
	way.setBroken(true)
	n.mustUnpublish(t, request)
	rig.RequireNothing(t, request.GetTargetPath())
	n.stop()
	n.start(t)
	if got := fixture.PodTokens(t); got != 1 {
		t.Fatalf("Vault holds %d tokens of pods, so nothing is tested", got)
	}
	way.setBroken(false)
	rig.Eventually(t, "the token is revoked", func() bool { return fixture.PodTokens(t) == 0 })
	rig.Eventually(t, "nothing is left to remember", func() bool { return len(n.records(t)) == 0 })
}

// records are the files of the state.
func (n *node) records(t *testing.T) []string {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(kubeletplugin.StateDirectory(n.kubelet.Root, driverName), "*"))
	require.NoError(t, err)
	return found
}

// What the state holds is as secret as the volumes: it is in memory that only
// root may look into, and nowhere else.
func TestStateIsInAPrivateTmpfs(t *testing.T) {
	fixture := rig.StartVault(t)
	n := startNode(t, fixture.Server.Address, fixture)
	request := n.request(t, "private", map[string]string{"template/a": passwordTemplate, "token-file": "token"})
	n.mustPublish(t, request)
	token := mustRead(t, rig.VolumeFile(request, "token"))

	directory := kubeletplugin.StateDirectory(n.kubelet.Root, driverName)
	if mounted, err := tmpfs.Exists(directory); err != nil || !mounted {
		t.Errorf("the state is no tmpfs: %v", err)
	}
	if info, err := os.Stat(directory); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("the state is open to others: %v, %v", info.Mode(), err)
	}
	held := 0
	err := filepath.WalkDir(n.kubelet.Root, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || !entry.Type().IsRegular() {
			return err
		}
		content, err := os.ReadFile(path)
		if err != nil || !strings.Contains(string(content), token) && !strings.Contains(string(content), password) {
			return err
		}
		switch {
		case strings.HasPrefix(path, directory+"/"):
			held++
			if info, err := entry.Info(); err != nil || info.Mode().Perm() != 0o600 {
				t.Errorf("%s is open to others: %v", path, err)
			}
		case !strings.HasPrefix(path, request.GetTargetPath()+"/"):
			t.Errorf("%s holds a secret", path)
		}
		return nil
	})
	if err != nil || held == 0 {
		t.Errorf("%d records hold a secret, %v; the search proves nothing", held, err)
	}
	n.logs.requireNone(t, password, token)
}

// A record that cannot be read costs its volume a login, at its next republish.
func TestVolumeOfADamagedStateIsTakenOver(t *testing.T) {
	fixture := rig.StartVault(t)
	n := startNode(t, fixture.Server.Address, fixture)
	damaged := n.request(t, "damaged", map[string]string{"template/a": passwordTemplate, "token-file": "token"})
	sound := n.request(t, "sound", map[string]string{"template/a": passwordTemplate, "token-file": "token"})
	n.mustPublish(t, damaged)
	records := n.records(t)
	n.mustPublish(t, sound)
	kept, lost := mustRead(t, rig.VolumeFile(sound, "token")), mustRead(t, rig.VolumeFile(damaged, "token"))
	before := identify(t, damaged.GetTargetPath())
	n.stop()
	for _, record := range records {
		if err := os.WriteFile(record, []byte("{"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	n.start(t)
	n.mustPublish(t, damaged)
	n.mustPublish(t, sound)
	fixture.SetPassword(t, "rotated")
	rig.Eventually(t, "the volume has a token again", func() bool { return mustRead(t, rig.VolumeFile(damaged, "token")) != lost })
	if got := mustRead(t, rig.VolumeFile(damaged, "a")); got != "rotated" {
		t.Errorf("the file holds %q", got)
	}
	if got := mustRead(t, rig.VolumeFile(sound, "token")); got != kept {
		t.Error("the other volume logged in as well")
	}
	if after := identify(t, damaged.GetTargetPath()); after.device != before.device {
		t.Errorf("the volume was mounted again: %+v, %+v", before, after)
	}
}

// What nobody will ask to remove: a volume that went while no driver ran. One whose file
// of the kubelet is missing stays: the next kubelet may name that otherwise.
func TestGarbageCollection(t *testing.T) {
	fixture := rig.StartVault(t)
	n := startNode(t, fixture.Server.Address, fixture)
	gone := n.request(t, "gone", map[string]string{"template/a": passwordTemplate})
	lost := n.request(t, "lost", map[string]string{"template/a": passwordTemplate})
	kept := n.request(t, "kept", map[string]string{"template/a": passwordTemplate})
	n.mustPublish(t, gone)
	n.mustPublish(t, lost)
	n.mustPublish(t, kept)
	n.stop()
	require.NoError(t, tmpfs.Remove(gone.GetTargetPath()))
	require.NoError(t, os.Remove(filepath.Join(filepath.Dir(lost.GetTargetPath()), "vol_data.json")))
	n.start(t)
	rig.Eventually(t, "the token of the volume that went is revoked", func() bool { return fixture.PodTokens(t) == 2 })
	for _, left := range []*csi.NodePublishVolumeRequest{lost, kept} {
		if got := mustRead(t, rig.VolumeFile(left, "a")); got != password {
			t.Errorf("a volume that is left holds %q", got)
		}
	}
	if volumes := n.volumes.Statuses(); len(volumes) != 2 {
		t.Errorf("the driver knows the volumes %+v", volumes)
	}
}

// A volume that grew beyond its size keeps its files, and takes the new ones when
// they fit again.
func TestRotationThatDoesNotFit(t *testing.T) {
	fixture := rig.StartVault(t)
	n, clock := startTimedNode(t, fixture)
	request := n.request(t, "tight", map[string]string{"template/a": passwordTemplate, "size": "16Ki"})
	n.mustPublish(t, request)
	fixture.SetPassword(t, strings.Repeat("x", 1<<20))
	n.pass(t, clock, 5*time.Minute)
	if got := mustRead(t, rig.VolumeFile(request, "a")); got != password {
		t.Errorf("the file holds %d bytes", len(got))
	}
	if err := n.volumes.Statuses()[0].Err; !errors.Is(err, provider.ErrFull) {
		t.Errorf("the volume's error is %v", err)
	}
	fixture.SetPassword(t, "small")
	n.pass(t, clock, 5*time.Minute)
	if got := mustRead(t, rig.VolumeFile(request, "a")); got != "small" {
		t.Errorf("the file holds %d bytes", len(got))
	}
}
