package provider

// join puts a volume into the session that it shares with the other volumes of
// its pod.
func (p *Provider) join(v *volume, request Request) {
	p.mutex.Lock()
	defer p.mutex.Unlock()
	key := sessionKey(request)
	s := p.sessions[key]
	if s == nil {
		s = newSession(p, key)
		p.sessions[key] = s
	}
	s.mutex.Lock()
	defer s.mutex.Unlock()
	s.means = means{request.Endpoint, request.Options, request.Login}
	s.volumes[v.id] = v
	s.revoke = s.revoke || !request.Refresh.KeepToken
	v.session = s
}

// leave takes a volume out of its session, and ends that with its last volume. If
// the volume was not opened in the end, the session keeps what Vault made for it.
func (p *Provider) leave(v *volume, failed bool) {
	p.mutex.Lock()
	defer p.mutex.Unlock()
	s := v.session
	s.mutex.Lock()
	delete(s.volumes, v.id)
	left := len(s.volumes)
	if failed {
		s.leftovers[v.id] = v.answers.leased()
		s.revoke = s.revoke || left == 0 // a token that no volume used
	}
	s.mutex.Unlock()
	if left == 0 {
		p.end(s)
	}
}

// end gives up a session's tokens. The mutex is held.
func (p *Provider) end(s *session) {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	delete(p.sessions, s.key)
	s.closed = true
	p.schedule.remove(s.task)
	if s.revoke {
		for _, g := range s.grants {
			p.revocations.add(s.means, g)
		}
	}
	p.forget(sessionPrefix + s.key)
}
