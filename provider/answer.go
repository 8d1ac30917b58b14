package provider

import (
	"cmp"
	"context"
	"maps"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/vaultmount/vaultmount/provider/limits"
	render "github.com/vaultmount/vaultmount/provider/template"
	"github.com/vaultmount/vaultmount/provider/vault"
)

// answer is what Vault said to one query, and when to attend to it again.
type answer struct {
	query render.Dependency
	// hidden says that the query may hold the value of a secret.
	hidden bool
	// said is what Vault said last: a candidate, while isCandidate is true. The files were
	// made of accepted, which is nil before they were made of any value.
	said        render.Value
	isCandidate bool
	accepted    *render.Value
	// misfit is why the files could not be made of the candidate.
	misfit trouble
	// lease has no end where there is none.
	lease term
	// at is when Vault was asked; zero for before this process.
	at time.Time
	// token is the serial number of the token that the lease belongs to.
	token int
	due   time.Time // zero for never
	// trouble is why Vault did not answer when it was asked last.
	trouble trouble
}

// answers are those of one volume; its files share them, so that two files which
// name the same secret show the same version of it.
type answers map[render.Dependency]*answer

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

// forRenderer returns what Vault said last, and the accepted value of those that are
// held back.
func (a answers) forRenderer(held heldBack) render.Values {
	known := render.Values{}
	for query, each := range a {
		known[query] = each.said
		if held[each] != nil {
			known[query] = *each.accepted
		}
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

// accept notes that the files are made of the answers to these queries, but for those
// that are held back, and forgets the others. Their leases end by themselves. While
// candidates are held back, it keeps what Vault has made for these: they ask for it again
// at the next attempt.
func (a answers) accept(used map[render.Dependency]bool, held heldBack, now time.Time) {
	keepMade := len(held) > 0 && len(a) <= limits.Dependencies.Max()
	for query, each := range a {
		switch {
		case used[query] && held[each] == nil:
			each.accept()
		case used[query]:
		case keepMade && each.accepted == nil && !isStatic(query, each.said) && !each.lease.expired(now):
		default:
			delete(a, query)
		}
	}
}

// candidates returns those that have an accepted value besides, in order: what may be
// read at any time, and what Vault has made.
func (a answers) candidates() (static, made []*answer) {
	for _, each := range a.inOrder() {
		switch {
		case !each.isCandidate || each.accepted == nil:
		case isStatic(each.query, each.said):
			static = append(static, each)
		default:
			made = append(made, each)
		}
	}
	return static, made
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

// failure is why one of them could not be had or does not fit, nil if all are fine.
func (a answers) failure() error {
	for _, each := range a.inOrder() {
		if err := each.failure(); err != nil {
			return err
		}
	}
	return nil
}

func (a *answer) failure() error { return first(a.trouble.err, a.misfit.err) }

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

// says takes over what Vault says now, and reports whether the files have to be made
// again. Of a lease, they do not show the difference: it is renewed without that.
func (a *answer) says(r reply, refresh RefreshPolicy, now time.Time, chance random) (changed bool) {
	if !reflect.DeepEqual(a.said.Names, r.Names) || !sameSecret(a.said, r.Value) {
		a.isCandidate = true
	}
	a.said, a.at, a.token, a.trouble = r.Value, r.at, r.token, trouble{}
	if !a.isCandidate {
		a.accept() // the same value is held once
	}
	a.lease = leaseOf(r.Value, r.at)
	// An answer that was for another pod first is not fresh for longer than there.
	a.plan(refresh, r.at, chance)
	a.due = notBefore(now.Add(shortestRest), a.due)
	return a.isCandidate
}

// accept notes that the files are made of what Vault said last.
func (a *answer) accept() {
	said := a.said
	a.accepted, a.isCandidate, a.misfit = &said, false, trouble{}
}

// refuse notes why the files cannot be made of the candidate.
func (a *answer) refuse(err error, now time.Time, chance random) {
	if !a.misfit.retry.After(now) {
		a.misfit.add(err, now, time.Time{}, chance)
	}
}

func sameSecret(a, b render.Value) bool {
	if a.Secret == nil || b.Secret == nil {
		return a.Secret == b.Secret
	}
	return a.Secret.LeaseID == b.Secret.LeaseID && reflect.DeepEqual(a.Secret.Data, b.Secret.Data) && reflect.DeepEqual(a.Secret.Auth, b.Secret.Auth)
}

// plan sets when the answer is due.
func (a *answer) plan(refresh RefreshPolicy, now time.Time, chance random) {
	switch {
	case a.lease.Renewable:
		a.due = a.lease.due(now, chance)
	case refresh.Disabled:
		a.due = time.Time{}
	case a.wasRenewable():
		a.due = a.lease.due(now, chance)
	default:
		a.due = refresh.dueAnew(a.query, a.said, now, chance)
	}
}

// postpone plans the next attempt after a failure.
func (a *answer) postpone(err error, now time.Time, chance random) {
	a.trouble.add(err, now, a.lease.Expires, chance)
	a.due = a.trouble.retry
}

// ask asks Vault for an answer anew.
func ask(ctx context.Context, session *vault.Client, query render.Dependency) (render.Value, error) {
	switch query.Verb {
	case render.List:
		names, err := session.List(ctx, query.Path)
		return render.Value{Names: names}, err
	case render.Write, render.Issue:
		secret, err := session.Write(ctx, query.Path, query.Data())
		return render.Value{Secret: secret}, err
	default:
		secret, err := session.Read(ctx, query.Path)
		return render.Value{Secret: secret}, err
	}
}
