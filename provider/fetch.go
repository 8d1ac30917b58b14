package provider

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/vaultmount/vaultmount/provider/limits"
	"github.com/vaultmount/vaultmount/provider/recovery"
	"github.com/vaultmount/vaultmount/provider/template"
	"github.com/vaultmount/vaultmount/provider/vault"
)

const (
	// fetchConcurrency is how many requests one volume sends at a time. The way to Vault
	// and back is most of the time that a pod waits.
	fetchConcurrency = 8
	// renewTimeout is for one renewal: a lease may be short.
	renewTimeout = 10 * time.Second
)

// fetchPass is one attempt to publish or refresh a volume. The goroutine of the volume
// owns it.
type fetchPass struct {
	volume       *Volume
	isBackground bool
	started      bootTime
	maxAge       time.Duration // of what another pod has read
	quota        *vault.Quota
	origin       origin
	added        int // dependencies that the volume did not have

	// client and token are of the volume's own session; nil until they are needed.
	client *vault.Client
	token  issuedToken
}

func (v *Volume) newPass(isBackground bool, maxAge time.Duration) *fetchPass {
	p := &fetchPass{
		volume: v, isBackground: isBackground, started: v.manager.now(), maxAge: maxAge,
		quota:  v.manager.clients.NewQuota(v.namespace, v.deps.size()),
		origin: origin{firstPass: map[template.Dependency]bool{}, files: v.files},
	}
	for _, file := range v.files {
		p.origin.hasSecretKeys = p.origin.hasSecretKeys || len(file.Template.Pod.SecretKeys) > 0
	}
	return p
}

// close gives back the quota. What the volume keeps counts for its capacity by then.
func (p *fetchPass) close() {
	p.volume.updateRetained()
	p.quota.Close()
}

// run calls do, with the volume's own token if it needs one in any case, and once more
// after a login if Vault does not know the token.
func (p *fetchPass) run(ctx context.Context, do func() error) error {
	if p.volume.needsOwnToken() {
		if err := p.connect(ctx); err != nil {
			return err
		}
	}
	err := do()
	if !errors.Is(err, vault.ErrTokenGone) {
		return err
	}
	p.volume.Session.invalidate(p.token.Generation)
	p.client = nil
	if err := p.connect(ctx); err != nil {
		return err
	}
	return do()
}

// connect logs in with the volume's own session, unless it has a token.
func (p *fetchPass) connect(ctx context.Context) error {
	if p.client != nil {
		return nil
	}
	token, err := p.volume.Session.token(ctx, p.isBackground)
	if err != nil {
		return err
	}
	client, err := p.volume.Session.client(ctx, token)
	if err != nil {
		return err
	}
	p.client, p.token = client, token
	return nil
}

// fetched is the response to a dependency, or the renewed lease of one.
type fetched struct {
	value      template.Value
	lease      lease
	requested  bootTime // a lease begins before the response comes
	generation int      // of the token
	err        error
}

// fetch requests the values of dependencies, and changes none of them. What pods share
// comes first: the rest may need a login.
func (p *fetchPass) fetch(ctx context.Context, deps []*dependency) []fetched {
	if p.volume.shared == nil {
		return p.fetchOwn(ctx, deps)
	}
	results := p.each(ctx, deps, func(ctx context.Context, d *dependency) fetched {
		entry, isOwn, err := p.volume.shared.cache.get(ctx, p, d)
		if err == nil && !isOwn {
			err = p.quota.Take(entry.size)
		}
		return fetched{value: entry.value, requested: entry.fetchedAt, err: err}
	})
	var own []*dependency
	for i, result := range results {
		if errors.Is(result.err, errNotShareable) {
			own = append(own, deps[i])
		}
	}
	rest := p.fetchOwn(ctx, own)
	for i, result := range results {
		if errors.Is(result.err, errNotShareable) {
			results[i], rest = rest[0], rest[1:]
		}
	}
	return results
}

// fetchOwn uses the volume's own token.
func (p *fetchPass) fetchOwn(ctx context.Context, deps []*dependency) []fetched {
	if len(deps) == 0 {
		return nil
	}
	if err := p.connect(ctx); err != nil {
		return slices.Repeat([]fetched{{err: err}}, len(deps))
	}
	return p.each(vault.WithQuota(ctx, p.quota), deps, func(ctx context.Context, d *dependency) fetched {
		f := fetched{requested: p.volume.manager.now(), generation: p.token.Generation}
		f.value, f.err = request(ctx, p.client, d.Key)
		return f
	})
}

// each calls do for dependencies, some at a time and each with a timeout. The values at
// hand do not count while new ones come. A volume over its limit requests nothing more.
func (p *fetchPass) each(ctx context.Context, deps []*dependency, do func(ctx context.Context, d *dependency) fetched) []fetched {
	results := make([]fetched, len(deps))
	var group errgroup.Group
	group.SetLimit(fetchConcurrency)
	var over atomic.Pointer[error]
	for i, d := range deps {
		group.Go(func() error {
			if why := over.Load(); why != nil {
				results[i].err = *why
				return nil
			}
			if results[i].err = ctx.Err(); results[i].err != nil {
				return nil
			}
			limited := ctx
			if p.isBackground { // a pod that starts waits as long as its volume says
				var cancel context.CancelFunc
				limited, cancel = context.WithTimeout(ctx, p.volume.manager.timeouts.request)
				defer cancel()
			}
			replaced := sizeOf(d.Value)
			p.quota.AddRetained(vault.Size{}.Sub(replaced))
			err := recovery.Do(func() error {
				results[i] = do(limited, d)
				return results[i].err
			})
			results[i].err = err
			if isReplaced := err == nil && results[i].requested != 0; !isReplaced {
				p.quota.AddRetained(replaced)
			}
			if errors.Is(err, ErrTooLarge) {
				over.Store(&err)
			}
			return nil
		})
	}
	_ = group.Wait() // each has its own error
	return results
}

// request sends the request of a dependency.
func request(ctx context.Context, client *vault.Client, key template.Dependency) (template.Value, error) {
	switch key.Verb {
	case template.List:
		names, err := client.List(ctx, key.Path)
		return template.Value{Names: names}, err
	case template.Write, template.Issue:
		secret, err := client.Write(ctx, key.Path, key.Data())
		return template.Value{Secret: secret}, err
	default:
		secret, err := client.Read(ctx, key.Path)
		return template.Value{Secret: secret}, err
	}
}

// isFresh reports whether a pass may use what another pod has read: it is as new as a
// request of its own, or newer than its own value and not too old.
func (p *fetchPass) isFresh(fetchedAt, own bootTime) bool {
	return fetchedAt >= p.started || fetchedAt > own && p.volume.manager.now()-fetchedAt < p.maxAge
}

// checkDependencies refuses more dependencies than a volume may have. Those that a refresh
// drops do not count.
func (p *fetchPass) checkDependencies(more int) error {
	if err := limits.Dependencies.Check(p.added + more); err != nil {
		return fmt.Errorf("%w: the templates of the volume together: %w; split the volume", ErrTemplate, err)
	}
	return nil
}

// refreshDue renews or fetches what is due, each dependency by itself: a static secret that
// is gone must not keep credentials from being renewed, nor one secrets engine that hangs
// others from being asked. Each keeps its own error. tokenErr is why there is no token.
func (p *fetchPass) refreshDue(ctx context.Context, forced bool) (tokenErr, err error) {
	var renewals, fetches []*dependency
	for _, each := range p.volume.deps.byFewestFailures() {
		switch {
		case !p.needsRefresh(each, forced):
		case each.Lease.Renewable && (p.volume.policy.Disabled || !p.isUnderOldToken(each)):
			renewals = append(renewals, each)
		case p.volume.policy.Disabled:
			each.Due = 0
		default:
			fetches = append(fetches, each)
		}
	}
	p.volume.hasWorked = p.volume.hasWorked || len(renewals)+len(fetches) > 0
	unknown, err := p.renewLeases(ctx, renewals)
	if err != nil {
		return nil, err
	}
	for _, each := range unknown {
		if each.Due = 0; !p.volume.policy.Disabled {
			fetches = append(fetches, each)
		}
	}
	return p.refetch(ctx, fetches)
}

// needsRefresh reports whether a dependency is due: by itself, because its lease belongs
// to an old token, or because somebody asked for what is static.
func (p *fetchPass) needsRefresh(d *dependency, forced bool) bool {
	if d.isDue(p.volume.manager.now()) {
		return true
	}
	if p.volume.policy.Disabled {
		return false
	}
	return p.isUnderOldToken(d) && d.Retry.err == nil || forced && d.isStatic()
}

func (p *fetchPass) isUnderOldToken(d *dependency) bool {
	return isLeased(d.Value) && d.Generation != p.token.Generation
}

// renewLeases returns the dependencies whose lease Vault does not know any more.
func (p *fetchPass) renewLeases(ctx context.Context, deps []*dependency) (unknown []*dependency, err error) {
	for i, result := range p.each(ctx, deps, p.renewLease) {
		each := deps[i]
		switch {
		case result.err == nil:
			each.Lease, each.Retry = result.lease, retryState{}
			each.schedule(p.volume.policy, p.volume.manager.now(), p.volume.manager)
		case errors.Is(result.err, errLeaseUnknown):
			each.Lease.Renewable = false
			unknown = append(unknown, each)
		case errors.Is(result.err, vault.ErrTokenGone), ctx.Err() != nil:
			err = result.err
		default:
			each.scheduleRetry(result.err, p.volume.manager)
		}
	}
	return unknown, err
}

var errLeaseUnknown = errors.New("the lease is not known to Vault")

func (p *fetchPass) renewLease(ctx context.Context, d *dependency) fetched {
	ctx, cancel := context.WithTimeout(ctx, renewTimeout)
	defer cancel()
	requested := p.volume.manager.now()
	secret, err := p.client.RenewLease(ctx, d.Value.Secret.LeaseID, d.Lease.InitialTTL)
	switch {
	case err == nil:
		return fetched{lease: d.Lease.renewed(requested, time.Duration(secret.LeaseDuration)*time.Second, secret.Renewable)}
	case errors.Is(err, vault.ErrTokenGone):
		return fetched{err: err}
	case errors.Is(err, vault.ErrDenied):
		// A role may withhold the policy "default", which allows renewals.
		return fetched{lease: lease{d.Lease.InitialTTL, d.Lease.ExpireTime, false}}
	case errors.Is(err, ErrRefused):
		return fetched{err: errLeaseUnknown}
	}
	return fetched{err: err}
}

// refetch fetches values again.
func (p *fetchPass) refetch(ctx context.Context, deps []*dependency) (tokenErr, err error) {
	limited, cancel := context.WithTimeout(ctx, p.volume.manager.timeouts.fetch)
	defer cancel()
	for i, result := range p.fetch(limited, deps) {
		each := deps[i]
		switch {
		case result.err == nil:
			changed := each.setValue(result, p.volume.manager, p.volume.policy)
			p.volume.IsDirty = p.volume.IsDirty || changed
		case errors.Is(result.err, vault.ErrTokenGone):
			err = result.err
		case errors.As(result.err, new(*tokenError)):
			tokenErr = result.err
		case result.requested == 0 && limited.Err() != nil:
			each.Due = p.volume.manager.now() // what was fetched is written first
		default:
			each.scheduleRetry(each.redact(result.err), p.volume.manager)
			p.renewUnderOldToken(ctx, each)
		}
	}
	return tokenErr, firstError(err, ctx.Err())
}

// renewUnderOldToken keeps the lease of a replaced token where Vault issues nothing in its
// place: the old token may live for another hour, and Vault lets any token with the policy
// renew its leases.
func (p *fetchPass) renewUnderOldToken(ctx context.Context, d *dependency) {
	left := d.Lease.ExpireTime - p.volume.manager.now()
	if !p.isUnderOldToken(d) || !d.Lease.Renewable || left >= d.Lease.InitialTTL*2/3 {
		return
	}
	if renewed := p.renewLease(ctx, d); renewed.err == nil { // otherwise the next attempt is soon
		d.Lease = renewed.lease
	}
}
