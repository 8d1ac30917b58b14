package provider

import (
	"bytes"
	"context"
	"errors"
	"maps"
	"strings"
	"sync"
	"testing"
	"time"

	"k8s.io/klog/v2/textlogger"
	clocktesting "k8s.io/utils/clock/testing"

	"github.com/vaultmount/vaultmount/provider/template/templatetest"
	"github.com/vaultmount/vaultmount/provider/vault"
)

// bench is a provider with the played Vault, and what it writes and saves.
type bench struct {
	*Provider
	t     *testing.T
	vault *playedVault
	time  *clocktesting.FakeClock
	boot  Boot
	files *writtenFiles
	saved *memory
	logs  *logBuffer
	// sharing, observer and patient are of the next process.
	sharing  Sharing
	observer Observer
	patient  patience
}

func newBench(t *testing.T) *bench {
	t.Helper()
	return newBenchAt(t, start)
}

func newBenchAt(t *testing.T, now time.Time) *bench {
	t.Helper()
	clock := clocktesting.NewFakeClock(now)
	b := &bench{t: t, boot: upSince{clock, now}, vault: startPlayedVault(t, clock), time: clock, files: &writtenFiles{}, saved: &memory{}, logs: &logBuffer{}}
	b.begin()
	t.Cleanup(func() {
		b.end()
		if t.Failed() {
			t.Logf("log:\n%s", b.logs)
		}
		if strings.Contains(b.logs.String(), "canary") {
			t.Error("the log holds a secret")
		}
	})
	return b
}

// begin starts a process, and end stops it; the files and the state stay.
func (b *bench) begin() {
	b.t.Helper()
	b.start()
	if err := b.Resume(b.t.Context(), b.files.has); err != nil {
		b.t.Fatal(err)
	}
}

// start is begin without the records.
func (b *bench) start() {
	logger := textlogger.NewLogger(textlogger.NewConfig(textlogger.Output(b.logs), textlogger.Verbosity(10)))
	b.Provider = NewProvider(ProviderConfig{
		Logger: logger, Clients: vault.NewClientPool(vault.Config{Logger: logger}), Renderer: templatetest.Renderer{},
		Files: b.files, Store: b.saved, Clock: b.time, Boot: b.boot, Sharing: b.sharing, Observer: b.observer,
	})
	if b.patient != (patience{}) {
		b.Provider.patience = b.patient
	}
}

func (b *bench) end() {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	b.Stop(ctx)
}

const (
	databaseTemplate = `{{ with secret "database/creds/app" }}{{ .Data.username }}{{ end }}`
	staticTemplate   = `{{ with secret "kv/static" }}{{ .Data.value }}{{ end }}`
)

func (b *bench) request(volumeID string, templates ...string) Request {
	r := Request{
		VolumeID: volumeID, PodUID: "pod", Pod: "default/" + volumeID, Endpoint: Endpoint{Address: b.vault.URL},
		Options: ClientOptions{MaxRetries: vault.NoRetries, Timeout: 10 * time.Second}, Login: Login{Mount: "auth/jwt", Role: "app", JWT: "jwt-1"},
	}
	for _, text := range templates {
		r.Files = append(r.Files, FileSpec{Template: Template{Name: "file", Text: text}})
	}
	return r
}

func (b *bench) open(r Request) {
	b.t.Helper()
	contents, err := b.Open(b.t.Context(), r)
	if err != nil {
		b.t.Fatal(err)
	}
	b.files.put(r.VolumeID, contents)
}

// next is when something is due, zero for never.
func (b *bench) next() time.Time {
	var next time.Time
	// Twice: between two looks at tasks, the one may have woken the other, and ended.
	for range 2 {
		for _, status := range b.Volumes() {
			next = earlier(next, status.Next)
		}
	}
	return next
}

// settle waits until all that is due is done.
func (b *bench) settle() {
	b.t.Helper()
	waitFor(b.t, func() bool {
		next := b.next()
		return next.IsZero() || next.After(b.time.Now())
	})
}

// pass lets time go by, from one thing that is due to the next. After each, and
// just before, it calls check.
func (b *bench) pass(duration time.Duration, check func()) {
	b.t.Helper()
	end := b.time.Now().Add(duration)
	for {
		b.settle()
		check()
		next := b.next()
		if next.IsZero() || next.After(end) {
			break
		}
		// By steps, which leave the wall clock set as it is.
		b.time.Step(next.Sub(b.time.Now()) - time.Nanosecond)
		check()
		b.time.Step(time.Nanosecond)
	}
	b.time.Step(end.Sub(b.time.Now()))
	b.settle()
	check()
}

func (b *bench) requireContent(volumeID, want string) {
	b.t.Helper()
	if got := b.files.content(volumeID); got != want {
		b.t.Errorf("%s holds %q, want %q", volumeID, got, want)
	}
}

func (b *bench) requireCount(what string, want int) {
	b.t.Helper()
	if got := b.vault.count(what); got != want {
		b.t.Errorf("Vault had %d requests for %s, want %d", got, what, want)
	}
}

// requireOpens holds the credentials in a volume against the database.
func (b *bench) requireOpens(volumeID string) {
	b.t.Helper()
	credentials := b.files.content(volumeID)
	if !b.vault.opens(credentials) {
		b.t.Fatalf("%s holds dead credentials %q after %s", volumeID, credentials, b.time.Now().Sub(start))
	}
}

// writtenFiles stands for the driver.
type writtenFiles struct {
	mutex    sync.Mutex
	contents map[string]string
	writes   int
	err      error                               // of the next Replace
	panicsOn string                              // a volume
	refuse   func(contents []RenderedFile) error // of those contents, nil for none
}

func (f *writtenFiles) put(volumeID string, contents []RenderedFile) {
	f.mutex.Lock()
	defer f.mutex.Unlock()
	if f.contents == nil {
		f.contents = map[string]string{}
	}
	var parts []string
	for _, rendered := range contents {
		parts = append(parts, string(rendered.Content))
	}
	f.contents[volumeID] = strings.Join(parts, "|")
}

// Replace implements Files.
func (f *writtenFiles) Replace(volumeID string, contents []RenderedFile) error {
	f.mutex.Lock()
	err, panics := f.err, f.panicsOn == volumeID
	f.writes++
	f.mutex.Unlock()
	if panics {
		panic("canary")
	}
	if err == nil && f.refuse != nil {
		err = f.refuse(contents)
	}
	if err != nil {
		return err
	}
	f.put(volumeID, contents)
	return nil
}

func (f *writtenFiles) fail(err error) {
	f.mutex.Lock()
	defer f.mutex.Unlock()
	f.err = err
}

func (f *writtenFiles) content(volumeID string) string {
	f.mutex.Lock()
	defer f.mutex.Unlock()
	return f.contents[volumeID]
}

func (f *writtenFiles) has(volumeID string) bool { return f.content(volumeID) != "" }

func (f *writtenFiles) remove(volumeID string) {
	f.mutex.Lock()
	defer f.mutex.Unlock()
	delete(f.contents, volumeID)
}

// memory is a store.
type memory struct {
	mutex   sync.Mutex
	records map[string][]byte
	full    bool
	frozen  bool // it takes nothing any more, as of a process that was killed
	saves   map[string]int
	// waits is called before a record is saved or deleted.
	waits func(key string)
}

func (m *memory) wait(key string) {
	m.mutex.Lock()
	waits := m.waits
	m.mutex.Unlock()
	if waits != nil {
		waits(key)
	}
}

// hold has all that saves or deletes a record with a prefix wait. held is closed when the
// first does, and release lets all go on.
func (m *memory) hold(prefix string) (held chan struct{}, release func()) {
	held, released := make(chan struct{}), make(chan struct{})
	var once sync.Once
	m.mutex.Lock()
	defer m.mutex.Unlock()
	m.waits = func(key string) {
		if strings.HasPrefix(key, prefix) {
			once.Do(func() { close(held) })
			<-released
		}
	}
	return held, func() { close(released) }
}

// saved counts how often records with a prefix were saved.
func (m *memory) saved(prefix string) int {
	m.mutex.Lock()
	defer m.mutex.Unlock()
	sum := 0
	for key, saves := range m.saves {
		if strings.HasPrefix(key, prefix) {
			sum += saves
		}
	}
	return sum
}

func (m *memory) freeze(frozen bool) {
	m.mutex.Lock()
	defer m.mutex.Unlock()
	m.frozen = frozen
}

// Save implements Store.
func (m *memory) Save(key string, record []byte) error {
	m.wait(key)
	m.mutex.Lock()
	defer m.mutex.Unlock()
	if m.full {
		return errors.New("no space left on device")
	}
	if m.frozen {
		return nil
	}
	if m.records == nil {
		m.records, m.saves = map[string][]byte{}, map[string]int{}
	}
	m.saves[key]++
	m.records[key] = bytes.Clone(record)
	return nil
}

// Delete implements Store.
func (m *memory) Delete(key string) error {
	m.wait(key)
	m.mutex.Lock()
	defer m.mutex.Unlock()
	delete(m.records, key)
	return nil
}

// Load implements Store.
func (m *memory) Load(prefix string) (map[string][]byte, error) {
	m.mutex.Lock()
	defer m.mutex.Unlock()
	found := maps.Clone(m.records)
	maps.DeleteFunc(found, func(key string, _ []byte) bool { return !strings.HasPrefix(key, prefix) })
	return found, nil
}

// change does something to each record with a prefix.
func (m *memory) change(prefix string, do func(record []byte) []byte) {
	m.mutex.Lock()
	defer m.mutex.Unlock()
	for key, record := range m.records {
		if strings.HasPrefix(key, prefix) {
			m.records[key] = do(record)
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
