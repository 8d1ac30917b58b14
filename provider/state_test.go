package provider

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/vault/api"
	clocktesting "k8s.io/utils/clock/testing"

	"github.com/vaultmount/vaultmount/provider/cost"
	render "github.com/vaultmount/vaultmount/provider/template"
	"github.com/vaultmount/vaultmount/provider/vault"
)

var update = flag.Bool("update", false, "write the golden files of the current version of the state")

func sampleAnswers() answers {
	read := render.Dependency{Verb: render.Read, Path: "database/creds/app"}
	write := render.NewWrite("pki/issue/app", map[string]string{"common_name": "app", "ttl": "1h"})
	issue := render.NewIssue("pki/issue/app", map[string]string{"common_name": "app"})
	list := render.Dependency{Verb: render.List, Path: "kv"}
	all := answers{
		read: {query: read, said: render.Value{Secret: &api.Secret{
			RequestID: "r", LeaseID: "database/creds/app/1", LeaseDuration: 20, Renewable: true, Warnings: []string{"w"},
			Data: map[string]any{"username": "u", "<n>": json.Number("1.50"), "none": nil, "list": []any{json.Number("1"), "x", true}},
		}}, lease: newTerm(start, 20*time.Second, true), token: 2, due: start.Add(6 * time.Second)},
		write: {query: write, said: render.Value{Secret: &api.Secret{Data: map[string]any{"certificate": "PEM", "expiration": json.Number("1767330245")}}}, token: 2},
		issue: {query: issue, said: render.Value{Secret: &api.Secret{Data: map[string]any{"certificate": "PEM", "private_key": "PEM"}}}, token: 2, due: start.Add(time.Hour)},
		list:  {query: list, said: render.Value{Names: []string{"a", "b"}}, token: 2, due: start.Add(time.Minute)},
	}
	for _, each := range all {
		each.accept()
	}
	return all
}

// sampleCandidates are answers that the files are not made of so far.
func sampleCandidates() answers {
	all := sampleAnswers()
	for _, each := range all {
		each.isCandidate = true
	}
	all[queryOf("database/creds/app")].said = render.Value{Secret: &api.Secret{LeaseID: "database/creds/app/2", Data: map[string]any{"username": "v"}}}
	all[render.Dependency{Verb: render.List, Path: "kv"}].said = render.Value{}
	all[render.NewIssue("pki/issue/app", map[string]string{"common_name": "app"})].accepted = nil
	return all
}

func TestTroubleSurvivesTheState(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		err    error
		passes bool
	}{
		"none":                      {nil, false},
		"what somebody has to mend": {fmt.Errorf("read kv/a: %w", ErrNotFound), false},
		"what passes by itself":     {fmt.Errorf("read kv/a: %w", ErrUnavailable), true},
		"a node that is busy":       {fmt.Errorf("render: %w", ErrRendererUnavailable), true},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var before trouble
			if test.err != nil {
				before.add(test.err, start, time.Time{}, rand.Float64)
				before.add(test.err, start, time.Time{}, rand.Float64)
			}
			query := render.Dependency{Verb: render.Read, Path: "kv/a"}
			after := decodeAnswers(encodeAnswers(answers{query: {query: query, trouble: before}}))[query].trouble
			if fmt.Sprint(after.err) != fmt.Sprint(before.err) || after.failures != before.failures || passes(after.err) != test.passes {
				t.Errorf("%+v is read as %+v", before, after)
			}
		})
	}
}

func sampleOutputs() []FileSpec {
	return []FileSpec{{Template: Template{
		Name: "a", Text: "{{ 1 }}", LeftDelim: "{{", RightDelim: "}}", ErrorOnMissingKey: true,
		Pod: Pod{MountPath: "/etc/app", Environment: map[string]string{"POD_NAME": "app"}, SecretKeys: map[string]string{"app.conf": "x"}},
	}}, {Template: Template{Name: "token"}, Token: true}}
}

func sampleRecords() map[string]record {
	sum := digest([]RenderedFile{{Content: []byte("content")}})
	with := means{
		Endpoint: Endpoint{Address: "https://vault:8200", Proxy: "http://proxy", ServerName: "vault", SkipVerify: true, CACert: "CA", ClientCert: "cert", ClientKey: "key"},
		Options:  ClientOptions{Namespace: "ns", Timeout: time.Second, MaxRetries: -1, MinBackoff: time.Second, MaxBackoff: time.Minute},
		Login:    Login{Mount: "auth/jwt", Role: "app", JWT: "jwt", Audience: "vault", RoleID: "r", SecretID: "s", ServiceAccount: "default/app"},
	}
	held := grant{Serial: 2, Token: vault.Token{Secret: "hvs.x", TTL: time.Hour, Renewable: true}, Term: newTerm(start, time.Hour, true), Due: start.Add(20 * time.Minute)}
	outputs, pods := encodeOutputs(sampleOutputs())
	records := map[string]record{
		"volume": &volumeRecord{
			Version: stateVersion, VolumeID: "csi-1", Pod: "default/app", Session: "k", Endpoint: with.Endpoint, Options: with.Options,
			Outputs: outputs, Pods: pods,
			Refresh: RefreshPolicy{Disabled: true, StaticInterval: time.Minute, LeaseRenewalThreshold: 0.5, SkipRevoke: true},
			Answers: encodeAnswers(sampleAnswers()), Written: sum[:], Stale: true, Shown: 2, Refreshed: start,
		},
		"session":    &sessionRecord{Version: stateVersion, Key: "k", Namespace: "default", Means: with, Serial: 2, Grants: []grant{held}, Revoke: true},
		"revocation": &revocationRecord{Version: stateVersion, Namespace: "default", Means: with, Grant: held},
	}
	// Of pods that share a login, or have none of their own so far.
	sharing, shared, unused := *records["volume"].(*volumeRecord), *records["session"].(*sessionRecord), *records["session"].(*sessionRecord)
	sharing.Shared, shared.Bearer = "s", "csi-1"
	unused.Serial, unused.Grants = 0, nil
	records["volume-sharing"], records["session-shared"], records["session-unused"] = &sharing, &shared, &unused
	// Of what failed when it was saved.
	failing, refused := *records["volume"].(*volumeRecord), *records["session"].(*sessionRecord)
	failing.Answers = slices.Clone(failing.Answers)
	failing.Answers[0].Trouble = &troubleRecord{Text: "no such secret", Failures: 20, Kind: "not-found"}
	failing.Trouble = &troubleRecord{Text: "unavailable for now", Failures: 3, Kind: "unavailable"}
	refused.Trouble = failing.Answers[0].Trouble
	records["volume-failing"], records["session-failing"] = &failing, &refused
	candidates := *records["volume"].(*volumeRecord)
	candidates.Answers = encodeAnswers(sampleCandidates())
	candidates.Answers[0].Misfit = &troubleRecord{Text: "it does not fit", Failures: 2}
	records["volume-candidates"] = &candidates
	// Of later programs, which note when they saved a record.
	l := timeline{clock: clocktesting.NewFakeClock(start), boot: upSince{clocktesting.NewFakeClock(start.Add(time.Hour)), start}}
	for _, kind := range []string{"volume", "session", "revocation"} {
		r := records[kind]
		stamped := newRecord(kind)
		if err := decode(encode(r), stamped); err != nil {
			panic(err)
		}
		l.stamp(stamped)
		records[kind+"-stamped"] = stamped
	}
	return records
}

func newRecord(kind string) record {
	kind, _, _ = strings.Cut(kind, "-")
	return map[string]record{"volume": &volumeRecord{}, "session": &sessionRecord{}, "revocation": &revocationRecord{}}[kind]
}

// Records as the current version writes them. A change that breaks them needs a new
// version, so that older records are not misread.
func TestStateIsReadAsItWasWritten(t *testing.T) {
	t.Parallel()
	for kind, want := range sampleRecords() {
		path := filepath.Join("testdata", "state-v2", kind+".json")
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
		got := newRecord(kind)
		if err := decode(text, got); err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%s: got %+v, %v\nwant %+v", kind, got, err, want)
		}
	}
}

func TestAnswersSurviveTheState(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]answers{"accepted": sampleAnswers(), "candidates": sampleCandidates()} {
		if got := decodeAnswers(encodeAnswers(want)); !reflect.DeepEqual(got, want) {
			t.Errorf("%s: got %+v", name, got)
		}
	}
}

// FuzzDecodeState looks for a record that takes the process down, or that is not
// the same once it was saved again.
func FuzzDecodeState(f *testing.F) {
	for _, r := range sampleRecords() {
		f.Add(encode(r))
	}
	f.Add([]byte(`{"Version":2,"VolumeID":"v","Session":"s","Outputs":[{}],"Answers":[{"Verb":"write","Path":"\u0000"}]}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		for _, kind := range []string{"volume", "session", "revocation"} {
			first := newRecord(kind)
			var err error
			cost.Assert(t, len(text), func() { err = decode(text, first) })
			if err != nil {
				continue
			}
			again := newRecord(kind)
			if err := decode(encode(first), again); err != nil {
				t.Fatalf("a %s does not survive: %v", kind, err)
			}
			l := timeline{clock: clocktesting.NewFakeClock(start), boot: noBoot{}}
			l.takeOver(first)
			l.stamp(first)
			if err := decode(encode(first), again); err != nil {
				t.Fatalf("a %s does not survive another process: %v", kind, err)
			}
			if v, ok := first.(*volumeRecord); ok {
				answers := decodeAnswers(v.Answers)
				answers.next()
				encodeAnswers(answers)
			}
		}
	})
}
