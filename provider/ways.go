package provider

import (
	"context"
	"errors"
	"slices"
)

// way is where a volume's requests go, and how patient they are.
type way struct {
	endpoint Endpoint
	options  ClientOptions
}

// tryWays calls do with the session's means, and where Vault may not have been reached,
// with the way of another of its volumes. Volumes of a pod share a token, but each has
// the certificates of its own Secret: those of one that cannot be used must not end the
// credentials of the others. What works is kept. Where nothing does, the error is one
// that may pass, if there is one: it says how soon to try again.
func (s *session) tryWays(ctx context.Context, do func(means) error) error {
	var failure error
	for range s.countWays() {
		with := s.currentMeans()
		err := do(with)
		if !errors.Is(err, ErrInvalid) && !errors.Is(err, ErrUnavailable) {
			return err
		}
		if !errors.Is(failure, ErrUnavailable) {
			failure = err
		}
		s.takeNext(with)
		if ctx.Err() != nil {
			break // the next attempt begins with the next way
		}
	}
	return failure
}

// waysLocked are those of the volumes, in order.
func (s *session) waysLocked() []way {
	var all []way
	for _, id := range s.idsLocked() {
		endpoint, options := s.volumeLocked(id).way()
		if indexOf(all, endpoint) < 0 {
			all = append(all, way{endpoint, options})
		}
	}
	return all
}

func indexOf(all []way, endpoint Endpoint) int {
	return slices.IndexFunc(all, func(w way) bool { return w.endpoint == endpoint })
}

// countWays counts the one in use as well, which may be of a volume that is gone.
func (s *session) countWays() int {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	all := s.waysLocked()
	if indexOf(all, s.means.Endpoint) < 0 {
		return len(all) + 1
	}
	return len(all)
}

// takeNext takes the way that comes after one that has failed, unless there are fresh
// means already.
func (s *session) takeNext(failed means) {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	all := s.waysLocked()
	if s.means != failed || len(all) == 0 {
		return
	}
	next := all[(indexOf(all, failed.Endpoint)+1)%len(all)]
	if next.endpoint != failed.Endpoint {
		s.means.Endpoint, s.means.Options = next.endpoint, next.options
	}
}
