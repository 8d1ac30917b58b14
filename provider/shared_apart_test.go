package provider

import (
	"errors"
	"strings"
	"testing"
	"time"
)

// What Vault makes for one pod is under that pod's own token, and goes with it.
func TestLeasedSecretsHaveALoginOfTheirOwn(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		output FileSpec
		path   string
	}{
		"credentials": {FileSpec{Template: Template{Name: "a", Text: databaseTemplate}}, "database/creds/app"},
		"a rotated password": {FileSpec{Template: Template{Name: "a",
			Text: `{{ with secret "database/static-creds/app" }}{{ .Data.username }}{{ end }}`}}, "database/static-creds/app"},
		"a write": {FileSpec{Template: Template{Name: "a",
			Text: `{{ with secret "transit/encrypt/app" "plaintext=eA==" }}{{ .Data.ciphertext }}{{ end }}`}}, "transit/encrypt/app"},
		"a lease of a KV": {FileSpec{Template: Template{Name: "a", Text: `{{ with secret "kv/leased" }}{{ .Data.value }}{{ end }}`}}, ""},
		"the token":       {FileSpec{Template: Template{Name: "a"}, Token: true}, ""},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newSharingBench(t)
			b.vault.change(func() { b.vault.leaseTTL, b.vault.leaseMax = time.Hour, 24*time.Hour })
			for i := range 2 {
				r := b.replica(i, staticTemplate)
				r.Files = append(r.Files, test.output)
				b.open(r)
			}
			b.requireCount("auth/jwt/login", 3)
			b.requireCount("kv/static", 1)
			if test.path != "" {
				b.requireCount(test.path, 2)
			}
			if status := b.Volumes()[0]; status.Session.Logins != 1 || status.Session.Pods != 1 || status.Shared.Logins != 1 || status.Shared.Pods != 2 {
				t.Errorf("the status is %+v, %+v", status.Session, status.Shared)
			}
			b.closeReplica(0)
			waitFor(t, func() bool { return b.vault.aliveTokens() == 2 })
			b.pass(time.Hour, func() {})
			b.end()
			b.begin()
			b.pass(time.Hour, func() {})
			b.requireCount("auth/jwt/login", 3)
			if test.path == "database/creds/app" {
				b.requireCount(test.path, 2)
			}
			b.closeReplica(1)
			b.vault.awaitNoToken(t)
		})
	}
}

// A node of pods with nothing to share pays no login for it once it knows the mount.
func TestNothingSharedIsNoSharedLogin(t *testing.T) {
	t.Parallel()
	b := newSharingBench(t)
	b.open(b.replica(0, databaseTemplate))
	b.closeReplica(0)
	b.vault.awaitNoToken(t)
	before := b.vault.count("auth/jwt/login")
	b.open(b.replica(1, databaseTemplate))
	b.requireCount("auth/jwt/login", before+1)
	b.pass(5*time.Minute, func() { b.requireOpens(b.replica(1).VolumeID) })
}

func TestNothingElseIsSharedAmongPods(t *testing.T) {
	t.Parallel()
	b := newSharingBench(t)
	change := map[string]func(*Request){
		"the same":            func(*Request) {},
		"service account":     func(r *Request) { r.Login.ServiceAccount = "default/other" },
		"kubernetes":          func(r *Request) { r.Login.ServiceAccount = "other/app" },
		"no service account":  func(r *Request) { r.Login.ServiceAccount = "" },
		"role":                func(r *Request) { r.Login.Role = "other" },
		"audience":            func(r *Request) { r.Login.Audience = "other" },
		"namespace":           func(r *Request) { r.Options.Namespace = "other" },
		"address":             func(r *Request) { r.Endpoint.Address += "/" },
		"server name":         func(r *Request) { r.Endpoint.ServerName = "other" },
		"approle":             func(r *Request) { r.Login.RoleID = "r" },
		"refresh off":         func(r *Request) { r.Refresh.Disabled = true },
		"no account either":   func(r *Request) { r.Login.ServiceAccount = "" },
		"another approle":     func(r *Request) { r.Login.RoleID = "r" },
		"another refresh off": func(r *Request) { r.Refresh.Disabled = true },
	}
	for name, change := range change {
		r := b.replica(0, staticTemplate)
		r.VolumeID, r.PodUID = name, name
		change(&r)
		b.open(r)
	}
	b.requireCount("auth/jwt/login", len(change))
	for name, change := range map[string]func(*Request){
		"authorities": func(r *Request) { r.Endpoint.CACert = "other" },
		"certificate": func(r *Request) { r.Endpoint.ClientCert, r.Endpoint.ClientKey = "cert", "key" },
	} {
		same, _ := b.sharedKey(b.replica(0))
		r := b.replica(1)
		change(&r)
		if key, shares := b.sharedKey(r); shares && key == same {
			t.Errorf("pods share a login whose %s differ", name)
		}
	}
}

// Without the setting, each pod is by itself, service account or not.
func TestNothingIsSharedByDefault(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.openReplicas(staticTemplate)
	b.requireCount("auth/jwt/login", replicas)
	b.requireCount("kv/static", replicas)
	if n := b.Numbers(); n.Sessions != replicas || n.SessionsShared != 0 || n.VolumesSharing != 0 || b.Volumes()[0].Shared != nil {
		t.Errorf("the numbers are %+v", n)
	}
}

func TestFailedLoginOfReplicasNamesNoFile(t *testing.T) {
	t.Parallel()
	b := newSharingBench(t)
	r := b.replica(0, staticTemplate)
	r.Login.JWT = "old"
	_, err := b.Open(t.Context(), r)
	if !errors.Is(err, ErrRefused) || errors.As(err, new(*FileError)) || !strings.Contains(err.Error(), `service account default/app`) {
		t.Errorf("got %v", err)
	}
	if n := b.Numbers(); n.Sessions != 0 || len(b.sessions) != 0 {
		t.Errorf("%d sessions are left", len(b.sessions))
	}
}

// A Vault that does not know its own tokens, as a node of a cluster that lags, is
// no reason to try with more of them.
func TestNewTokenIsNotKnownEither(t *testing.T) {
	t.Parallel()
	b := newSharingBench(t)
	b.vault.change(func() { b.vault.tokenTTL = 0 })
	if _, err := b.Open(t.Context(), b.replica(0, staticTemplate)); !errors.Is(err, ErrRefused) {
		t.Errorf("got %v", err)
	}
	b.requireCount("auth/jwt/login", 2)
}

// A token that no volume used in the end is revoked, whatever is to become of those
// that are.
func TestFailedOpenOfAReplicaLeavesNothing(t *testing.T) {
	t.Parallel()
	b := newSharingBench(t)
	r := b.replica(0, staticTemplate, databaseTemplate, `{{ with secret "kv/forbidden" }}{{ end }}`)
	r.Refresh.SkipRevoke = true
	if _, err := b.Open(t.Context(), r); !errors.Is(err, ErrRefused) {
		t.Errorf("got %v", err)
	}
	b.requireCount("auth/jwt/login", 2)
	b.vault.awaitNoToken(t)
	waitFor(t, func() bool { records, _ := b.saved.Load(""); return len(records) == 0 })
}
