package provider

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/hashicorp/vault/api"

	"github.com/vaultmount/vaultmount/provider/template"
	"github.com/vaultmount/vaultmount/provider/vault"
)

// boot is a time since the node booted.
const boot = bootTime(time.Hour)

// never and always are the two ends of chance.
func never() float64  { return 0 }
func always() float64 { return 0.999999 }

func TestFetchAfter(t *testing.T) {
	t.Parallel()
	read, write := template.Dependency{Verb: template.Read, Path: "kv/a"}, template.NewWrite("pki/issue/app", map[string]string{"common_name": "a"})
	number := func(n int64) json.Number { return json.Number(fmt.Sprint(n)) }
	certificate := func(life time.Duration) map[string]any {
		return map[string]any{"certificate": "PEM", "expiration": number(start.Add(life).Unix())}
	}
	issued := func(ahead, ttl time.Duration) map[string]any {
		expiry := start.Add(ahead + ttl)
		return map[string]any{"certificate": newCertificate(start.Add(ahead), expiry), "expiration": number(expiry.Unix())}
	}
	seldom := RefreshPolicy{StaticInterval: time.Hour, LeaseRenewalThreshold: 0.5}
	tests := map[string]struct {
		refresh          RefreshPolicy
		query            template.Dependency
		secret           *api.Secret
		earliest, latest time.Duration // 0 for never
	}{
		"KV version 2":                     {RefreshPolicy{}, read, &api.Secret{}, 255 * time.Second, 285 * time.Second},
		"KV version 2, interval":           {seldom, read, &api.Secret{}, 51 * time.Minute, 57 * time.Minute},
		"KV version 1":                     {RefreshPolicy{}, read, &api.Secret{LeaseDuration: 2764800}, 255 * time.Second, 285 * time.Second},
		"KV version 1, its own TTL":        {RefreshPolicy{}, read, &api.Secret{LeaseDuration: 60}, 51 * time.Second, 55 * time.Second},
		"KV version 1, a TTL of a second":  {RefreshPolicy{}, read, &api.Secret{LeaseDuration: 1}, MinInterval, MinInterval},
		"list":                             {RefreshPolicy{}, template.Dependency{Verb: template.List, Path: "kv"}, nil, 255 * time.Second, 285 * time.Second},
		"lease that cannot be renewed":     {RefreshPolicy{}, read, &api.Secret{LeaseID: "l", LeaseDuration: 1000}, 850 * time.Second, 950 * time.Second},
		"lease, threshold of the volume":   {seldom, read, &api.Secret{LeaseID: "l", LeaseDuration: 1000}, 450 * time.Second, 550 * time.Second},
		"lease, threshold of the whole":    {RefreshPolicy{LeaseRenewalThreshold: 1}, read, &api.Secret{LeaseID: "l", LeaseDuration: 1000}, 950 * time.Second, 995 * time.Second},
		"a short lease leaves time":        {RefreshPolicy{}, read, &api.Secret{LeaseID: "l", LeaseDuration: 20}, 15 * time.Second, 15 * time.Second},
		"write of a very short lease":      {RefreshPolicy{}, write, &api.Secret{LeaseID: "l", LeaseDuration: 4}, 3 * time.Second, 3 * time.Second},
		"write of a lease":                 {RefreshPolicy{}, write, &api.Secret{LeaseID: "l", LeaseDuration: 1000}, 850 * time.Second, 950 * time.Second},
		"certificate":                      {RefreshPolicy{}, write, &api.Secret{Data: certificate(1000 * time.Second)}, 850 * time.Second, 950 * time.Second},
		"certificate, short":               {RefreshPolicy{}, write, &api.Secret{Data: certificate(30 * time.Second)}, 25 * time.Second, 25 * time.Second},
		"certificate of pkiCert":           {RefreshPolicy{}, template.NewIssue("pki/issue/app", nil), &api.Secret{Data: certificate(1000 * time.Second)}, 850 * time.Second, 950 * time.Second},
		"certificate, over":                {RefreshPolicy{}, write, &api.Secret{Data: certificate(-time.Second)}, MinInterval, MinInterval},
		"certificate that is only read":    {RefreshPolicy{}, read, &api.Secret{Data: certificate(time.Hour)}, 255 * time.Second, 285 * time.Second},
		"certificate without expiration":   {RefreshPolicy{}, write, &api.Secret{Data: map[string]any{"certificate": "PEM"}}, 0, 0},
		"secret id":                        {RefreshPolicy{}, write, &api.Secret{Data: map[string]any{"secret_id": "s", "secret_id_ttl": number(1000)}}, 850 * time.Second, 950 * time.Second},
		"secret id that does not end":      {RefreshPolicy{}, write, &api.Secret{Data: map[string]any{"secret_id": "s", "secret_id_ttl": number(0)}}, 0, 0},
		"token that a template made":       {RefreshPolicy{}, write, &api.Secret{Auth: &api.SecretAuth{LeaseDuration: 1000}}, 850 * time.Second, 950 * time.Second},
		"encryption":                       {RefreshPolicy{}, write, &api.Secret{Data: map[string]any{"ciphertext": "vault:v1:x"}}, 0, 0},
		"write that Vault answers by none": {RefreshPolicy{}, write, nil, 0, 0},
		"static role":                      {seldom, read, &api.Secret{Data: map[string]any{"rotation_period": number(86400), "ttl": number(7200)}}, 7201 * time.Second, 7202 * time.Second},
		"static role by schedule":          {seldom, read, &api.Secret{Data: map[string]any{"rotation_schedule": "0 * * * *", "ttl": number(60)}}, 61 * time.Second, 62 * time.Second},
		"static role, now":                 {RefreshPolicy{}, read, &api.Secret{Data: map[string]any{"rotation_period": number(86400), "ttl": number(0)}}, time.Second, 2 * time.Second},
		"a key called ttl":                 {RefreshPolicy{}, read, &api.Secret{Data: map[string]any{"ttl": number(1)}}, 255 * time.Second, 285 * time.Second},
		"certificate, node's clock behind": {RefreshPolicy{}, write, &api.Secret{Data: issued(time.Hour, 1000*time.Second)}, 850 * time.Second, 950 * time.Second},
		"certificate, node's clock ahead":  {RefreshPolicy{}, write, &api.Secret{Data: issued(-time.Hour, 1000*time.Second)}, 850 * time.Second, 950 * time.Second},
		"certificate of a minute":          {RefreshPolicy{}, write, &api.Secret{Data: issued(0, time.Minute)}, 51 * time.Second, 55 * time.Second},
		"refresh off":                      {RefreshPolicy{Disabled: true}, read, &api.Secret{LeaseID: "l", LeaseDuration: 20}, 0, 0},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for _, want := range []struct {
				jitter jitter
				after  time.Duration
			}{{never, test.earliest}, {always, test.latest}} {
				got := test.refresh.withDefaults().fetchAfter(test.query, template.Value{Secret: test.secret}, start, want.jitter)
				if off := got - want.after; off < -time.Millisecond || off > time.Millisecond {
					t.Errorf("due after %s, want %s", got, want.after)
				}
			}
		})
	}
}

func TestLeaseDue(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		lease            lease
		earliest, latest time.Duration
	}{
		"renewable":               {newLease(boot, 60*time.Second, true), 15 * time.Second, 20 * time.Second},
		"renewable, almost over":  {lease{InitialTTL: time.Minute, ExpireTime: boot + 3*time.Second, Renewable: true}, 750 * time.Millisecond, time.Second},
		"capped":                  {newLease(boot, 20*time.Second, true).renewed(boot, 13*time.Second, true), 8 * time.Second, 7 * time.Second},
		"capped, almost over":     {newLease(boot, 20*time.Second, true).renewed(boot, 2*time.Second, true), 0, 0},
		"not renewable":           {newLease(boot, 100*time.Second, false), 75 * time.Second, 70 * time.Second},
		"not renewable, and long": {newLease(boot, 768*time.Hour, false), 767 * time.Hour, 768*time.Hour - 72*time.Minute},
		"over":                    {newLease(boot-time.Hour, time.Minute, true), 0, 0},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for _, want := range []struct {
				jitter jitter
				after  time.Duration
			}{{never, test.earliest}, {always, test.latest}} {
				if off := test.lease.due(boot, want.jitter) - boot - want.after; off < -50*time.Millisecond || off > 50*time.Millisecond {
					t.Errorf("due %s from the expected %s", off, want.after)
				}
			}
		})
	}
	if due := newLease(boot, 0, true).due(boot, never); due != 0 {
		t.Errorf("what does not end is due at %s", due)
	}
}

// The lease of the issue's test: TTL 20 s, max TTL 60 s. However chance falls,
// each credential is used for 50 s at least and replaced 4 s before its end at
// the latest.
func TestALeaseIsUsedAlmostToItsMaxTTL(t *testing.T) {
	t.Parallel()
	const ttl, maxTTL = 20 * time.Second, 60 * time.Second
	for _, jitter := range []jitter{never, always, func() float64 { return 0.5 }} {
		lease := newLease(boot, ttl, true)
		now, renewals := boot, 0
		for now = lease.due(now, jitter); lease.Renewable; now = lease.due(now, jitter) {
			granted := min(ttl, boot+maxTTL-now).Truncate(time.Second)
			lease = lease.renewed(now, granted, true)
			renewals++
		}
		if used := now - boot; used < 50*time.Second || used > 56*time.Second {
			t.Errorf("the credential is replaced after %s, and %d renewals", used, renewals)
		}
	}
}

func TestRetryBackoff(t *testing.T) {
	t.Parallel()
	half := func() float64 { return 0.5 }
	tests := map[string]struct {
		failures int
		err      error
		expiry   bootTime
		want     time.Duration
	}{
		"first":                    {1, ErrNotFound, 0, time.Second},
		"fourth":                   {4, ErrNotFound, 0, 8 * time.Second},
		"hundredth":                {100, ErrNotFound, 0, 5 * time.Minute},
		"hundredth, denied":        {100, vault.ErrDenied, 0, 5 * time.Minute},
		"hundredth, Vault is away": {100, ErrUnavailable, 0, 30 * time.Second},
		"hundredth, not rendered":  {100, ErrRendererUnavailable, 0, 30 * time.Second},
		"hundredth, too late":      {100, fmt.Errorf("wait: %w", context.DeadlineExceeded), 0, 30 * time.Second},
		"before the lease ends":    {100, ErrNotFound, boot + 40*time.Second, 10 * time.Second},
		"just before":              {100, ErrNotFound, boot + time.Second, time.Second},
		"after it":                 {100, ErrNotFound, boot - time.Second, 5 * time.Minute},
	}
	for name, test := range tests {
		var r retryState
		for range test.failures {
			r.fail(test.err, boot, test.expiry, half)
		}
		if got := r.until - boot; got != test.want {
			t.Errorf("%s: got %s, want %s", name, got, test.want)
		}
	}
}

func TestRetryStateSurvivesARecord(t *testing.T) {
	t.Parallel()
	for name, err := range map[string]error{
		"what somebody has to correct": fmt.Errorf("read kv/a: %w", ErrNotFound),
		"what is transient":            fmt.Errorf("read kv/a: %w", ErrUnavailable),
		"a renderer that is busy":      fmt.Errorf("render: %w", ErrRendererUnavailable),
		"of no kind":                   errors.New("another"),
	} {
		before := retryState{err: err, failures: 2, until: boot}
		text, _ := json.Marshal(before)
		var after retryState
		if json.Unmarshal(text, &after) != nil || after.err.Error() != err.Error() || after.failures != 2 || after.until != 0 ||
			!SameKind(err, after.err) || isTransient(after.err) != isTransient(err) {
			t.Errorf("%s: %+v is read as %+v", name, before, after)
		}
	}
	if text, err := json.Marshal(struct {
		Retry retryState `json:",omitzero"`
	}{}); err != nil || string(text) != "{}" {
		t.Errorf("no failure is %s, %v", text, err)
	}
}
