package provider

import (
	"context"
	"errors"
	"time"

	"github.com/vaultmount/vaultmount/provider/render"
	"github.com/vaultmount/vaultmount/provider/vault"
)

// access is how a volume asks Vault in one go: an Open, or a look at what is due.
type access struct {
	volume *volume
	urgent bool
	client *vault.Session
	grant  grant
}

// reply is what Vault said, when, and the serial number of the token that a lease
// belongs to.
type reply struct {
	render.Answer

	at    time.Time
	token int
}

// withToken calls do with the session's token, and once more with a new one if
// Vault does not know the first any more.
func (v *volume) withToken(ctx context.Context, urgent bool, do func(*access) error) error {
	a := &access{volume: v, urgent: urgent}
	defer a.close()
	if err := a.logIn(ctx); err != nil {
		return err
	}
	err := do(a)
	if !errors.Is(err, vault.ErrTokenGone) {
		return err
	}
	if err := a.logInAnew(ctx); err != nil {
		return err
	}
	return do(a)
}

func (a *access) logIn(ctx context.Context) error {
	g, err := a.volume.session.acquire(ctx, a.urgent)
	if err != nil {
		return err
	}
	return a.connect(g)
}

// logInAnew takes another token than the one in use, which Vault does not know.
func (a *access) logInAnew(ctx context.Context) error {
	g, err := a.volume.session.replace(ctx, a.grant.Serial, a.urgent)
	if err != nil {
		return err
	}
	a.close()
	return a.connect(g)
}

// connect makes a client for one go. Thousands of volumes that kept theirs would
// hold more memory than their secrets take.
func (a *access) connect(g grant) error {
	client, err := a.volume.connect(g)
	if err != nil {
		return err
	}
	a.client, a.grant = client, g
	a.volume.serial = g.Serial
	a.volume.dropForeign(g)
	return nil
}

func (a *access) close() {
	if a.client != nil {
		a.client.Close()
		a.client = nil
	}
}

func (v *volume) connect(g grant) (*vault.Session, error) {
	v.mutex.Lock()
	endpoint, options := v.endpoint, v.options
	v.mutex.Unlock()
	return v.provider.servers.Resume(endpoint, options, g.Token)
}

// dropForeign forgets leases of another token that an Open which failed left.
func (v *volume) dropForeign(g grant) {
	if v.isOpen.Load() {
		return
	}
	for query, each := range v.answers {
		if each.isLeased() && each.token != g.Serial {
			delete(v.answers, query)
		}
	}
}

// ask brings a new answer in the place of the one at hand.
func (a *access) ask(ctx context.Context, about *answer) (reply, error) {
	said, err := ask(ctx, a.client, about.query)
	return reply{Answer: said, at: a.volume.provider.now(), token: a.grant.Serial}, err
}
