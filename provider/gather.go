package provider

import (
	"context"
	"errors"
	"sync/atomic"

	"golang.org/x/sync/errgroup"

	"github.com/vaultmount/vaultmount/provider/recovery"
	render "github.com/vaultmount/vaultmount/provider/template"
)

// atATime is how many secrets of one volume are read at once. The way to Vault and
// back is most of the time that a pod waits, and the pod waits for all of them.
const atATime = 8

// gather reads what is not known, and returns why some of it could not be read. It
// leaves out what is written, which Vault may make something for: that is asked when
// nothing else can fail any more.
func (v *volume) gather(ctx context.Context, a *access, queries []render.Dependency, known render.Values) map[render.Dependency]error {
	var asked []*answer
	replies := map[render.Dependency]*outcome{}
	for _, query := range queries {
		if _, have := known[query]; have || replies[query] != nil || !query.Reads() {
			continue
		}
		replies[query] = &outcome{}
		asked = append(asked, a.newAnswer(query))
	}
	if err := a.checkDependencies(len(asked)); err != nil {
		failed := map[render.Dependency]error{}
		for _, fresh := range asked {
			failed[fresh.query] = err
		}
		return failed
	}
	var group errgroup.Group
	var full atomic.Pointer[error] // why the volume may read no more
	group.SetLimit(atATime)
	for _, fresh := range asked {
		into := replies[fresh.query]
		group.Go(func() error {
			if why := full.Load(); why != nil {
				into.err = *why
				return nil
			}
			into.err = recovery.Do(func() (err error) {
				into.reply, err = a.ask(ctx, fresh)
				return err
			})
			if err := into.err; errors.Is(err, ErrTooLarge) {
				full.Store(&err)
			}
			return nil
		})
	}
	_ = group.Wait() // each has its own error, and what the others have brought is kept
	failed := map[render.Dependency]error{}
	for _, fresh := range asked {
		if got := replies[fresh.query]; got.err != nil {
			failed[fresh.query] = fresh.conceal(got.err)
		} else {
			a.learn(fresh, got.reply, known)
		}
	}
	return failed
}

type outcome struct {
	reply reply
	err   error
}

// learn takes an answer that the volume had not.
func (a *access) learn(fresh *answer, said reply, known render.Values) {
	v := a.volume
	a.knowsSecret = a.knowsSecret || said.Secret != nil
	a.learnt++
	fresh.says(said, v.refresh, v.provider.now(), v.provider.chance)
	v.answers[fresh.query], known[fresh.query] = fresh, said.Value
}
