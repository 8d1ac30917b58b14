package provider

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/vaultmount/vaultmount/provider/limits"
	render "github.com/vaultmount/vaultmount/provider/template"
	"github.com/vaultmount/vaultmount/provider/vault"
)

// readings are what Vault said last to those who share a token. They are few and not
// old: what a volume still uses, it holds as well.
type readings struct {
	mutex sync.Mutex
	known map[render.Dependency]*reading
	// kept is the size of all answers.
	kept vault.Size
	// longest is the longest interval of who asks, and swept when old answers were
	// forgotten last.
	longest time.Duration
	swept   time.Time
}

// reading is what Vault said last to one query. Whoever has the turn owns the rest.
type reading struct {
	turn chan struct{} // holds one: whoever asks Vault
	// asks counts the questions to Vault, for those who wait.
	asks atomic.Int64

	said   render.Value
	at     time.Time // when Vault was asked; zero for no answer
	err    error     // why there is none
	urgent bool      // who asked was
	leased bool
	kept   vault.Size // under the mutex of the readings
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
	// urgent is of a pod that waits to start.
	urgent bool
	// interval is the time between two reads of the volume.
	interval time.Duration
}

func (l look) takes(at time.Time) bool {
	return !at.Before(l.fresh) || at.After(l.own) && l.now().Sub(at) < l.age
}

func newReadings() *readings { return &readings{known: map[render.Dependency]*reading{}} }

func (r *readings) of(query render.Dependency) *reading {
	r.mutex.Lock()
	defer r.mutex.Unlock()
	known := r.known[query]
	if known == nil {
		if len(r.known) >= limits.Dependencies.Max() {
			r.dropLocked(func(*reading) bool { return true })
		}
		known = &reading{turn: make(chan struct{}, 1)}
		r.known[query] = known
	}
	return known
}

// sweep forgets what is so old that no volume would take it.
func (r *readings) sweep(now time.Time, age time.Duration) {
	r.mutex.Lock()
	defer r.mutex.Unlock()
	r.dropLocked(func(each *reading) bool { return now.Sub(each.at) >= age })
}

// dropLocked forgets what nobody asks for right now. Whoever needs it asks Vault again.
func (r *readings) dropLocked(drops func(*reading) bool) {
	for query, each := range r.known {
		select {
		case each.turn <- struct{}{}:
			if drops(each) {
				delete(r.known, query)
				r.kept = r.kept.Sub(each.kept)
				each.kept = vault.Size{}
			}
			<-each.turn
		default: // somebody asks right now
		}
	}
}

// ask returns an answer that the look takes, or asks Vault.
func (r *readings) ask(query render.Dependency, l look, ask func() (render.Value, error)) (reply, error) {
	each := r.of(query)
	said, err := each.ask(l, ask)
	if err == nil {
		r.keep(query, each, sizeOf(said.Value))
	}
	r.sweepInTime(l)
	return said, err
}

// sweepInTime forgets what has become old because nobody asks for it any more.
func (r *readings) sweepInTime(l look) {
	r.mutex.Lock()
	defer r.mutex.Unlock()
	now := l.now()
	r.longest = max(r.longest, l.interval)
	if now.Sub(r.swept) >= r.longest {
		r.swept = now
		r.dropLocked(func(each *reading) bool { return now.Sub(each.at) >= r.longest })
	}
}

// keep counts an answer. Over the limit of one volume, all are forgotten.
func (r *readings) keep(query render.Dependency, each *reading, size vault.Size) {
	r.mutex.Lock()
	defer r.mutex.Unlock()
	if r.known[query] != each {
		return
	}
	r.kept = r.kept.Sub(each.kept).Add(size)
	each.kept = size
	if limits.VolumeResponseBytes.Check(r.kept.Bytes) != nil || limits.VolumeResponseValues.Check(r.kept.Values) != nil {
		r.dropLocked(func(*reading) bool { return true })
	}
}

// ask returns an answer that the look takes, or asks Vault. Those who wait while
// one asks are told the same, also why there is no answer: many pods that start at
// once are one question. Later ones ask again, as nobody remembers a failure; and so
// does a pod that starts where a refresh had failed, which may not have asked at all.
func (r *reading) ask(l look, ask func() (render.Value, error)) (reply, error) {
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
	case r.asks.Load() != before && (r.err == nil || r.urgent || !l.urgent), !r.at.IsZero() && l.takes(r.at):
		return reply{Value: r.said, at: r.at}, r.err
	}
	at := l.now()
	said, err := ask()
	if err != nil && l.ctx.Err() != nil {
		return reply{}, err // this one gave up; the next asks
	}
	r.asks.Add(1)
	r.urgent = l.urgent
	if err == nil && said.Secret != nil && said.Secret.LeaseID != "" {
		r.leased, err = true, errUnshared
	}
	if err != nil {
		said, at = render.Value{}, time.Time{}
	}
	r.said, r.at, r.err = said, at, err
	return reply{Value: said, at: at}, err
}
