package provider

import (
	"sync"
	"testing"
)

// sinkOf is the driver's side of one volume of a test.
type sinkOf struct {
	mutex  sync.Mutex
	record []byte
	files  []RenderedFile
}

func (s *sinkOf) Replace(files []RenderedFile) error {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	s.files = files
	return nil
}

func (s *sinkOf) Save(record []byte) error {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	s.record = record
	return nil
}

func (*sinkOf) Refreshed(_, _ error) {}

// A volume is published, refreshed, restored by another Manager, and closed.
func TestManagerKeepsAVolume(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.end()
	config := Config{Logger: b.Provider.logger, Clients: b.clients, Renderer: b.renderer, Store: b.saved, Clock: b.time}
	m, sink := New(config), &sinkOf{}
	v, files, err := m.Publish(t.Context(), b.request("v", staticTemplate), sink)
	if err != nil || string(files[0].Content) != "first" {
		t.Fatalf("got %v, %v", files, err)
	}
	v.Start()
	m.Shutdown(t.Context())
	m = New(config)
	if err := m.RestoreSessions(t.Context()); err != nil {
		t.Fatal(err)
	}
	if v, err = m.Restore(sink.record, sink); err != nil {
		t.Fatal(err)
	}
	m.FinishRestore()
	v.Start()
	b.vault.change(func() { b.vault.static = "second" })
	v.Refresh()
	waitFor(t, func() bool {
		sink.mutex.Lock()
		defer sink.mutex.Unlock()
		return len(sink.files) == 1 && string(sink.files[0].Content) == "second"
	})
	b.requireCount("auth/jwt/login", 1)
	v.Close()
	b.vault.awaitNoToken(t)
	m.Shutdown(t.Context())
	b.begin()
}
