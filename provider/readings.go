package provider

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/vaultmount/vaultmount/provider/render"
)

// readings are what Vault said last to those who share a token. They hold nothing
// that the volumes' answers do not hold as well.
type readings struct {
	mutex sync.Mutex
	known map[render.Query]*reading
}

// reading is what Vault said last to one query. Whoever has the turn owns the rest.
type reading struct {
	turn chan struct{} // holds one: whoever asks Vault
	// asks counts the questions to Vault, for those who wait.
	asks atomic.Int64

	said   render.Answer
	at     time.Time // when Vault was asked; zero for no answer
	err    error     // why there is none
	leased bool
}

// look says what a volume takes for an answer.
type look struct {
	ctx context.Context
	now func() time.Time
	// fresh is from when on an answer is as good as a new one.
	fresh time.Time
	// An answer from before will do if it is newer than the volume's own, and not as
	// old as age.
	own time.Time
	age time.Duration
}

func (l look) takes(at time.Time) bool {
	return !at.Before(l.fresh) || at.After(l.own) && l.now().Sub(at) < l.age
}

func newReadings() *readings { return &readings{known: map[render.Query]*reading{}} }

func (r *readings) of(query render.Query) *reading {
	r.mutex.Lock()
	defer r.mutex.Unlock()
	known := r.known[query]
	if known == nil {
		known = &reading{turn: make(chan struct{}, 1)}
		r.known[query] = known
	}
	return known
}

// sweep forgets what is so old that no volume would take it.
func (r *readings) sweep(now time.Time, age time.Duration) {
	r.mutex.Lock()
	defer r.mutex.Unlock()
	for query, each := range r.known {
		select {
		case each.turn <- struct{}{}:
			if now.Sub(each.at) >= age {
				delete(r.known, query)
			}
			<-each.turn
		default: // somebody asks right now
		}
	}
}

// ask returns an answer that the look takes, or asks Vault. Those who wait while
// one asks are told the same, also why there is no answer: many pods that start at
// once are one question. Later ones ask again, as nobody remembers a failure.
func (r *reading) ask(l look, ask func() (render.Answer, error)) (reply, error) {
	before := r.asks.Load()
	select {
	case r.turn <- struct{}{}:
	case <-l.ctx.Done():
		return reply{}, fmt.Errorf("wait for another pod to read the secret: %w", l.ctx.Err())
	}
	defer func() { <-r.turn }()
	switch {
	case r.leased:
		return reply{}, errUnshared
	case r.asks.Load() != before, !r.at.IsZero() && l.takes(r.at):
		return reply{Answer: r.said, at: r.at}, r.err
	}
	at := l.now()
	said, err := ask()
	if err != nil && l.ctx.Err() != nil {
		return reply{}, err // this one gave up; the next asks
	}
	r.asks.Add(1)
	if err == nil && said.Secret != nil && said.Secret.LeaseID != "" {
		r.leased, err = true, errUnshared
	}
	if err != nil {
		said, at = render.Answer{}, time.Time{}
	}
	r.said, r.at, r.err = said, at, err
	return reply{Answer: said, at: at}, err
}
