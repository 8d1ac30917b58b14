package volumes

import (
	"context"
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

// files is a provider that renders the same for each volume, and keeps no secrets.
type files []provider.RenderedFile

func (f files) Publish(_ context.Context, _ provider.Request, sink provider.Sink) (*provider.Volume, []provider.RenderedFile, error) {
	return nil, f, sink.Save([]byte("half"))
}

func (files) TakeOver(provider.Request, provider.Sink) *provider.Volume { return nil }
func (files) Restore([]byte, provider.Sink) (*provider.Volume, error)   { return nil, nil }

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

const volumeSize = 1 << 20

// testNode is a kubelet's directory where volumes are mounted.
type testNode struct {
	root    string
	mounter *tmpfs.Mounter
	store   *memory
}

func newTestNode(t *testing.T) testNode {
	t.Helper()
	mounter, err := tmpfs.NewMounter("csi.vaultmount.dev")
	must(t, err)
	return testNode{root: t.TempDir(), mounter: mounter, store: &memory{records: map[string][]byte{}}}
}

// start is what a process knows when it starts.
func (n testNode) start(t *testing.T) *Manager {
	t.Helper()
	m := New(Config{Logger: klog.Background(), Mounter: n.mounter, Store: n.store, Provider: files(nil), KubeletRoot: n.root})
	must(t, m.Restore(t.Context()))
	return m
}

// volume is the volume "secrets" of a pod, with the directory that the kubelet makes.
func (n testNode) volume(t *testing.T, pod string) Volume {
	t.Helper()
	parent := filepath.Join(n.root, "pods", pod, "volumes", "kubernetes.io~csi", "secrets")
	must(t, os.MkdirAll(parent, 0o750))
	must(t, os.WriteFile(filepath.Join(parent, "vol_data.json"), nil, 0o600))
	v := Volume{
		ID: inlineVolumeID(pod, "secrets"), Target: filepath.Join(parent, "mount"), Size: volumeSize, Inodes: tmpfs.Inodes([]string{"a"}),
		Files: []File{{Path: "a", Perms: 0o644}}, Pod: Pod{Namespace: "shop", Name: pod, UID: pod},
	}
	t.Cleanup(func() { must(t, tmpfs.Remove(v.Target)) })
	return v
}

func publish(t *testing.T, m *Manager, v Volume, content string) {
	t.Helper()
	must(t, publishAll(t, m, v, rendered(content)))
}

func publishAll(t *testing.T, m *Manager, v Volume, all []provider.RenderedFile) error {
	t.Helper()
	m.config.Provider = files(all)
	return m.Publish(t.Context(), v, provider.Request{}, 0)
}

// replace is a refresh.
func replace(m *Manager, v Volume, all []provider.RenderedFile) error {
	e := m.find(v.ID)
	if e == nil {
		return provider.ErrClosed
	}
	return e.Replace(all)
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

func holds(t *testing.T, v Volume) string {
	t.Helper()
	content, err := os.ReadFile(filepath.Join(v.Target, "a"))
	must(t, err)
	return string(content)
}

func generation(t *testing.T, v Volume) string {
	t.Helper()
	link, err := os.Readlink(filepath.Join(v.Target, "..data"))
	must(t, err)
	return link
}

// A container that sets the length of its file to 1 TiB harms nobody: the driver compares
// with its own record, in this process and in the next.
func TestRefreshDoesNotReadTheVolume(t *testing.T) {
	node := newTestNode(t)
	v := node.volume(t, "pod")
	m := node.start(t)
	publish(t, m, v, "first")
	view := t.TempDir()
	must(t, unix.Mount(v.Target, view, "", unix.MS_BIND, ""))
	defer unix.Unmount(view, unix.MNT_DETACH)
	must(t, unix.Mount("", view, "", unix.MS_BIND|unix.MS_REMOUNT, ""))
	for range 2 {
		must(t, os.Truncate(filepath.Join(view, "a"), 1<<40))
		before := generation(t, v)
		must(t, replace(m, v, rendered("first")))
		if generation(t, v) != before {
			t.Error("the same content is written again")
		}
		m = node.start(t)
	}
	must(t, replace(m, v, rendered("second")))
	if got := holds(t, v); got != "second" {
		t.Errorf("the file holds %q", got)
	}
	must(t, m.Unpublish(v.ID, v.Target))
	if _, err := os.Lstat(v.Target); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the volume is left: %v", err)
	}
}

// A record of other content than there is would keep the next process from writing it.
func TestRecordThatCannotBeSavedIsDeleted(t *testing.T) {
	node := newTestNode(t)
	v := node.volume(t, "pod")
	m := node.start(t)
	publish(t, m, v, "first")
	node.store.full = true
	must(t, replace(m, v, rendered("second")))
	if len(node.store.records) > 0 {
		t.Error("the record of before is still there")
	}
	next := node.start(t)
	next.Republish(v, provider.Request{}, 0)
	must(t, replace(next, v, rendered("first")))
	if got := holds(t, v); got != "first" {
		t.Errorf("the file holds %q", got)
	}
}

// One record holds both halves, whichever of them changes.
func TestRecordHoldsBothHalves(t *testing.T) {
	node := newTestNode(t)
	v := node.volume(t, "pod")
	m := node.start(t)
	publish(t, m, v, "first")
	restored := &restorations{}
	next := New(Config{Logger: klog.Background(), Mounter: node.mounter, Store: node.store, Provider: restored, KubeletRoot: node.root})
	for _, step := range []struct {
		change func() error
		half   string
	}{
		{func() error { return nil }, "half"},
		{func() error { return replace(m, v, rendered("second")) }, "half"},
		{func() error { return m.find(v.ID).Save([]byte("other\nhalf")) }, "other\nhalf"},
		{func() error { return replace(m, v, rendered("third")) }, "other\nhalf"},
	} {
		must(t, step.change())
		must(t, next.Restore(t.Context()))
		if known := next.find(v.ID); restored.half != step.half || known == nil || !known.volume.Written.Equal(m.find(v.ID).volume.Written) {
			t.Errorf("the provider's half is %q, want %q", restored.half, step.half)
		}
	}
	must(t, m.Unpublish(v.ID, v.Target))
	late := &entry{manager: m, volume: v, closed: true} // a refresh that ends after its volume
	must(t, late.Save([]byte("late")))
	if len(node.store.records) > 0 {
		t.Error("the record is still there")
	}
}

// restorations notes the provider's half of a record.
type restorations struct {
	files

	half string
}

func (r *restorations) Restore(half []byte, _ provider.Sink) (*provider.Volume, error) {
	r.half = string(half)
	return nil, nil
}

// Nothing is left of a volume that is not mounted: neither after an error of the provider
// nor for a call that was cancelled meanwhile.
func TestFailedPublishLeavesNothing(t *testing.T) {
	node := newTestNode(t)
	m := node.start(t)
	v := node.volume(t, "pod")
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	for name, publish := range map[string]func() error{
		"cancelled": func() error {
			m.config.Provider = files(rendered("x"))
			return m.Publish(cancelled, v, provider.Request{}, 0)
		},
		"too many files": func() error { return publishAll(t, m, v, nil) },
		"too large":      func() error { return publishAll(t, m, v, rendered(strings.Repeat("x", volumeSize))) },
	} {
		if err := publish(); err == nil {
			t.Errorf("%s: it is published", name)
		}
		if _, err := os.Lstat(v.Target); !errors.Is(err, os.ErrNotExist) || len(node.store.records) > 0 || len(m.all()) > 0 {
			t.Errorf("%s: the target is left: %v; records %d, volumes %d", name, err, len(node.store.records), len(m.all()))
		}
	}
	publish(t, m, v, "x")
}

// Somebody has unmounted a volume. A publish that fails leaves it known, and one that
// succeeds mounts it again.
func TestVolumeIsMountedAgain(t *testing.T) {
	node := newTestNode(t)
	m := node.start(t)
	v := node.volume(t, "pod")
	publish(t, m, v, "first")
	before := m.find(v.ID)
	must(t, unix.Unmount(v.Target, 0))
	if err := publishAll(t, m, v, nil); err == nil {
		t.Error("it is published")
	}
	if m.find(v.ID) != before || before.closed {
		t.Error("the volume is not known any more")
	}
	publish(t, m, v, "second")
	if err := before.Replace(rendered("late")); !errors.Is(err, provider.ErrClosed) || holds(t, v) != "second" {
		t.Errorf("a refresh of the mount before: %v; the file holds %q", err, holds(t, v))
	}
	must(t, m.Unpublish(v.ID, v.Target))
}

// A refresh may come as soon as the provider knows the volume. It fails in silence, as for
// a volume that closes, or it waits for the mount.
func TestRefreshWhileAVolumeIsMounted(t *testing.T) {
	node := newTestNode(t)
	m := node.start(t)
	for i := range 50 {
		v := node.volume(t, fmt.Sprint("pod-", i))
		written := make(chan error, 1)
		go func() {
			for {
				err := replace(m, v, rendered("second"))
				if !errors.Is(err, provider.ErrClosed) && !errors.Is(err, tmpfs.ErrNotMounted) {
					written <- err
					return
				}
			}
		}()
		publish(t, m, v, "first")
		must(t, <-written)
		if got := holds(t, v); got != "second" {
			t.Errorf("the file holds %q", got)
		}
		must(t, m.Unpublish(v.ID, v.Target))
	}
}

// A volume that does not fit after a template writes more files is not there.
func TestCapacityIsCheckedAgainOnceTheFilesAreKnown(t *testing.T) {
	node := newTestNode(t)
	v := node.volume(t, "pod")
	for name, count := range map[string]int{"as the attributes say": 0, "a file of a template": 1} {
		t.Run(name, func(t *testing.T) {
			m := node.start(t)
			m.config.Capacity = v.bytes()
			contents := rendered("x")
			contents[0].Written = written(numbered("f%d", count))
			err := publishAll(t, m, v, contents)
			if fits := count == 0; fits != (err == nil) || err != nil && !errors.Is(err, ErrCapacity) {
				t.Errorf("got %v", err)
			}
			must(t, m.Unpublish(v.ID, v.Target))
		})
	}
}

// A process of the node may hold a file of a volume that is unmounted, and its memory.
func TestCapacityCountsAVolumeUntilItsMemoryIsFree(t *testing.T) {
	node := newTestNode(t)
	v, next := node.volume(t, "pod"), node.volume(t, "next")
	m := node.start(t)
	defer m.Close()
	publish(t, m, v, "x")
	m.config.Capacity = v.bytes()
	file, err := os.Open(filepath.Join(v.Target, "a"))
	must(t, err)
	must(t, m.Unpublish(v.ID, v.Target))
	if usage := m.Usage(); usage.Capacity != v.bytes() || usage.LargestNamespace != v.bytes() {
		t.Errorf("the volumes take %+v", usage)
	}
	if err := publishAll(t, m, next, rendered("x")); !errors.Is(err, ErrCapacity) {
		t.Errorf("while a process holds a file: %v", err)
	}
	must(t, file.Close())
	publish(t, m, next, "x")
	must(t, m.Unpublish(next.ID, next.Target))
	if usage := m.Usage(); usage.Capacity != 0 {
		t.Errorf("once it is free, the volumes take %+v", usage)
	}
}

// More files than before take more inodes, as far as the capacity goes.
func TestRefreshWithMoreFilesGrowsTheVolume(t *testing.T) {
	node := newTestNode(t)
	v := node.volume(t, "pod")
	m := node.start(t)
	publish(t, m, v, "first")
	contents := rendered("second")
	contents[0].Written = written(numbered("d%d/f", 20))
	m.config.Capacity = v.bytes()
	if err := replace(m, v, contents); !errors.Is(err, ErrCapacity) {
		t.Errorf("beyond the capacity: %v", err)
	}
	if got := holds(t, v); got != "first" {
		t.Errorf("after the error, the file holds %q", got)
	}
	m.config.Capacity = 0
	must(t, replace(m, v, contents))
	usage, err := tmpfs.ReadUsage(v.Target)
	must(t, err)
	if known := m.find(v.ID).volume; int64(known.Inodes) != usage.InodesTotal || known.Inodes <= v.Inodes {
		t.Errorf("%d inodes count, and the volume may hold %d", known.Inodes, usage.InodesTotal)
	}
}

// The record of a volume may be lost. The volume counts at once, and is taken over at the
// kubelet's next call, as the same mount.
func TestVolumeWithoutARecord(t *testing.T) {
	node := newTestNode(t)
	v := node.volume(t, "pod")
	publish(t, node.start(t), v, "first")
	clear(node.store.records)
	device, inode := identity(t, v.Target)

	m := node.start(t)
	if usage := m.Usage(); usage.Unrecorded != 1 || usage.Capacity != v.bytes() || usage.Files == 0 {
		t.Errorf("the volumes take %+v", usage)
	}
	if got := m.List()[0]; got.State != status.Unrecorded || got.ID != v.ID || got.PodUID != "pod" || got.Name != "secrets" {
		t.Errorf("it is listed as %+v", got)
	}
	m.config.Capacity = v.bytes()
	if err := publishAll(t, m, node.volume(t, "other"), rendered("x")); !errors.Is(err, ErrCapacity) {
		t.Errorf("the capacity that it leaves: %v", err)
	}
	if err := replace(m, v, rendered("second")); !errors.Is(err, provider.ErrClosed) {
		t.Errorf("a refresh before the kubelet's call: %v", err)
	}

	fresh := v
	fresh.Size = 0 // it is the kernel that knows
	m.Republish(fresh, provider.Request{}, 0)
	must(t, replace(m, v, rendered("second")))
	if again, same := identity(t, v.Target); again != device || same != inode || holds(t, v) != "second" {
		t.Errorf("it is another mount, or holds %q", holds(t, v))
	}
	if usage := m.Usage(); usage.Unrecorded != 0 || usage.Capacity != v.bytes() || len(node.store.records) != 1 {
		t.Errorf("the volumes take %+v, and %d have a record", usage, len(node.store.records))
	}
}

// The id of such a volume is a guess: the target path counts.
func TestVolumeWithoutARecordUnderAnotherID(t *testing.T) {
	for name, end := range map[string]func(*testing.T, *Manager, Volume){
		"taken over": func(_ *testing.T, m *Manager, v Volume) { m.Republish(v, provider.Request{}, 0) },
		"removed":    func(t *testing.T, m *Manager, v Volume) { must(t, m.Unpublish(v.ID, v.Target)) },
	} {
		t.Run(name, func(t *testing.T) {
			node := newTestNode(t)
			v := node.volume(t, "pod")
			publish(t, node.start(t), v, "first")
			clear(node.store.records)
			m := node.start(t)
			v.ID = "another"
			end(t, m, v)
			for _, each := range m.List() {
				if each.ID != "another" {
					t.Errorf("it is known as %+v as well", each)
				}
			}
		})
	}
}

// An upgrade may read attributes as other files than the version before. The files of a
// record are those of the last call.
func TestRepublishTakesTheFilesOfTheLastCall(t *testing.T) {
	node := newTestNode(t)
	v := node.volume(t, "pod")
	m := node.start(t)
	publish(t, m, v, "first")
	two := v
	two.Size, two.Files = 0, append(two.Files, File{Path: "b", Perms: 0o600})
	m.Republish(two, provider.Request{}, 0)
	must(t, replace(node.start(t), v, append(rendered("second"), rendered("b")...)))
	if known := m.find(v.ID).volume; known.Size != v.Size || known.Inodes != v.Inodes {
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
func TestOrphansThatAreMounted(t *testing.T) {
	tests := map[string]struct {
		change  func(t *testing.T, v Volume)
		called  bool // by the kubelet between the collections
		removed [3]bool
	}{
		"the kubelet knows it":         {func(*testing.T, Volume) {}, false, [3]bool{}},
		"the kubelet has forgotten it": {forget, false, [3]bool{false, true, true}},
		"its file has another name":    {forget, true, [3]bool{}},
		"its file has another name, and it is down": {func(t *testing.T, v Volume) {
			forget(t, v)
			must(t, os.MkdirAll(filepath.Join(filepath.Dir(v.Target), "..", "..", "kubernetes.io~projected", "kube-api-access"), 0o750))
		}, false, [3]bool{}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			node := newTestNode(t)
			v := node.volume(t, "pod")
			publish(t, node.start(t), v, "first")
			test.change(t, v)
			m := node.start(t)
			for i, want := range test.removed {
				m.collect()
				exists, err := tmpfs.Exists(v.Target)
				if err != nil || exists == want || (m.find(v.ID) == nil) != want || len(node.store.records) == 0 != want {
					t.Errorf("after collection %d, it is mounted: %t, and known: %t; %v", i+1, exists, m.find(v.ID) != nil, err)
				}
				if test.called {
					m.NoteCall(v.ID, 0)
				}
			}
		})
	}
}

func forget(t *testing.T, v Volume) {
	t.Helper()
	must(t, os.Remove(filepath.Join(filepath.Dir(v.Target), "vol_data.json")))
}

// The records of one namespace leave space for those of others. Without space for the
// provider's half, the header is saved.
func TestRecordsOfANamespaceAreLimited(t *testing.T) {
	t.Parallel()
	store := &memory{records: map[string][]byte{}}
	m := New(Config{Logger: klog.Background(), Store: store, Provider: files(nil)})
	republish := func(id, namespace string, bytes int) {
		m.Republish(Volume{ID: id, Target: "/nowhere/" + id, Files: []File{{Path: strings.Repeat("x", bytes)}}, Pod: Pod{Namespace: namespace}, Size: 1, Inodes: 1}, provider.Request{}, 0)
	}
	const rest = 1000 // of a record
	republish("1", "a", limits.NamespaceMountBytes.Max()-rest)
	republish("2", "a", rest)
	republish("3", "b", rest)
	if len(store.records) != 2 || store.records[recordKey("2")] != nil {
		t.Errorf("there are %d records", len(store.records))
	}
	if len(m.all()) != 3 {
		t.Errorf("%d volumes are known", len(m.all()))
	}
	m.drop(m.find("1"))
	republish("4", "a", rest)
	if store.records[recordKey("4")] == nil {
		t.Error("a volume less leaves no space for another")
	}
	if err := m.find("4").Save(make([]byte, limits.CheckpointBytes.Max())); err == nil {
		t.Error("a record over the limit is saved")
	}
	if got := store.records[recordKey("4")]; len(got) == 0 || len(got) > 2*rest {
		t.Errorf("of a record that is too large, %d bytes are saved", len(got))
	}
}

// A volume has one call at a time, and others are not in its way.
func TestLock(t *testing.T) {
	t.Parallel()
	m := New(Config{})
	unlock, ok := m.Lock("a")
	_, twice := m.Lock("a")
	_, other := m.Lock("b")
	if !ok || twice || !other {
		t.Errorf("locked %t, twice %t, another %t", ok, twice, other)
	}
	unlock()
	if _, ok := m.Lock("a"); !ok {
		t.Error("a finished call is still in the way")
	}
}

// Only what an operator has something else to do about is news.
func TestRefreshedIsNews(t *testing.T) {
	t.Parallel()
	var told []bool
	m := New(Config{Refreshed: func(_ Volume, _ error, isNews bool) { told = append(told, isNews) }})
	e := &entry{manager: m}
	denied, full := errors.New("permission denied"), tmpfs.ErrFull
	missing := fmt.Errorf("read kv/a: %w", provider.ErrNotFound)
	for _, step := range [][2]error{{nil, nil}, {nil, denied}, {denied, denied}, {denied, full}, {full, missing}, {missing, nil}} {
		e.Refreshed(step[0], step[1])
	}
	if want := []bool{false, true, false, false, true, true}; fmt.Sprint(told) != fmt.Sprint(want) {
		t.Errorf("news are %t, want %t", told, want)
	}
}
