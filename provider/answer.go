package provider

import (
	"cmp"
	"context"
	"maps"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/vaultmount/vaultmount/provider/render"
	"github.com/vaultmount/vaultmount/provider/vault"
)

// answer is what Vault said to one query, and when to attend to it again.
type answer struct {
	query render.Query
	// hidden says that the query holds the value of a secret.
	hidden bool
	said   render.Answer
	// lease has no end where there is none.
	lease term
	// at is when Vault was asked; zero for before this process.
	at time.Time
	// token is the serial number of the token that the lease belongs to.
	token int
	due   time.Time // zero for never
	// ahead is how far Vault's clock was of the node's when it said so.
	ahead time.Duration
	// trouble is why Vault did not answer when it was asked last.
	trouble trouble
}

// answers are those of one volume; its files share them, so that two files which
// name the same secret show the same version of it.
type answers map[render.Query]*answer

// inOrder makes what a refresh does the same each time.
func (a answers) inOrder() []*answer {
	return slices.SortedFunc(maps.Values(a), func(x, y *answer) int {
		return strings.Compare(x.query.Path+"\x00"+string(x.query.Verb), y.query.Path+"\x00"+string(y.query.Verb))
	})
}

// inTurn has those that failed come after the others, the more often the later: what
// takes its time to fail must not keep the others from being asked.
func (a answers) inTurn() []*answer {
	all := a.inOrder()
	slices.SortStableFunc(all, func(x, y *answer) int { return cmp.Compare(x.trouble.failures, y.trouble.failures) })
	return all
}

func (a answers) forRenderer() render.Answers {
	known := render.Answers{}
	for query, each := range a {
		known[query] = each.said
	}
	return known
}

// holdSecret reports whether one of them is a secret, and not a list of names.
func (a answers) holdSecret() bool {
	for _, each := range a {
		if each.said.Secret != nil {
			return true
		}
	}
	return false
}

// keep forgets all answers but those to the queries in use. Their leases end by
// themselves.
func (a answers) keep(used map[render.Query]bool) {
	maps.DeleteFunc(a, func(query render.Query, _ *answer) bool { return !used[query] })
}

// leased are those that Vault has made for this volume alone.
func (a answers) leased() answers {
	all := answers{}
	for query, each := range a {
		if each.isLeased() {
			all[query] = each
		}
	}
	return all
}

// failure is why one of them could not be had, nil if all were.
func (a answers) failure() error {
	for _, each := range a.inOrder() {
		if each.trouble.err != nil {
			return each.trouble.err
		}
	}
	return nil
}

// next is when the first of them is due, zero for never.
func (a answers) next() time.Time {
	var first time.Time
	for _, each := range a {
		first = earlier(first, each.due)
	}
	return first
}

// nextAfter is when the first of them is due that is not due yet, zero for never.
func (a answers) nextAfter(now time.Time) time.Time {
	var first time.Time
	for _, each := range a {
		if each.due.After(now) {
			first = earlier(first, each.due)
		}
	}
	return first
}

// earlier is the earlier of two times, of which zero is never.
func earlier(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}

// isLeased tells whether the answer ends with its lease, and so with the token.
func (a *answer) isLeased() bool { return a.said.Secret != nil && a.said.Secret.LeaseID != "" }

// wasRenewable is true of a lease that Vault renews, or did.
func (a *answer) wasRenewable() bool { return a.isLeased() && a.said.Secret.Renewable }

func (a *answer) isDue(now time.Time) bool { return !a.due.IsZero() && !a.due.After(now) }

// says takes over what Vault says now, and reports whether templates can see the
// difference. Of a lease, they do not: it is renewed without rewriting files.
func (a *answer) says(r reply, refresh Refresh, now time.Time, chance random) (changed bool) {
	changed = !reflect.DeepEqual(a.said.Names, r.Names) || !sameSecret(a.said, r.Answer)
	a.said, a.at, a.token, a.ahead, a.trouble = r.Answer, r.at, r.token, r.ahead, trouble{}
	a.lease = leaseOf(r.Answer, r.at)
	// An answer that was for another pod first is not fresh for longer than there.
	a.plan(refresh, r.at, chance)
	a.due = notBefore(now.Add(shortestRest), a.due)
	return changed
}

func sameSecret(a, b render.Answer) bool {
	if a.Secret == nil || b.Secret == nil {
		return a.Secret == b.Secret
	}
	return a.Secret.LeaseID == b.Secret.LeaseID && reflect.DeepEqual(a.Secret.Data, b.Secret.Data) && reflect.DeepEqual(a.Secret.Auth, b.Secret.Auth)
}

// plan sets when the answer is due.
func (a *answer) plan(refresh Refresh, now time.Time, chance random) {
	switch {
	case a.lease.Renewable:
		a.due = a.lease.due(now, chance)
	case refresh.Never:
		a.due = time.Time{}
	case a.wasRenewable():
		a.due = a.lease.due(now, chance)
	default:
		a.due = refresh.dueAnew(a.query, a.said, now, a.ahead, chance)
	}
}

// postpone plans the next attempt after a failure.
func (a *answer) postpone(err error, now time.Time, chance random) {
	a.trouble.add(err, now, a.lease.Expires, chance)
	a.due = a.trouble.retry
}

// ask asks Vault for an answer anew.
func ask(ctx context.Context, session *vault.Session, query render.Query) (render.Answer, error) {
	switch query.Verb {
	case render.List:
		names, err := session.List(ctx, query.Path)
		return render.Answer{Names: names}, err
	case render.Write, render.Issue:
		secret, err := session.Write(ctx, query.Path, query.Data())
		return render.Answer{Secret: secret}, err
	default:
		secret, err := session.Read(ctx, query.Path)
		return render.Answer{Secret: secret}, err
	}
}
