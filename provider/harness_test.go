package provider

import (
	"bytes"
	"context"
	"errors"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"k8s.io/klog/v2/textlogger"
	clocktesting "k8s.io/utils/clock/testing"

	"github.com/vaultmount/vaultmount/provider/template"
	"github.com/vaultmount/vaultmount/provider/template/templatetest"
	"github.com/vaultmount/vaultmount/provider/vault"
)

var start = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

// harness is a Manager in front of a fake Vault, with the driver's side of its volumes. The
// clock is the test's: advance moves it from one refresh to the next.
type harness struct {
	*Manager

	t     *testing.T
	vault *fakeVault
	time  *clocktesting.FakeClock
	store *memoryStore
	logs  *logBuffer

	// These are of the next process.
	sharing  Sharing
	renderer Renderer
	timeouts timeouts // zero for the usual ones
	revoked  func(error)
	// uptimeOffset is of the node's uptime and the clock.
	uptimeOffset time.Duration

	mutex  sync.Mutex
	mounts map[string]*mount
}

// mount is the driver's side of a volume: what is mounted, and its record. They outlive the
// process.
type mount struct {
	harness *harness
	volume  *Volume // nil in a process that does not know it
	fails   error   // of the next Replace
	panics  bool
	refuse  func(files []RenderedFile) error // nil for none
	content string
	record  []byte
	isFull  bool
	writes  int
	saves   int
	// failures, recoveries and changes count what Events tell.
	failures, recoveries, changes int
	heard                         func() // at each refresh
}

func newHarness(t *testing.T) *harness {
	t.Helper()
	clock := clocktesting.NewFakeClock(start)
	h := &harness{
		t: t, vault: startFakeVault(t, clock), time: clock, store: &memoryStore{}, logs: &logBuffer{}, renderer: templatetest.Renderer{},
		mounts: map[string]*mount{},
	}
	h.begin()
	t.Cleanup(func() {
		h.end()
		if t.Failed() {
			t.Logf("log:\n%s", h.logs)
		}
		if strings.Contains(h.logs.String(), "canary") {
			t.Error("the log holds a secret")
		}
	})
	return h
}

// begin starts a process, which restores all that is mounted.
func (h *harness) begin() {
	h.t.Helper()
	h.start()
	if err := h.RestoreSessions(h.t.Context()); err != nil {
		h.t.Fatal(err)
	}
	for _, id := range slices.Sorted(maps.Keys(h.mounts)) {
		h.restore(h.mounts[id])
	}
	h.FinishRestore()
}

// start is begin without the records.
func (h *harness) start() {
	logger := textlogger.NewLogger(textlogger.NewConfig(textlogger.Output(h.logs), textlogger.Verbosity(10)))
	h.Manager = New(Config{
		Logger: logger, Clients: vault.NewClientPool(vault.Config{Logger: logger}), Renderer: h.renderer, Store: h.store, Clock: h.time,
		Uptime: func() time.Duration { return h.time.Since(start) + h.uptimeOffset + time.Hour }, Revoked: h.revoked, Sharing: h.sharing,
	})
	if h.timeouts != (timeouts{}) {
		h.Manager.timeouts = h.timeouts
	}
}

func (h *harness) restore(m *mount) {
	h.t.Helper()
	if m.record == nil {
		return
	}
	v, err := h.Restore(m.record, m)
	if err != nil {
		m.record = nil // as the driver does
		return
	}
	m.setVolume(v)
	v.Start()
}

// end shuts the process down. What is mounted and stored stays.
func (h *harness) end() {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	h.Shutdown(ctx)
	for _, m := range h.mounts {
		m.setVolume(nil)
	}
}

func (h *harness) restart() {
	h.t.Helper()
	h.end()
	h.begin()
}

const (
	databaseTemplate = `{{ with secret "database/creds/app" }}{{ .Data.username }}{{ end }}`
	staticTemplate   = `{{ with secret "kv/static" }}{{ .Data.value }}{{ end }}`
)

func (h *harness) request(volumeID string, templates ...string) Request {
	r := Request{
		VolumeID: volumeID, Pod: "default/" + volumeID, Endpoint: Endpoint{Address: h.vault.URL},
		Options: ClientOptions{MaxRetries: NoRetries, Timeout: 10 * time.Second}, Login: Credentials{Mount: "auth/jwt", Role: "app", JWT: "jwt-1"},
	}
	for _, text := range templates {
		r.Files = append(r.Files, FileSpec{Template: Template{Name: "file", Text: text}})
	}
	return r
}

// of returns a request of a pod in a namespace, at an address.
func (h *harness) of(namespace, name, address string, templates ...string) Request {
	r := h.request(namespace+"-"+name, templates...)
	r.Pod, r.Endpoint.Address = namespace+"/"+name, address
	return r
}

// publish publishes a volume, attaches its files and starts it.
func (h *harness) publish(r Request) {
	h.t.Helper()
	if _, err := h.tryPublish(h.t.Context(), r); err != nil {
		h.t.Fatal(err)
	}
}

func (h *harness) tryPublish(ctx context.Context, r Request) ([]RenderedFile, error) {
	m := h.mount(r.VolumeID)
	v, files, err := h.Publish(ctx, r, m)
	if err != nil {
		h.remove(r.VolumeID)
		return nil, err
	}
	m.put(files)
	m.setVolume(v)
	v.Start()
	return files, nil
}

// republish is the kubelet's next call for a mounted volume.
func (h *harness) republish(r Request) {
	m := h.mount(r.VolumeID)
	if v := m.getVolume(); v != nil {
		v.UpdateCredentials(r)
		return
	}
	v := h.TakeOver(r, m)
	m.setVolume(v)
	v.Start()
}

func (h *harness) refresh(volumeID string) { h.mount(volumeID).getVolume().Refresh() }

// close unpublishes a volume.
func (h *harness) close(volumeID string) {
	m := h.mount(volumeID)
	h.remove(volumeID)
	if v := m.getVolume(); v != nil {
		v.Close()
	}
}

// remove is an unmount that the driver did not see, or while it did not run.
func (h *harness) remove(volumeID string) {
	h.mutex.Lock()
	defer h.mutex.Unlock()
	delete(h.mounts, volumeID)
}

// mount returns that of a volume, which may be new.
func (h *harness) mount(volumeID string) *mount {
	h.mutex.Lock()
	defer h.mutex.Unlock()
	m := h.mounts[volumeID]
	if m == nil {
		m = &mount{harness: h}
		h.mounts[volumeID] = m
	}
	return m
}

// statuses are those of all volumes, in the order of their ids.
func (h *harness) statuses() []Status {
	h.mutex.Lock()
	defer h.mutex.Unlock()
	var all []Status
	for _, id := range slices.Sorted(maps.Keys(h.mounts)) {
		if v := h.mounts[id].volume; v != nil {
			all = append(all, v.Status())
		}
	}
	return all
}

func (h *harness) stats() Stats { return h.Stats(h.statuses()) }

// next is when something is due, zero for never.
func (h *harness) next() time.Time {
	var next time.Time
	// Twice: between two looks, one volume may have woken another, and become idle.
	for range 2 {
		for _, status := range h.statuses() {
			if next.IsZero() || !status.Next.IsZero() && status.Next.Before(next) {
				next = status.Next
			}
		}
	}
	return next
}

// waitIdle waits until all that is due is done.
func (h *harness) waitIdle() {
	h.t.Helper()
	waitFor(h.t, func() bool {
		next := h.next()
		return next.IsZero() || next.After(h.time.Now())
	})
}

// advance moves the clock, from one thing that is due to the next. After each, and just
// before, it calls check.
func (h *harness) advance(duration time.Duration, check func()) {
	h.t.Helper()
	end := h.time.Now().Add(duration)
	for {
		h.waitIdle()
		check()
		next := h.next()
		if next.IsZero() || next.After(end) {
			break
		}
		h.time.SetTime(next.Add(-time.Nanosecond))
		check()
		h.time.SetTime(next)
	}
	h.time.SetTime(end)
	h.waitIdle()
	check()
}

func (h *harness) content(volumeID string) string {
	m := h.mount(volumeID)
	h.mutex.Lock()
	defer h.mutex.Unlock()
	return m.content
}

func (h *harness) requireContent(volumeID, want string) {
	h.t.Helper()
	if got := h.content(volumeID); got != want {
		h.t.Errorf("%s holds %q, want %q", volumeID, got, want)
	}
}

func (h *harness) requireCount(what string, want int) {
	h.t.Helper()
	if got := h.vault.count(what); got != want {
		h.t.Errorf("Vault had %d requests for %s, want %d", got, what, want)
	}
}

// requireOpens tries the credentials in the first file of a volume at the database.
func (h *harness) requireOpens(volumeID string) {
	h.t.Helper()
	credentials, _, _ := strings.Cut(h.content(volumeID), "|")
	if !h.vault.opens(credentials) {
		h.t.Fatalf("%s holds dead credentials %q after %s", volumeID, credentials, h.time.Since(start))
	}
}

// awaitNoRecord waits until nothing is stored of volumes that are gone.
func (h *harness) awaitNoRecord() {
	h.t.Helper()
	waitFor(h.t, func() bool { records, _ := h.store.Load(""); return len(records) == 0 })
}

func (m *mount) getVolume() *Volume {
	m.harness.mutex.Lock()
	defer m.harness.mutex.Unlock()
	return m.volume
}

func (m *mount) setVolume(v *Volume) {
	m.harness.mutex.Lock()
	defer m.harness.mutex.Unlock()
	m.volume = v
}

// change sets how the driver's side behaves.
func (m *mount) change(do func()) {
	m.harness.mutex.Lock()
	defer m.harness.mutex.Unlock()
	do()
}

// fail lets each Replace of a volume fail from now on, or succeed for nil.
func (h *harness) fail(volumeID string, err error) {
	m := h.mount(volumeID)
	m.change(func() { m.fails = err })
}

func (m *mount) put(files []RenderedFile) {
	m.harness.mutex.Lock()
	defer m.harness.mutex.Unlock()
	var parts []string
	for _, file := range files {
		parts = append(parts, string(file.Content))
	}
	m.content = strings.Join(parts, "|")
}

// Replace implements Sink.
func (m *mount) Replace(files []RenderedFile) error {
	m.harness.mutex.Lock()
	err, panics, refuse := m.fails, m.panics, m.refuse
	m.writes++
	m.harness.mutex.Unlock()
	if panics {
		panic("canary")
	}
	if err == nil && refuse != nil {
		err = refuse(files)
	}
	if err != nil {
		return err
	}
	m.put(files)
	return nil
}

// Save implements Sink.
func (m *mount) Save(record []byte) error {
	m.harness.mutex.Lock()
	defer m.harness.mutex.Unlock()
	switch {
	case m.isFull:
		return errors.New("no space left on device")
	case m.harness.store.isFrozen():
		return nil
	}
	m.saves++
	m.record = bytes.Clone(record)
	return nil
}

// Refreshed implements Sink.
func (m *mount) Refreshed(before, now error) {
	m.harness.mutex.Lock()
	switch {
	case before == nil && now != nil:
		m.failures++
	case before != nil && now == nil:
		m.recoveries++
	case !SameKind(before, now):
		m.changes++
	}
	heard := m.heard
	m.harness.mutex.Unlock()
	if heard != nil {
		heard()
	}
}

// memoryStore is a Store.
type memoryStore struct {
	mutex   sync.Mutex
	records map[string][]byte
	frozen  bool // it takes nothing any more, as of a process that was killed
	// waits is called before a record is saved or deleted.
	waits func(key string)
}

func (s *memoryStore) wait(key string) {
	s.mutex.Lock()
	waits := s.waits
	s.mutex.Unlock()
	if waits != nil {
		waits(key)
	}
}

// hold lets all that saves or deletes a record with a prefix wait for release. held is
// closed when the first does.
func (s *memoryStore) hold(prefix string) (held chan struct{}, release func()) {
	held, released := make(chan struct{}), make(chan struct{})
	var once sync.Once
	s.mutex.Lock()
	defer s.mutex.Unlock()
	s.waits = func(key string) {
		if strings.HasPrefix(key, prefix) {
			once.Do(func() { close(held) })
			<-released
		}
	}
	return held, func() { close(released) }
}

func (s *memoryStore) isFrozen() bool {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	return s.frozen
}

func (s *memoryStore) freeze(frozen bool) {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	s.frozen = frozen
}

// Save implements Store.
func (s *memoryStore) Save(key string, record []byte) error {
	s.wait(key)
	s.mutex.Lock()
	defer s.mutex.Unlock()
	if s.frozen {
		return nil
	}
	if s.records == nil {
		s.records = map[string][]byte{}
	}
	s.records[key] = bytes.Clone(record)
	return nil
}

// Delete implements Store.
func (s *memoryStore) Delete(key string) error {
	s.wait(key)
	s.mutex.Lock()
	defer s.mutex.Unlock()
	delete(s.records, key)
	return nil
}

// Load implements Store.
func (s *memoryStore) Load(prefix string) (map[string][]byte, error) {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	found := maps.Clone(s.records)
	maps.DeleteFunc(found, func(key string, _ []byte) bool { return !strings.HasPrefix(key, prefix) })
	return found, nil
}

// change does something to each record with a prefix.
func (s *memoryStore) change(prefix string, do func(record []byte) []byte) {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	for key, record := range s.records {
		if strings.HasPrefix(key, prefix) {
			s.records[key] = do(record)
		}
	}
}

type logBuffer struct {
	mutex sync.Mutex
	text  bytes.Buffer
}

func (b *logBuffer) Write(p []byte) (int, error) {
	b.mutex.Lock()
	defer b.mutex.Unlock()
	return b.text.Write(p)
}

func (b *logBuffer) String() string {
	b.mutex.Lock()
	defer b.mutex.Unlock()
	return b.text.String()
}

// waitFor polls for what another goroutine is about to do.
func waitFor(t *testing.T, condition func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for !condition() {
		select {
		case <-ctx.Done():
			t.Fatal("it never happened")
		case <-tick.C:
		}
	}
}

// keyOf is the dependency that reads a path.
func keyOf(path string) template.Dependency {
	return template.Dependency{Verb: template.Read, Path: path}
}
