package provider

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/vaultmount/vaultmount/provider/limits"
)

// A record is written when something that it holds has changed, and not at each look
// after the volume.
func TestRecordIsSavedWhenItChanges(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.open(b.request("v", staticTemplate))
	b.settle()
	before := b.saved.saved(volumePrefix)
	for range 5 {
		b.pass(time.Second, func() {})
		b.schedule.wake(b.find("v").task, b.time.Now())
		b.settle()
	}
	if got := b.saved.saved(volumePrefix); got != before {
		t.Errorf("it was saved %d times more", got-before)
	}
	b.restart()
	b.settle()
	if got := b.saved.saved(volumePrefix); got != before {
		t.Errorf("at the start of the next process, it was saved %d times", got-before)
	}
	b.vault.change(func() { b.vault.static = "second" })
	b.pass(DefaultInterval, func() {})
	if got := b.saved.saved(volumePrefix); got == before {
		t.Error("what was read is not saved")
	}
}

// A store that takes its time keeps nobody waiting but whose record it is: neither the
// status, nor calls for other volumes.
func TestSlowStoreDelaysNobodyElse(t *testing.T) {
	t.Parallel()
	for _, prefix := range []string{volumeKey("default-v"), sessionPrefix, revocationPrefix} {
		t.Run(prefix, func(t *testing.T) {
			t.Parallel()
			b := newBench(t)
			slow := b.of("default", "v", b.vault.URL, staticTemplate)
			other := b.of("other", "w", b.vault.URL, staticTemplate)
			b.open(slow)
			b.open(other)
			held, release := b.saved.hold(prefix)
			done := make(chan struct{})
			go func() {
				defer close(done)
				b.Close(slow.VolumeID)
				_, _ = b.Open(context.Background(), slow)
			}()
			<-held
			if n := b.Numbers(); n.Volumes != 1 || len(b.Volumes()) != 1 {
				t.Errorf("the numbers are %+v", n)
			}
			b.Republish(other)
			b.vault.change(func() { b.vault.static = "second" })
			b.time.Step(DefaultInterval)
			waitFor(t, func() bool { return b.files.content(other.VolumeID) == "second" })
			if prefix != sessionPrefix { // of which new ones have records
				if _, err := b.Open(t.Context(), b.of("another", "x", b.vault.URL, staticTemplate)); err != nil {
					t.Error(err)
				}
			}
			release()
			<-done
		})
	}
}

// The last volume of a pod goes while another one comes: the record of the session that
// ends is not deleted after that of the next one is saved.
func TestSessionThatEndsLeavesTheRecordOfTheNext(t *testing.T) {
	t.Parallel()
	for name, prefix := range map[string]string{"while its record is deleted": sessionPrefix, "while its token is put into the queue": revocationPrefix} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBench(t)
			b.open(b.request("v", staticTemplate))
			held, release := b.saved.hold(prefix)
			closed := make(chan struct{})
			go func() {
				defer close(closed)
				b.Close("v")
			}()
			<-held
			opened := make(chan error, 1)
			go func() {
				contents, err := b.Open(context.Background(), b.request("w", staticTemplate))
				b.files.put("w", contents)
				opened <- err
			}()
			if prefix == sessionPrefix { // for which the next one waits
				waitFor(t, func() bool { return b.vault.count("auth/jwt/login") == 2 })
			} else if err := <-opened; err != nil {
				t.Fatal(err)
			} else {
				opened <- nil
			}
			release()
			<-closed
			if err := <-opened; err != nil {
				t.Fatal(err)
			}
			b.files.remove("v")
			b.restart()
			if got := len(b.Volumes()); got != 1 {
				t.Errorf("%d volumes are resumed", got)
			}
			b.pass(DefaultInterval, func() {})
			b.requireCount("auth/jwt/login", 2)
			waitFor(t, func() bool { return b.vault.aliveTokens() == 1 })
		})
	}
}

func TestRecordsAtTheLimitAndOneAbove(t *testing.T) {
	t.Parallel()
	one, all := limits.CheckpointBytes.Max(), limits.NamespaceCheckpointBytes.Max()
	r := newBench(t).records
	steps := []struct {
		namespace, key string
		size           int
		want           limits.Limit
		fails          bool
	}{
		{"a", "1", one, 0, false},
		{"a", "1", one + 1, limits.CheckpointBytes, true},
		{"a", "2", all - one, 0, false},
		{"a", "3", 1, limits.NamespaceCheckpointBytes, true},
		{"a", "1", one - 1, 0, false}, // in the place of itself
		{"a", "3", 1, 0, false},
		{"b", "4", one, 0, false}, // no other namespace has less for it
	}
	for i, step := range steps {
		err := r.count(step.namespace, step.key, step.size)
		var exceeded *limits.ExceededError
		if errors.As(err, &exceeded) != step.fails || step.fails && exceeded.Limit != step.want {
			t.Errorf("step %d: %v", i, err)
		}
	}
	r.forget("1")
	r.forget("2")
	r.forget("3")
	if err := r.count("a", "5", one); err != nil || r.sizes["a"] != one {
		t.Errorf("after they are forgotten: %v, %d", err, r.sizes["a"])
	}
	if err := decode(make([]byte, one+1), &volumeRecord{}); err == nil || !strings.Contains(err.Error(), "(checkpoint-bytes)") {
		t.Errorf("a record that is too large: %v", err)
	}
}

// A volume with more state than its namespace may have works, and those of others are
// resumed. It logs in again after a restart.
func TestVolumeOverTheLimitOfItsNamespaceIsNotSaved(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	large := b.of("large", "v", b.vault.URL, staticTemplate)
	small := b.of("small", "v", b.vault.URL, staticTemplate)
	b.records.sizes["large"] = limits.NamespaceCheckpointBytes.Max() // of other volumes
	b.open(large)
	b.open(small)
	b.pass(DefaultInterval, func() {})
	if got := b.Numbers().Unsaved; got != 1 {
		t.Errorf("of %d namespaces, a record was not saved", got)
	}
	if got := strings.Count(b.logs.String(), "State not saved"); got != 1 || !strings.Contains(b.logs.String(), "(namespace-checkpoint-bytes)") {
		t.Errorf("it is logged %d times", got)
	}
	b.restart()
	if all := b.Volumes(); len(all) != 1 || all[0].VolumeID != small.VolumeID {
		t.Errorf("resumed are %v", all)
	}
	b.Republish(large)
	b.vault.change(func() { b.vault.static = "second" })
	b.pass(adoptSpread, func() {})
	b.requireContent(large.VolumeID, "second")
}

// A record that is too large is dropped with one line, and all others are resumed.
func TestTooLargeRecordIsDropped(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.open(b.of("large", "v", b.vault.URL, staticTemplate))
	b.open(b.of("small", "v", b.vault.URL, staticTemplate))
	b.end()
	key := volumeKey("large-v")
	b.saved.change(key, func(record []byte) []byte {
		return append(record, make([]byte, limits.CheckpointBytes.Max())...)
	})
	b.begin()
	if all := b.Volumes(); len(all) != 1 || all[0].VolumeID != "small-v" {
		t.Errorf("resumed are %v", all)
	}
	if got := strings.Count(b.logs.String(), "Record dropped"); got != 1 {
		t.Errorf("it is logged %d times", got)
	}
	if left, _ := b.saved.Load(key); len(left) != 0 {
		t.Error("it is still there")
	}
}

// Each template knows the keys of the volume's Secret; the record has them once.
func TestRecordHoldsThePodOnce(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	r := b.request("v", make([]string, limits.Files.Max())...)
	keys := map[string]string{"key": strings.Repeat("<", 1<<20)}
	for i := range r.Files {
		r.Files[i].Template = Template{Name: fmt.Sprint(i), Text: "{{ 1 }}", Pod: Pod{SecretKeys: keys}}
	}
	v := newVolume(b.Provider, r)
	v.session = &session{}
	if got := len(encode(v.record())); got > 2<<20 {
		t.Errorf("it has %d bytes", got)
	}
	if got := v.record().outputs(); len(got) != len(r.Files) || got[1].Template.Pod.SecretKeys["key"] != keys["key"] {
		t.Error("the outputs are others after a restart")
	}
}

// The clock goes on while Vault answers: what its answer grants begins before.
func TestLeaseBeginsWhenItIsAskedFor(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	const slow = 5 * time.Second
	b.vault.change(func() {
		b.vault.instead = func(_ http.ResponseWriter, r *http.Request) bool {
			if strings.HasSuffix(r.URL.Path, "creds/app") || strings.HasSuffix(r.URL.Path, "/login") {
				b.time.Step(slow)
			}
			return false
		}
	})
	v := newVolume(b.Provider, b.request("v", databaseTemplate))
	b.join(v, b.request("v", databaseTemplate))
	before := b.time.Now()
	if _, err := v.open(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	if got, want := v.session.grants[0].Term.Expires, before.Add(b.vault.tokenTTL); !got.Equal(want) {
		t.Errorf("the token ends at %s, want %s", got, want)
	}
	if got, want := v.answers[queryOf("database/creds/app")].lease.Expires, before.Add(slow+b.vault.leaseTTL); !got.Equal(want) {
		t.Errorf("the lease ends at %s, want %s", got, want)
	}
	v.shut()
	b.leave(v, true)
}
