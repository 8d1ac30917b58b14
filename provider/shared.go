package provider

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	render "github.com/vaultmount/vaultmount/provider/template"
	"github.com/vaultmount/vaultmount/provider/vault"
)

// Sharing says which pods share a Vault token.
type Sharing string

const (
	// ShareNothing gives each pod a token of its own. It is the default.
	ShareNothing Sharing = "none"
	// ShareServiceAccount gives one token to the pods of a service account that log in
	// to the same Vault in the same way, and reads KV secrets once for all of them. A
	// pod has a token of its own besides once it needs one: for what Vault makes for
	// it alone, and for a file that shows it.
	ShareServiceAccount Sharing = "serviceaccount"
)

// ParseSharing takes one of the words above; empty is ShareNothing.
func ParseSharing(text string) (Sharing, error) {
	switch s := Sharing(text); s {
	case ShareNothing, ShareServiceAccount:
		return s, nil
	case "":
		return ShareNothing, nil
	}
	return "", fmt.Errorf("%q is no way to share logins; write %s or %s", text, ShareNothing, ShareServiceAccount)
}

// sharedKey names what volumes must have in common to share a token beyond their
// pod. What a pod alone has keeps it from sharing: a certificate is part of who it
// is for Vault, and an AppRole is not its service account. One with authorities of
// its own might reach another Vault at the same address.
func (p *Provider) sharedKey(r Request) (key string, shares bool) {
	alone := r.Login.RoleID != "" || r.Login.ServiceAccount == "" || r.Endpoint.ClientCert != ""
	if p.sharing != ShareServiceAccount || alone || r.Refresh.Disabled {
		return "", false
	}
	parts, err := json.Marshal([]any{
		"shared", r.Login.ServiceAccount, r.Endpoint.Address, r.Endpoint.Proxy, r.Endpoint.ServerName, r.Endpoint.SkipVerify, r.Endpoint.CACert,
		r.Options.Namespace, r.Login.Mount, r.Login.Role, r.Login.Audience,
	})
	if err != nil {
		panic(err) // strings and a bool cannot fail
	}
	return hash(parts), true
}

// errUnshared is about what a volume asks Vault with its own token.
var errUnshared = errors.New("not the same for other pods")

// tokenError is why there is no token to ask with. What was to be asked stays due:
// the session wakes its volumes when it has one.
type tokenError struct{ err error }

func (e *tokenError) Error() string { return e.err.Error() }
func (e *tokenError) Unwrap() error { return e.err }

// lend calls do with the session's token, and once more with a new one if Vault
// does not know the first any more.
func (s *session) lend(ctx context.Context, urgent bool, do func(grant) error) error {
	g, err := s.acquire(ctx, urgent)
	if err != nil {
		return &tokenError{err}
	}
	err = do(g)
	if !errors.Is(err, vault.ErrTokenGone) {
		return err
	}
	if g, err = s.replace(ctx, g.Serial, urgent); err != nil {
		return &tokenError{err}
	}
	if err = do(g); errors.Is(err, vault.ErrTokenGone) {
		return fmt.Errorf("%w: %s", vault.ErrDenied, err) // the pod's own token is not meant
	}
	return err
}

// askTogether asks with the shared token, or takes what another pod was told. The
// error is errUnshared for what is not the same for all of them.
func (a *access) askTogether(ctx context.Context, about *answer) (reply, error) {
	v := a.volume
	look := look{ctx: ctx, now: v.provider.now, fresh: a.since, own: about.at, age: a.age, urgent: a.urgent, interval: v.refresh.StaticInterval}
	isOwn := false
	r, err := v.shared.readings.ask(about.query, look, func() (render.Value, error) {
		isOwn = true
		// In the foreground also for a refresh: a pod that starts waits for the turn.
		return v.readShared(vault.WithQuota(vault.WithSharedCall(ctx), a.quota), a.urgent, about.query)
	})
	if err == nil && !isOwn {
		err = a.quota.Take(sizeOf(r.Value))
	}
	return r, err
}

func (v *volume) readShared(ctx context.Context, urgent bool, query render.Dependency) (said render.Value, err error) {
	endpoint, options := v.way()
	if isKV, known := v.provider.clients.KnownKV(endpoint, options.Namespace, query.Path); known && !isKV {
		return said, errUnshared
	}
	err = v.shared.lend(ctx, urgent, func(g grant) error {
		client, err := v.connect(ctx, g)
		if err != nil {
			return err
		}
		isKV, err := client.IsKV(ctx, query.Path)
		if err != nil {
			return err
		}
		if !isKV {
			return errUnshared
		}
		said, err = ask(ctx, client, query)
		return err
	})
	return said, err
}

// way is where the volume's requests go.
func (v *volume) way() (Endpoint, ClientOptions) {
	v.mutex.Lock()
	defer v.mutex.Unlock()
	return v.endpoint, v.options
}
