package provider

import (
	"context"
	"errors"
	"fmt"
)

// change is an answer that templates can see the difference of.
type change struct {
	now    *answer
	before answer
}

// rewrite renders the answers and writes what they make. What was fetched is
// saved first: a credential that only a dead process knew would be lost.
func (v *volume) rewrite(ctx context.Context, a *access, changes []change) error {
	v.save()
	contents, err := v.render(ctx, a, nil)
	if errors.Is(err, ErrData) || errors.Is(err, ErrTemplate) {
		// A static secret that no longer fits its template keeps its old value, so
		// that new credentials are written all the same.
		if v.takeBack(changes, err) {
			if again, retried := v.render(ctx, a, nil); retried == nil {
				return v.replace(again)
			}
		}
	}
	if err != nil {
		return err
	}
	return v.replace(contents)
}

func (v *volume) takeBack(changes []change, err error) bool {
	some := false
	for _, c := range changes {
		if !isStatic(c.now.query, c.now.said) {
			continue
		}
		c.now.said = c.before.said
		c.now.trouble = c.before.trouble
		c.now.postpone(err, v.provider.now(), v.provider.chance)
		some = true
	}
	return some
}

func (v *volume) replace(contents []Rendered) error {
	sum := digest(contents)
	if sum != v.written {
		if err := v.provider.files.Replace(v.id, contents); err != nil {
			return fmt.Errorf("write the refreshed files: %w", err)
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
