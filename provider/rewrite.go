package provider

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/vaultmount/vaultmount/provider/vault"
)

// heldBack are candidates that the files are not made of, each with the reason. They
// have an accepted value, which the files show in their place.
type heldBack map[*answer]error

// hold holds back those that are not already, all for the same reason.
func (h heldBack) hold(group []*answer, reason error) {
	for _, each := range group {
		h[each] = reason
	}
}

func (h heldBack) release(group []*answer) {
	for _, each := range group {
		delete(h, each)
	}
}

// fullError is content that cannot be written.
type fullError struct{ err error }

func (e *fullError) Error() string { return fmt.Sprintf("write the refreshed files: %v", e.err) }
func (e *fullError) Unwrap() error { return e.err }

// rewrite makes the files of what Vault said last. A secret that they cannot be made of
// keeps its accepted value, so that all others are written: new credentials above all,
// since those in the files end. What was fetched is saved first: a credential that only
// a dead process knew would be lost.
func (v *volume) rewrite(ctx context.Context, a *access) error {
	v.save()
	err := v.writeInTime(ctx, a)
	if !isAboutContent(ctx, err) {
		return err
	}
	static, made := v.answers.candidates()
	held, tries, base := heldBack{}, maxTries, err
	if len(static) > 0 {
		held.hold(static, err)
		base = v.write(ctx, a, held)
	}
	switch {
	case base == nil:
		v.admitHalves(ctx, a, static, held, &tries)
	case len(made) == 0 || !isAboutContent(ctx, base):
		return err
	default:
		held.hold(made, base)
		if v.write(ctx, a, held) != nil {
			return err
		}
		v.admitHalves(ctx, a, made, held, &tries)
		v.admit(ctx, a, static, held, &tries)
	}
	return v.refuse(held)
}

// writeInTime leaves half of the time for the accepted values: a candidate may be the
// path to what hangs.
func (v *volume) writeInTime(ctx context.Context, a *access) error {
	if deadline, ok := ctx.Deadline(); ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, time.Until(deadline)/2)
		defer cancel()
	}
	return v.write(ctx, a, nil)
}

// write makes the files of all candidates but those that are held back, and notes that
// these are accepted.
func (v *volume) write(ctx context.Context, a *access, held heldBack) error {
	contents, used, err := v.render(ctx, a, nil, held)
	if err != nil {
		return err
	}
	if err := v.replace(contents); err != nil {
		return err
	}
	v.answers.accept(used, held, v.provider.now())
	return nil
}

// isAboutContent reports whether files may be written of other values: not if there is
// no token, or the volume or the process ends.
func isAboutContent(ctx context.Context, err error) bool {
	return err != nil && ctx.Err() == nil && !errors.As(err, new(*tokenError)) && !errors.Is(err, vault.ErrTokenGone) && !errors.Is(err, ErrClosed)
}

// maxTries bounds how often the files are made to find out which candidates fit.
const maxTries = 16

// admit releases those of a group that the files can be made of.
func (v *volume) admit(ctx context.Context, a *access, group []*answer, held heldBack, tries *int) {
	if len(group) == 0 || *tries == 0 || ctx.Err() != nil {
		return
	}
	*tries--
	reason := held[group[0]]
	held.release(group)
	err := v.write(ctx, a, held)
	if err == nil {
		return
	}
	if isAboutContent(ctx, err) {
		reason = err
	}
	held.hold(group, reason)
	v.admitHalves(ctx, a, group, held, tries)
}

// admitHalves is admit for a group that does not fit as a whole.
func (v *volume) admitHalves(ctx context.Context, a *access, group []*answer, held heldBack, tries *int) {
	if len(group) > 1 {
		half := len(group) / 2
		v.admit(ctx, a, group[:half], held, tries)
		v.admit(ctx, a, group[half:], held, tries)
	}
}

// refuse notes why candidates are held back. What may be read at any time is read again
// soon, since somebody may correct it, and all at one time: each attempt runs all
// templates. The error is of what is tried again without asking Vault: what it has made,
// and what is too much for the volume.
func (v *volume) refuse(held heldBack) (again error) {
	now := v.provider.now()
	var static []*answer
	var retry time.Time
	for _, each := range v.answers.inOrder() {
		reason := held[each]
		if reason == nil {
			continue
		}
		full, isStatic := errors.As(reason, new(*fullError)), isStatic(each.query, each.said)
		if !full {
			each.refuse(reason, now, v.provider.chance)
		}
		if full || !isStatic {
			again = first(again, reason)
		} else if each.trouble.err == nil {
			static, retry = append(static, each), later(retry, each.misfit.retry)
		}
	}
	for _, each := range static {
		each.misfit.retry, each.due = retry, retry
	}
	v.stale = again != nil
	return again
}

func later(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}

func (v *volume) replace(contents []RenderedFile) error {
	sum := digest(contents)
	if sum != v.written {
		if err := v.provider.files.Replace(v.id, contents); err != nil {
			return &fullError{err}
		}
	}
	v.written, v.stale = sum, false
	return nil
}

// showsToken tells whether a file holds the Vault token.
func (v *volume) showsToken() bool {
	for _, output := range v.outputs {
		if output.Token {
			return true
		}
	}
	return false
}
