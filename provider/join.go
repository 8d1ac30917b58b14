package provider

import (
	"slices"
	"time"
)

// join puts a volume into the session that it shares with the other volumes of
// its pod, and into the one that it shares with other pods, if it does.
func (p *Provider) join(v *volume, request Request) {
	var save, saveShared bool
	p.mutex.Lock()
	v.session, save = p.enter(v, request, sessionKey(request), nil)
	if key, shares := p.sharedKey(request); shares {
		v.shared, saveShared = p.enter(v, request, key, newReadings)
	}
	p.mutex.Unlock()
	// The next process needs the pod's means, even if it has not used them so far.
	if save || v.shared != nil {
		v.session.save()
	}
	if saveShared {
		v.shared.save()
	}
}

// enter puts a volume into the session of a key, made if need be; a shared one has
// readings. It reports whether the session has to be saved. The mutex is held.
func (p *Provider) enter(v *volume, request Request, key string, readings func() *readings) (s *session, save bool) {
	before := p.sessions[key]
	s = before
	if before == nil || before.isClosed() {
		s = newSession(p, key, v.namespace)
		if before != nil {
			s.checkpoint = before.checkpoint
		}
		if readings != nil {
			s.readings = readings()
		}
		p.sessions[key] = s
	}
	s.mutex.Lock()
	defer s.mutex.Unlock()
	s.means = means{request.Endpoint, request.Options, request.Login}
	if s.readings != nil {
		s.bearer = v.id
	}
	s.volumes[v] = true
	if !s.revoke && !request.Refresh.SkipRevoke {
		s.revoke = true
		save = len(s.grants) > 0 // the token may not be renewed before the process ends
	}
	return s, save
}

func (s *session) isClosed() bool {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	return s.closed
}

// leave takes a volume out of its sessions, and ends those of which it was the last
// volume. If it was not opened in the end, its own keeps what Vault made for it.
func (p *Provider) leave(v *volume, failed bool) {
	p.mutex.Lock()
	for _, s := range v.sessions() {
		s.exit(v, failed)
	}
	p.mutex.Unlock()
	for _, s := range v.sessions() {
		p.settle(s)
	}
}

// sessions are the pod's own, and the one that it shares with others, if it does.
func (v *volume) sessions() []*session {
	if v.shared == nil {
		return []*session{v.session}
	}
	return []*session{v.session, v.shared}
}

func (s *session) exit(v *volume, failed bool) {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	delete(s.volumes, v)
	left := len(s.volumes)
	if failed {
		s.revoke = s.revoke || left == 0 // a token that no volume used
	}
	if failed && s.readings == nil {
		s.leftovers[v.id] = v.answers.leased()
	}
	switch {
	case left == 0:
		s.closeLocked()
	case s.readings != nil:
		s.partLocked(v)
	}
}

func (s *session) closeLocked() {
	s.closed = true
	s.provider.schedule.remove(s.task)
}

// partLocked has a shared session go on without a volume.
func (s *session) partLocked(v *volume) {
	if s.bearer == v.id && s.volumeLocked(v.id) == nil {
		s.passOnLocked()
	}
	var longest time.Duration
	for each := range s.volumes {
		longest = max(longest, each.refresh.StaticInterval)
	}
	s.readings.sweep(s.provider.now(), longest)
}

// passOnLocked has the next of the volumes that share the session log in from now
// on: a pod that is gone cannot, and another may be able to where one was refused.
// The mutex of a shared session is taken before that of a pod's own.
func (s *session) passOnLocked() {
	ids := s.idsLocked()
	if len(ids) == 0 {
		return
	}
	next, found := slices.BinarySearch(ids, s.bearer)
	if found {
		next++
	}
	bearer := s.volumeLocked(ids[next%len(ids)])
	s.bearer, s.means = bearer.id, bearer.session.currentMeans()
}

// volumeLocked is nil for one that is not in the session.
func (s *session) volumeLocked(id string) *volume {
	for each := range s.volumes {
		if each.id == id {
			return each
		}
	}
	return nil
}

func (s *session) idsLocked() []string {
	ids := make([]string, 0, len(s.volumes))
	for each := range s.volumes {
		ids = append(ids, each.id)
	}
	slices.Sort(ids)
	return slices.Compact(ids)
}

func (s *session) currentMeans() means {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	return s.means
}

// settle saves what has changed of a shared session. It gives up the tokens of one that is
// closed, once: until that is done the session is there for whoever takes its place, which
// has the same record.
func (p *Provider) settle(s *session) {
	s.mutex.Lock()
	closes := s.closed && !s.settled
	s.settled = s.closed
	revoke, with, grants := s.revoke, s.means, s.grants
	s.mutex.Unlock()
	if !closes {
		if s.readings != nil {
			s.save()
		}
		return
	}
	if revoke {
		for _, g := range grants {
			p.revocations.add(s.namespace, with, g)
		}
	}
	s.checkpoint.forget(s)
	p.mutex.Lock()
	defer p.mutex.Unlock()
	if p.sessions[s.key] == s {
		delete(p.sessions, s.key)
	}
}
