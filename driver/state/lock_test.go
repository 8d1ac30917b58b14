package state

import (
	"context"
	"errors"
	"path/filepath"
	"testing"
)

func TestLockHasOneHolder(t *testing.T) {
	t.Parallel()
	directory := filepath.Join(t.TempDir(), "plugin", "state")
	first, err := Acquire(t.Context(), directory)
	if err != nil {
		t.Fatal(err)
	}
	over, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Acquire(over, directory); !errors.Is(err, ErrHeld) {
		t.Errorf("a second holder: %v", err)
	}
	waiting := make(chan error, 1)
	go func() {
		second, err := Acquire(t.Context(), directory)
		if err == nil {
			err = second.Release()
		}
		waiting <- err
	}()
	if err := first.Release(); err != nil {
		t.Fatal(err)
	}
	if err := <-waiting; err != nil {
		t.Errorf("whoever waited: %v", err)
	}
}

// What is left of a driver that has nothing to remember is nothing; a record keeps
// the state where it is.
func TestDiscard(t *testing.T) {
	t.Parallel()
	directory := filepath.Join(t.TempDir(), "state")
	s, err := Open(inDirectory{}, directory)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Save("volume-1", nil); err != nil {
		t.Fatal(err)
	}
	if err := s.Discard(); err != nil {
		t.Fatal(err)
	}
	if got, err := s.Load(""); err != nil || len(got) != 1 {
		t.Errorf("the record is gone: %v", err)
	}
	if err := s.Delete("volume-1"); err != nil {
		t.Fatal(err)
	}
	if err := s.Discard(); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Load(""); err == nil {
		t.Error("the state is still there")
	}
}
