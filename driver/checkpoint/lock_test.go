package checkpoint

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
)

func TestLockHasOneHolder(t *testing.T) {
	t.Parallel()
	directory := filepath.Join(t.TempDir(), "plugin", "state")
	held, err := Acquire(t.Context(), directory)
	if err != nil {
		t.Fatal(err)
	}
	over, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Acquire(over, directory); !errors.Is(err, ErrHeld) {
		t.Errorf("a second holder: %v", err)
	}
	for _, end := range []func(*Lock) error{(*Lock).Release, (*Lock).Remove} {
		next := make(chan *Lock, 1)
		go func() {
			lock, err := Acquire(t.Context(), directory)
			if err != nil {
				t.Errorf("whoever waited: %v", err)
			}
			next <- lock
		}()
		if err := end(held); err != nil {
			t.Fatal(err)
		}
		if held = <-next; held == nil {
			t.FailNow()
		}
		if _, err := Acquire(over, directory); !errors.Is(err, ErrHeld) {
			t.Errorf("beside whoever waited: %v", err)
		}
	}
	if err := held.Remove(); err != nil {
		t.Fatal(err)
	}
	if left, err := filepath.Glob(directory + "*"); err != nil || len(left) > 0 {
		t.Errorf("there is still %v, %v", left, err)
	}
}

// What is left of a driver that has nothing to remember is nothing; a record keeps
// the state where it is.
func TestDiscard(t *testing.T) {
	t.Parallel()
	directory := filepath.Join(t.TempDir(), "state")
	s := openIn(t, directory)
	if err := s.Save("volume-1", nil); err != nil {
		t.Fatal(err)
	}
	if err := s.Discard(); err != nil {
		t.Fatal(err)
	}
	s = openIn(t, directory)
	if got, err := s.Load(""); err != nil || len(got) != 1 {
		t.Errorf("the record is gone: %v", err)
	}
	if err := s.Delete("volume-1"); err != nil {
		t.Fatal(err)
	}
	if err := s.Discard(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(directory); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the state is still there: %v", err)
	}
}
