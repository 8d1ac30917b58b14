package driver

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
	"k8s.io/klog/v2"

	"github.com/vaultmount/vaultmount/driver/status"
	"github.com/vaultmount/vaultmount/driver/tmpfs"
	"github.com/vaultmount/vaultmount/provider"
	"github.com/vaultmount/vaultmount/provider/limits"
)

// The tests of this file mount, so they need root.

// memory is a store. With full, it takes nothing.
type memory struct {
	mutex   sync.Mutex
	records map[string][]byte
	full    bool
}

func (s *memory) Save(key string, record []byte) error {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	if s.full {
		return errors.New("the state is full")
	}
	s.records[key] = record
	return nil
}

func (s *memory) Delete(key string) error {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	delete(s.records, key)
	return nil
}

func (s *memory) Load(string) (map[string][]byte, error) {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	return maps.Clone(s.records), nil
}

const volumeSize = 1 << 20

// mountNode is a kubelet's directory where volumes are mounted.
type mountNode struct {
	root    string
	mounter *tmpfs.Mounter
	store   *memory
}

func newMountNode(t *testing.T) mountNode {
	t.Helper()
	mounter, err := tmpfs.NewMounter("csi.vaultmount.dev")
	must(t, err)
	return mountNode{root: t.TempDir(), mounter: mounter, store: &memory{records: map[string][]byte{}}}
}

// start is what a process knows when it starts.
func (n mountNode) start(t *testing.T) *Mounts {
	t.Helper()
	mounts, err := NewMounts(klog.Background(), n.mounter, n.store)
	must(t, err)
	mounts.FindUnrecorded(n.root)
	return mounts
}

// volume is the volume "secrets" of a pod, with the directory that the kubelet makes.
func (n mountNode) volume(t *testing.T, pod string) mount {
	t.Helper()
	parent := filepath.Join(n.root, "pods", pod, "volumes", "kubernetes.io~csi", "secrets")
	must(t, os.MkdirAll(parent, 0o750))
	must(t, os.WriteFile(filepath.Join(parent, "vol_data.json"), nil, 0o600))
	v := mount{
		VolumeID: inlineVolumeID(pod, "secrets"), Target: filepath.Join(parent, "mount"), Size: volumeSize, Inodes: tmpfs.Inodes([]string{"a"}),
		Files: []mountedFile{{Path: "a", Perms: 0o644}}, Pod: podRef{Namespace: "shop", Name: pod, UID: pod},
	}
	t.Cleanup(func() { must(t, tmpfs.Remove(v.Target)) })
	return v
}

func (n mountNode) attach(t *testing.T, mounts *Mounts, v mount, content string) {
	t.Helper()
	must(t, mounts.attach(v, v.Target, rendered(content)))
	mounts.release(v.VolumeID) // as the call does that publishes it
}

func rendered(content string) []provider.RenderedFile {
	return []provider.RenderedFile{{Content: []byte(content)}}
}

func identity(t *testing.T, path string) (device, inode uint64) {
	t.Helper()
	var stat unix.Stat_t
	must(t, unix.Stat(path, &stat))
	return stat.Dev, stat.Ino
}

func holds(t *testing.T, v mount) string {
	t.Helper()
	content, err := os.ReadFile(filepath.Join(v.Target, "a"))
	must(t, err)
	return string(content)
}

func generation(t *testing.T, v mount) string {
	t.Helper()
	link, err := os.Readlink(filepath.Join(v.Target, "..data"))
	must(t, err)
	return link
}

// A container that sets the length of its file to 1 TiB harms nobody: the driver compares
// with its own record, in this process and in the next.
func TestRefreshDoesNotReadTheVolume(t *testing.T) {
	node := newMountNode(t)
	v := node.volume(t, "pod")
	mounts := node.start(t)
	node.attach(t, mounts, v, "first")
	view := t.TempDir()
	must(t, unix.Mount(v.Target, view, "", unix.MS_BIND, ""))
	defer unix.Unmount(view, unix.MNT_DETACH)
	must(t, unix.Mount("", view, "", unix.MS_BIND|unix.MS_REMOUNT, ""))
	for range 2 {
		must(t, os.Truncate(filepath.Join(view, "a"), 1<<40))
		before := generation(t, v)
		must(t, mounts.Replace(v.VolumeID, rendered("first")))
		if generation(t, v) != before {
			t.Error("the same content is written again")
		}
		mounts = node.start(t)
	}
	must(t, mounts.Replace(v.VolumeID, rendered("second")))
	if got := holds(t, v); got != "second" {
		t.Errorf("the file holds %q", got)
	}
	must(t, mounts.remove(v.VolumeID, v.Target, v.Target))
	if _, err := os.Lstat(v.Target); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the volume is left: %v", err)
	}
}

// A record of other content than there is would keep the next process from writing it.
func TestRecordThatCannotBeSavedIsDeleted(t *testing.T) {
	node := newMountNode(t)
	v := node.volume(t, "pod")
	mounts := node.start(t)
	node.attach(t, mounts, v, "first")
	node.store.full = true
	must(t, mounts.Replace(v.VolumeID, rendered("second")))
	if len(node.store.records) > 0 {
		t.Error("the record of before is still there")
	}
	next := node.start(t)
	next.adopt(v)
	must(t, next.Replace(v.VolumeID, rendered("first")))
	if got := holds(t, v); got != "first" {
		t.Errorf("the file holds %q", got)
	}
}

// A refresh may come as soon as the provider knows the volume. It fails in silence, as for
// a volume that closes, or it waits for the mount.
func TestRefreshWhileAVolumeIsMounted(t *testing.T) {
	node := newMountNode(t)
	mounts := node.start(t)
	for i := range 100 {
		v := node.volume(t, fmt.Sprint("pod-", i))
		written := make(chan error, 1)
		go func() {
			for {
				err := mounts.Replace(v.VolumeID, rendered("second"))
				if !errors.Is(err, provider.ErrClosed) {
					written <- err
					return
				}
			}
		}()
		node.attach(t, mounts, v, "first")
		must(t, <-written)
		if got := holds(t, v); got != "second" {
			t.Errorf("the file holds %q", got)
		}
		must(t, mounts.remove(v.VolumeID, v.Target, v.Target))
	}
}

// A volume that fits no more after a template writes more files, or after Vault's
// responses are counted, is not there.
func TestCapacityIsCheckedAgainOnceTheFilesAreKnown(t *testing.T) {
	node := newMountNode(t)
	v := node.volume(t, "pod")
	for name, test := range map[string]struct {
		retained int64
		written  int
	}{"as the attributes say": {0, 0}, "retained responses": {1, 0}, "a file of a template": {0, 1}} {
		t.Run(name, func(t *testing.T) {
			mounts := node.start(t)
			mounts.capacity = capacity{node: v.charge(), retained: func(string) int64 { return test.retained }}
			contents := rendered("x")
			contents[0].Written = written(numbered("f%d", test.written))
			err := mounts.attach(v, v.Target, contents)
			if fits := test.retained == 0 && test.written == 0; fits != (err == nil) || err != nil && !errors.Is(err, errCapacity) {
				t.Errorf("got %v", err)
			}
			must(t, mounts.remove(v.VolumeID, v.Target, v.Target))
			node.store.records = map[string][]byte{}
		})
	}
}

// A process of the node may hold a file of a volume that is unmounted, and its memory.
func TestCapacityCountsAVolumeUntilItsMemoryIsFree(t *testing.T) {
	node := newMountNode(t)
	v, next := node.volume(t, "pod"), node.volume(t, "next")
	mounts := node.start(t)
	defer mounts.Close()
	node.attach(t, mounts, v, "x")
	mounts.capacity = capacity{node: v.charge()}
	file, err := os.Open(filepath.Join(v.Target, "a"))
	must(t, err)
	must(t, mounts.remove(v.VolumeID, v.Target, v.Target))
	if total, largest, _ := mounts.Space(); total.Size != v.charge() || largest != v.charge() {
		t.Errorf("the volumes take %d bytes, those of the largest namespace %d", total.Size, largest)
	}
	if err := mounts.reserve(next); !errors.Is(err, errCapacity) {
		t.Errorf("while a process holds a file: %v", err)
	}
	must(t, file.Close())
	must(t, mounts.reserve(next))
	mounts.release(next.VolumeID)
	if total, _, _ := mounts.Space(); total.Size != 0 {
		t.Errorf("once it is free, the volumes take %d bytes", total.Size)
	}
}

// More files than before take more inodes, as far as the capacity goes.
func TestRefreshWithMoreFilesGrowsTheVolume(t *testing.T) {
	node := newMountNode(t)
	v := node.volume(t, "pod")
	mounts := node.start(t)
	node.attach(t, mounts, v, "first")
	contents := rendered("second")
	contents[0].Written = written(numbered("d%d/f", 20))
	mounts.capacity = capacity{node: v.charge()}
	if err := mounts.Replace(v.VolumeID, contents); !errors.Is(err, errCapacity) {
		t.Errorf("beyond the capacity: %v", err)
	}
	if got := holds(t, v); got != "first" {
		t.Errorf("after the error, the file holds %q", got)
	}
	mounts.capacity = capacity{}
	must(t, mounts.Replace(v.VolumeID, contents))
	usage, err := tmpfs.ReadUsage(v.Target)
	must(t, err)
	if known := mounts.all()[0]; int64(known.Inodes) != usage.InodesTotal || known.Inodes <= v.Inodes {
		t.Errorf("%d inodes count, and the volume may hold %d", known.Inodes, usage.InodesTotal)
	}
}

// The record of a volume may be lost. The volume counts at once, and is taken over at the
// kubelet's next call, as the same mount.
func TestVolumeWithoutARecord(t *testing.T) {
	node := newMountNode(t)
	v := node.volume(t, "pod")
	node.attach(t, node.start(t), v, "first")
	clear(node.store.records)
	device, inode := identity(t, v.Target)

	mounts := node.start(t)
	if total, _, unrecorded := mounts.Space(); unrecorded != 1 || total.Size != v.charge() || total.Used == 0 {
		t.Errorf("%d volumes without a record take %+v", unrecorded, total)
	}
	if got := describeMount(mounts.all()[0]); got.State != status.Unrecorded || got.ID != v.VolumeID || got.PodUID != "pod" || got.Name != "secrets" {
		t.Errorf("it is told of as %+v", got)
	}
	mounts.capacity = capacity{node: v.charge()}
	if err := mounts.reserve(node.volume(t, "other")); !errors.Is(err, errCapacity) {
		t.Errorf("the capacity that it leaves: %v", err)
	}
	if err := mounts.Replace(v.VolumeID, rendered("second")); !errors.Is(err, provider.ErrClosed) || !mounts.IsMounted(v.VolumeID) {
		t.Errorf("a refresh before the kubelet's call: %v", err)
	}

	fresh := v
	fresh.Size = 0 // a republish does not know it
	mounts.adopt(fresh)
	must(t, mounts.Replace(v.VolumeID, rendered("second")))
	if again, same := identity(t, v.Target); again != device || same != inode || holds(t, v) != "second" {
		t.Errorf("it is another mount, or holds %q", holds(t, v))
	}
	if _, _, unrecorded := mounts.Space(); unrecorded != 0 || len(node.store.records) != 1 {
		t.Errorf("%d volumes are without a record, and %d have one", unrecorded, len(node.store.records))
	}
}

// The id of such a volume is a guess: the target path counts.
func TestVolumeWithoutARecordUnderAnotherID(t *testing.T) {
	for name, end := range map[string]func(*testing.T, *Mounts, mount){
		"taken over": func(_ *testing.T, m *Mounts, v mount) { m.adopt(v) },
		"removed":    func(t *testing.T, m *Mounts, v mount) { must(t, m.remove(v.VolumeID, v.Target, v.Target)) },
	} {
		t.Run(name, func(t *testing.T) {
			node := newMountNode(t)
			v := node.volume(t, "pod")
			node.attach(t, node.start(t), v, "first")
			clear(node.store.records)
			mounts := node.start(t)
			v.VolumeID = "another"
			end(t, mounts, v)
			for _, each := range mounts.all() {
				if each.VolumeID != "another" {
					t.Errorf("it is known as %+v as well", each)
				}
			}
		})
	}
}

// An upgrade may read attributes as other files than the version before. The files of a
// record are those of the last call.
func TestAdoptTakesTheFilesOfTheLastCall(t *testing.T) {
	node := newMountNode(t)
	v := node.volume(t, "pod")
	mounts := node.start(t)
	node.attach(t, mounts, v, "first")
	two := v
	two.Size, two.Files = 0, append(two.Files, mountedFile{Path: "b", Perms: 0o600})
	mounts.adopt(two)
	must(t, node.start(t).Replace(v.VolumeID, append(rendered("second"), rendered("b")...)))
	if known := mounts.all()[0]; known.Size != v.Size || known.Inodes != v.Inodes {
		t.Errorf("its size is %d, its inodes %d", known.Size, known.Inodes)
	}
}

// The path of a volume is the kubelet's alone.
func TestUnrecordedAt(t *testing.T) {
	t.Parallel()
	for path, want := range map[string]bool{
		"uid/volumes/kubernetes.io~csi/secrets/mount":                         true,
		"uid/volumes/kubernetes.io~csi/secrets/mount/below":                   false,
		"uid/volumes/kubernetes.io~projected/secrets/mount":                   false,
		"uid/volume-subpaths/kubernetes.io~csi/secrets/mount":                 false,
		"uid/volumes/kubernetes.io~csi/secrets":                               false,
		strings.Repeat("x", 300) + "/volumes/kubernetes.io~csi/s/globalmount": false,
	} {
		if v, is := unrecordedAt("/pods", path); is != want || is && v.Target != "/pods/"+path {
			t.Errorf("%s: %t, %+v", path, is, v)
		}
	}
}

// The kubelet's private file alone does not say that a pod is gone.
func TestSweepOfWhatIsMounted(t *testing.T) {
	tests := map[string]struct {
		change func(t *testing.T, node mountNode, v mount)
		called bool // by the kubelet between the sweeps
		swept  [3]bool
	}{
		"the kubelet knows it":         {func(*testing.T, mountNode, mount) {}, false, [3]bool{}},
		"the kubelet has forgotten it": {forget, false, [3]bool{false, true, true}},
		"its file has another name":    {forget, true, [3]bool{}},
		"its file has another name, and it is down": {func(t *testing.T, node mountNode, v mount) {
			forget(t, node, v)
			must(t, os.MkdirAll(filepath.Join(filepath.Dir(v.Target), "..", "..", "kubernetes.io~projected", "kube-api-access"), 0o750))
		}, false, [3]bool{}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			node := newMountNode(t)
			v := node.volume(t, "pod")
			node.attach(t, node.start(t), v, "first")
			test.change(t, node, v)
			mounts, closed := node.start(t), closings{}
			d := NewNodeServer(Config{Name: "csi.vaultmount.dev", NodeName: "node", KubeletRoot: node.root, VolumeSize: 1, MaxVolumeSize: 1})
			d.Start(mounts, closed)
			for i, want := range test.swept {
				d.sweep(klog.Background())
				exists, err := tmpfs.Exists(v.Target)
				if err != nil || exists == want || closed[v.VolumeID] != want {
					t.Errorf("after sweep %d, it is mounted: %t, and closed: %t; %v", i+1, exists, closed[v.VolumeID], err)
				}
				if test.called {
					mounts.noteCall(v.VolumeID)
				}
			}
		})
	}
}

func forget(t *testing.T, _ mountNode, v mount) {
	t.Helper()
	must(t, os.Remove(filepath.Join(filepath.Dir(v.Target), "vol_data.json")))
}

// The records of one namespace leave space for those of others.
func TestRecordsOfANamespaceAreLimited(t *testing.T) {
	t.Parallel()
	store := &memory{records: map[string][]byte{}}
	mounts, err := NewMounts(klog.Background(), nil, store)
	must(t, err)
	adopt := func(id, namespace string, bytes int) {
		mounts.adopt(mount{VolumeID: id, Target: "/nowhere/" + id, Files: []mountedFile{{Path: strings.Repeat("x", bytes)}}, Pod: podRef{Namespace: namespace}})
	}
	const rest = 1000 // of a record
	adopt("1", "a", limits.NamespaceMountBytes.Max()-rest)
	adopt("2", "a", rest)
	adopt("3", "b", rest)
	if len(store.records) != 2 || store.records[mountKey("2")] != nil {
		t.Errorf("there are %d records", len(store.records))
	}
	if len(mounts.all()) != 3 {
		t.Errorf("%d volumes are known", len(mounts.all()))
	}
	mounts.drop("1")
	adopt("4", "a", rest)
	if store.records[mountKey("4")] == nil {
		t.Error("a volume less leaves no space for another")
	}
}
