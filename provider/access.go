package provider

import (
	"context"
	"errors"
	"sync"
	"time"

	render "github.com/vaultmount/vaultmount/provider/template"
	"github.com/vaultmount/vaultmount/provider/vault"
)

// access is how a volume asks Vault in one go: an Open, or a look at what is due.
type access struct {
	volume *volume
	urgent bool
	since  time.Time
	// age is from when on what another pod was told is too old.
	age time.Duration

	// mutex is for several questions at once.
	mutex sync.Mutex
	// client and grant are of the pod's own token; nil before that is needed, as it
	// may never be for a volume that shares another.
	client *vault.Client
	grant  grant
	// quota counts what is read, and learnt the answers that the volume had not.
	quota  *vault.Quota
	learnt int

	// firstPass are the queries of the templates when they had no secret. knowsSecret is
	// true from when they have one. literals is nil until it is needed.
	firstPass   map[render.Dependency]bool
	knowsSecret bool
	literals    map[string]bool
}

// reply is what Vault said, when, and the serial number of the token that a lease
// belongs to.
type reply struct {
	render.Value

	at    time.Time
	token int
}

func (v *volume) newAccess(urgent bool, age time.Duration) *access {
	return &access{
		volume: v, urgent: urgent, since: v.provider.now(), age: age, firstPass: map[render.Dependency]bool{},
		quota: v.provider.clients.NewQuota(v.namespace, v.answers.size()),
	}
}

// run calls do with the pod's token, if that is needed from the start, and once
// more with a new one if Vault does not know the first any more.
func (a *access) run(ctx context.Context, do func() error) error {
	defer a.quota.Close()
	defer a.volume.retain() // before the quota lets go of it
	if a.volume.needsToken() {
		if err := a.logIn(ctx); err != nil {
			return err
		}
	}
	err := do()
	if !errors.Is(err, vault.ErrTokenGone) {
		return err
	}
	if err := a.logInAnew(ctx); err != nil {
		return err
	}
	return do()
}

// needsToken tells whether the volume is bound to its pod's own token.
func (v *volume) needsToken() bool {
	return v.shared == nil || v.showsToken() || len(v.answers.leased()) > 0
}

func (a *access) logIn(ctx context.Context) error {
	g, err := a.volume.session.acquire(ctx, a.urgent)
	if err != nil {
		return err
	}
	return a.connect(ctx, g)
}

// logInAnew takes another token than the one in use, which Vault does not know.
func (a *access) logInAnew(ctx context.Context) error {
	g, err := a.volume.session.replace(ctx, a.grant.Serial, a.urgent)
	if err != nil {
		return err
	}
	return a.connect(ctx, g)
}

// connect makes a client for one go. Thousands of volumes that kept theirs would
// hold more memory than their secrets take.
func (a *access) connect(ctx context.Context, g grant) error {
	client, err := a.volume.connect(ctx, g)
	if err != nil {
		return err
	}
	a.client, a.grant = client, g
	a.volume.serial = g.Serial
	a.volume.dropForeign(g)
	return nil
}

func (v *volume) connect(ctx context.Context, g grant) (*vault.Client, error) {
	endpoint, options := v.way()
	return v.provider.clients.Client(ctx, endpoint, options, g.Token)
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

// ask brings a new answer in the place of the one at hand, which does not count
// against the volume's limits meanwhile.
func (a *access) ask(ctx context.Context, about *answer) (reply, error) {
	replaced := sizeOf(about.said)
	a.quota.AddRetained(vault.Size{}.Sub(replaced))
	r, err := a.askVault(ctx, about)
	if err != nil {
		a.quota.AddRetained(replaced)
	}
	return r, err
}

func (a *access) askVault(ctx context.Context, about *answer) (reply, error) {
	if a.volume.shared != nil && about.query.Reads() {
		r, err := a.askTogether(ctx, about)
		if !errors.Is(err, errUnshared) {
			return r, err
		}
	}
	client, serial, err := a.own(ctx)
	if err != nil {
		return reply{}, err
	}
	at := a.volume.provider.now() // a lease begins before the answer comes
	said, err := ask(vault.WithQuota(ctx, a.quota), client, about.query)
	return reply{Value: said, at: at, token: serial}, err
}

// own is the pod's own token at work, after a login if there was none so far.
func (a *access) own(ctx context.Context) (client *vault.Client, serial int, err error) {
	a.mutex.Lock()
	defer a.mutex.Unlock()
	if a.client == nil {
		if err := a.logIn(ctx); err != nil {
			return nil, 0, &tokenError{err}
		}
	}
	return a.client, a.grant.Serial, nil
}
