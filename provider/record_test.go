package provider

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/vault/api"
	"k8s.io/utils/clock"

	"github.com/vaultmount/vaultmount/provider/cost"
	"github.com/vaultmount/vaultmount/provider/limits"
	"github.com/vaultmount/vaultmount/provider/template"
	"github.com/vaultmount/vaultmount/provider/vault"
)

// A record is written when something that it holds has changed, and not at each look at the
// volume.
func TestRecordIsSavedWhenItChanges(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	h.publish(h.request("v", staticTemplate))
	h.waitIdle()
	m := h.mount("v")
	saves := func() (n int) {
		m.change(func() { n = m.saves })
		return n
	}
	before := saves()
	for range 5 {
		h.advance(time.Second, func() {})
		m.getVolume().poke()
		h.waitIdle()
	}
	if got := saves(); got != before {
		t.Errorf("it was saved %d times more", got-before)
	}
	h.restart()
	h.waitIdle()
	if got := saves(); got != before {
		t.Errorf("at the start of the next process, it was saved %d times", got-before)
	}
	h.vault.change(func() { h.vault.static = "second" })
	h.advance(DefaultInterval, func() {})
	if got := saves(); got == before {
		t.Error("what was read is not saved")
	}
}

// A store that takes its time delays nobody but whose record it is: neither the status, nor
// calls for other volumes.
func TestSlowStoreDelaysNobodyElse(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	other := h.of("other", "w", h.vault.URL, staticTemplate)
	h.publish(h.of("default", "v", h.vault.URL, staticTemplate))
	h.publish(other)
	held, release := h.store.hold(RevocationPrefix)
	done := make(chan struct{})
	go func() {
		defer close(done)
		h.close("default-v")
	}()
	<-held
	if n := h.stats(); n.Volumes != 1 {
		t.Errorf("the numbers are %+v", n)
	}
	h.republish(other)
	h.vault.change(func() { h.vault.static = "second" })
	h.time.Step(DefaultInterval)
	waitFor(t, func() bool { return h.content(other.VolumeID) == "second" })
	h.publish(h.of("another", "x", h.vault.URL, staticTemplate))
	release()
	<-done
}

// The records of revocations and shared sessions have a limit for each namespace.
func TestRecordsAtTheLimitAndOneAbove(t *testing.T) {
	t.Parallel()
	limit := limits.NamespaceTokenBytes.Max()
	r := newHarness(t).records
	for i, step := range []struct {
		namespace, key string
		size           int
		fails          bool
	}{
		{"a", "1", limit, false},
		{"a", "2", 1, true},
		{"a", "1", limit - 1, false}, // in the place of itself
		{"a", "2", 1, false},
		{"b", "3", limit, false}, // no other namespace has less for it
	} {
		err := r.count(step.namespace, step.key, step.size)
		var exceeded *limits.ExceededError
		if errors.As(err, &exceeded) != step.fails || step.fails && exceeded.Limit != limits.NamespaceTokenBytes {
			t.Errorf("step %d: %v", i, err)
		}
	}
	r.remove("1")
	r.remove("2")
	if err := r.count("a", "4", limit); err != nil || r.sizes["a"] != limit {
		t.Errorf("after they are removed: %v, %d", err, r.sizes["a"])
	}
	if err := decode(make([]byte, limits.CheckpointBytes.Max()+1), &volumeRecord{}); err == nil || !strings.Contains(err.Error(), "(checkpoint-bytes)") {
		t.Errorf("a record that is too large: %v", err)
	}
}

// A token whose record is over the limit is revoked all the same.
func TestRevocationOverTheLimitIsNotSaved(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	h.publish(h.request("v", staticTemplate))
	if err := h.records.count("default", "another", limits.NamespaceTokenBytes.Max()); err != nil {
		t.Fatal(err)
	}
	h.close("v")
	h.vault.awaitNoToken(t)
	if got := strings.Count(h.logs.String(), "Vault token not saved"); got != 1 || !strings.Contains(h.logs.String(), "(namespace-token-bytes)") {
		t.Errorf("it is logged %d times", got)
	}
}

// The wall clock of the node is set, in either direction, while the driver runs and while
// it does not: what is due is so after the time that has gone by.
func TestClockThatIsSetChangesNoDeadline(t *testing.T) {
	t.Parallel()
	for name, step := range map[string]time.Duration{"ahead": 1000 * time.Hour, "back": -1000 * time.Hour} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHarness(t)
			h.publish(h.request("v", databaseTemplate, staticTemplate))
			h.end()
			// The clock of the test tells the uptime as well, so that is moved back.
			h.uptimeOffset -= step
			h.time.SetTime(h.time.Now().Add(step))
			h.vault.change(func() { h.vault.shift(step) })
			h.begin()
			h.advance(5*time.Minute, func() { h.requireOpens("v") })
			h.requireCount("auth/jwt/login", 1)
			if got := h.vault.count("database/creds/app"); got < 5 || got > 7 {
				t.Errorf("%d credentials were issued in 5 minutes", got)
			}
			if got := h.vault.count("kv/static"); got > 3 {
				t.Errorf("the static secret was read %d times in 5 minutes", got)
			}
		})
	}
}

// Each template knows the keys of the volume's Secret; the record has them once.
func TestRecordHoldsThePodOnce(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	r := h.request("v", make([]string, limits.Files.Max())...)
	keys := map[string]string{"key": strings.Repeat("<", 1<<20)}
	for i := range r.Files {
		r.Files[i].Template = Template{Name: fmt.Sprint(i), Text: "{{ 1 }}", Pod: Pod{SecretKeys: keys}}
	}
	v := h.newVolume(r, nil)
	if got := len(encode(v.record())); got > 2<<20 {
		t.Errorf("it has %d bytes", got)
	}
	r2 := &volumeRecord{}
	if err := decode(encode(v.record()), r2); err != nil {
		t.Fatal(err)
	}
	if got := h.restoreVolume(r2, nil).files; len(got) != len(r.Files) || got[1].Template.Pod.SecretKeys["key"] != keys["key"] {
		t.Error("the files are others after a restart")
	}
}

// The clock goes on while Vault answers: what its response grants begins before.
func TestLeaseBeginsWhenItIsRequested(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	const slow = 5 * time.Second
	h.vault.change(func() {
		h.vault.override = func(_ http.ResponseWriter, r *http.Request) bool {
			if strings.HasSuffix(r.URL.Path, "creds/app") || strings.HasSuffix(r.URL.Path, "/login") {
				h.time.Step(slow)
			}
			return false
		}
	})
	before := h.time.Now()
	h.publish(h.request("v", databaseTemplate))
	status := h.statuses()[0]
	if want := before.Add(h.vault.tokenTTL); !status.Session.Expires.Equal(want) {
		t.Errorf("the token ends at %s, want %s", status.Session.Expires, want)
	}
	if want := before.Add(slow + h.vault.leaseTTL); !status.Secrets[0].Expires.Equal(want) {
		t.Errorf("the lease ends at %s, want %s", status.Secrets[0].Expires, want)
	}
}

var update = flag.Bool("update", false, "write the golden records of the current version")

func sampleVolume(m *Manager) *Volume {
	failed := retryState{err: &persistedError{text: "no such secret", kind: ErrNotFound}, failures: 20}
	misfit := retryState{err: &persistedError{text: "it does not fit"}, failures: 2}
	value := func(name string) template.Value {
		return template.Value{Secret: &api.Secret{
			RequestID: "r", LeaseID: "database/creds/app/" + name, LeaseDuration: 20, Renewable: true, Warnings: []string{"w"},
			Data: map[string]any{"username": name, "<n>": json.Number("1.50"), "none": nil, "list": []any{json.Number("1"), "x", true}},
		}}
	}
	accepted := value("accepted")
	v := m.newVolume(Request{VolumeID: "csi-1", Pod: "default/app", Size: 5, Files: []FileSpec{{Template: Template{
		Name: "a", Text: "{{ 1 }}", LeftDelim: "{{", RightDelim: "}}", ErrorOnMissingKey: true,
		Pod: Pod{MountPath: "/etc/app", Environment: map[string]string{"POD_NAME": "app"}, SecretKeys: map[string]string{"app.conf": "x"}},
	}}, {Template: Template{Name: "token"}, Token: true}}}, nil)
	v.policy = RefreshPolicy{Disabled: true, StaticInterval: time.Minute, LeaseRenewalThreshold: 0.5, SkipRevoke: true}
	v.volumeState = volumeState{Session: sampleSession(m), IsDirty: true, FileGeneration: 2, Retry: failed, Refreshed: boot}
	for _, d := range []*dependency{
		{
			Key: keyOf("database/creds/app"), Value: value("u"), IsCandidate: true, Accepted: &accepted, Misfit: misfit,
			Lease: newLease(boot, 20*time.Second, true), FetchedAt: boot, Generation: 2, Due: boot + 6*time.Second,
		},
		{Key: template.NewWrite("pki/issue/app", map[string]string{"common_name": "app", "ttl": "1h"}), IsSensitive: true, FetchedAt: boot},
		{Key: template.Dependency{Verb: template.List, Path: "kv"}, Value: template.Value{Names: []string{"a", "b"}}, FetchedAt: boot, Due: boot, Retry: failed},
	} {
		if !d.IsCandidate {
			d.accept()
		}
		v.deps[d.Key] = d
	}
	return v
}

func sampleSession(m *Manager) *session {
	return &session{manager: m, Config: loginConfig{
		Endpoint: Endpoint{Address: "https://vault:8200", Proxy: "http://proxy", ServerName: "vault", SkipVerify: true, CACert: "CA", ClientCert: "cert", ClientKey: "key"},
		Options:  ClientOptions{Namespace: "ns", Timeout: time.Second, MaxRetries: -1, MinBackoff: time.Second, MaxBackoff: time.Minute},
		Login:    Credentials{Mount: "auth/jwt", Role: "app", JWT: "jwt", Audience: "vault", RoleID: "r", SecretID: "s", ServiceAccount: "default/app"},
	}, Generation: 2, Tokens: []issuedToken{sampleToken()}}
}

func sampleToken() issuedToken {
	token := vault.Token{Secret: "hvs.x", TTL: time.Hour, Renewable: true}
	return issuedToken{Generation: 2, Token: token, Lease: newLease(boot, time.Hour, true), IssuedAt: boot, Due: boot + 20*time.Minute}
}

func sampleRecords(m *Manager) map[string]versioned {
	volume, session := sampleVolume(m), sampleSession(m)
	return map[string]versioned{
		"volume":     volume.record(),
		"shared":     &sharedRecord{Version: recordVersion, Key: "k", Namespace: "default", IsRevoke: true, Session: session},
		"revocation": &revocationRecord{Version: recordVersion, Namespace: "default", Config: session.Config, Token: sampleToken()},
	}
}

func emptyRecords() map[string]versioned {
	return map[string]versioned{"volume": &volumeRecord{}, "shared": &sharedRecord{}, "revocation": &revocationRecord{}}
}

// Records as the current version writes them. A change that breaks them needs a new
// version, so that no record is misread.
func TestRecordsAreReadAsTheyWereWritten(t *testing.T) {
	t.Parallel()
	for kind, want := range sampleRecords(newHarness(t).Manager) {
		path := filepath.Join("testdata", fmt.Sprintf("record-v%d", recordVersion), kind+".json")
		if *update {
			var indented bytes.Buffer
			if err := json.Indent(&indented, encode(want), "", "  "); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, append(indented.Bytes(), '\n'), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		got := emptyRecords()[kind]
		if err := decode(text, got); err != nil || !bytes.Equal(encode(got), encode(want)) {
			t.Errorf("%s: got %+v, %v", kind, got, err)
		}
	}
}

func TestVolumeSurvivesItsRecord(t *testing.T) {
	t.Parallel()
	m := newHarness(t).Manager
	want, r := sampleVolume(m), &volumeRecord{}
	if err := decode(encode(want.record()), r); err != nil {
		t.Fatal(err)
	}
	got := m.restoreVolume(r, nil)
	if !reflect.DeepEqual(got.deps, want.deps) || !reflect.DeepEqual(got.files, want.files) || !reflect.DeepEqual(got.volumeState, want.volumeState) {
		t.Errorf("got %+v", got)
	}
	if !errors.Is(got.failure, ErrNotFound) {
		t.Errorf("its error is %v", got.failure)
	}
}

// FuzzDecodeRecord looks for a record that takes the process down, or that is not the same
// once it was saved again.
func FuzzDecodeRecord(f *testing.F) {
	m := New(Config{Clock: clock.RealClock{}, Clients: vault.NewClientPool(vault.Config{})})
	for _, r := range sampleRecords(m) {
		f.Add(encode(r))
	}
	f.Add([]byte(`{"Version":3,"VolumeID":"v","Session":{},"Files":[{}],"Pods":[{}],"Dependencies":[{"Key":{"Verb":"write","Path":"\u0000"}}]}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		for kind, first := range emptyRecords() {
			var err error
			cost.Assert(t, len(text), func() { err = decode(text, first) })
			if err != nil {
				continue
			}
			again := emptyRecords()[kind]
			if err := decode(encode(first), again); err != nil {
				t.Fatalf("a %s does not survive: %v", kind, err)
			}
			if r, ok := first.(*volumeRecord); ok {
				r.SharedKey = ""
				v := m.restoreVolume(r, nil)
				v.updateStatus(0)
				encode(v.record())
			}
		}
	})
}
