package provider

import (
	"crypto/sha256"
	"slices"
)

// save keeps a volume's state for the next process. Only whoever fetches for the
// volume may call it.
func (v *volume) save() {
	v.mutex.Lock()
	defer v.mutex.Unlock()
	if v.closed {
		return
	}
	shared := ""
	if v.shared != nil {
		shared = v.shared.key
	}
	v.provider.keep(volumePrefix+hash([]byte(v.id)), &volumeRecord{
		Version: stateVersion, VolumeID: v.id, Pod: v.pod, Session: v.session.key, Shared: shared, Endpoint: v.endpoint, Options: v.options,
		Outputs: v.outputs, Refresh: v.refresh, Answers: encodeAnswers(v.answers),
		Written: v.written[:], Stale: v.stale, Shown: v.shown, Refreshed: v.refreshed, Trouble: v.trouble.record(),
	})
}

// close forgets a volume.
func (v *volume) close() {
	v.shut()
	v.provider.forget(volumePrefix + hash([]byte(v.id)))
}

// shut keeps a fetch that may still run from saving the volume again.
func (v *volume) shut() {
	v.mutex.Lock()
	defer v.mutex.Unlock()
	v.closed = true
	v.isOpen.Store(false)
}

func (s *session) save() {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	s.saveLocked()
}

func (s *session) saveLocked() {
	if s.closed {
		return
	}
	s.provider.keep(sessionPrefix+s.key, &sessionRecord{
		Version: stateVersion, Key: s.key, Means: s.means, Serial: s.serial, Grants: slices.Clone(s.grants), Revoke: s.revoke, Bearer: s.bearer,
		Trouble: s.trouble.record(),
	})
}

// keep stores a record. If the store is full, the volumes go on; what is lost is
// that the next process can.
func (p *Provider) keep(key string, r record) {
	p.timeline.stamp(r)
	err := p.store.Save(key, encode(r))
	if err == nil {
		p.unsaved.Store(false)
		return
	}
	if !p.unsaved.Swap(true) {
		p.logger.Error(err, "State not saved; after a restart of the driver, volumes log in anew")
	}
}

func (p *Provider) forget(key string) {
	if err := p.store.Delete(key); err != nil {
		p.logger.Error(err, "State of a closed volume not deleted")
	}
}

// Resume takes over what an earlier process has saved, without asking Vault for
// anything. What belongs to no volume that isThere reports is given up. It is
// called once, before anything else.
func (p *Provider) Resume(isThere func(volumeID string) bool) error {
	p.mutex.Lock()
	defer p.mutex.Unlock()
	if err := p.revocations.resume(p.store); err != nil {
		return err
	}
	if err := p.resumeSessions(); err != nil {
		return err
	}
	if err := p.resumeVolumes(isThere); err != nil {
		return err
	}
	for _, s := range p.sessions {
		p.settle(s)
	}
	p.logger.Info("Resumed", "volumes", len(p.volumes), "sessions", len(p.sessions))
	return nil
}

// settle ends a session without volumes. A shared one goes on without the volume
// that has logged in so far, if that is gone.
func (p *Provider) settle(s *session) {
	if len(s.volumes) == 0 {
		p.end(s)
		return
	}
	s.mutex.Lock()
	defer s.mutex.Unlock()
	if s.readings != nil && s.volumeLocked(s.bearer) == nil {
		s.passOnLocked()
	}
}

func (p *Provider) resumeSessions() error {
	records, err := p.store.Load(sessionPrefix)
	if err != nil {
		return err
	}
	for key, text := range records {
		var r sessionRecord
		if err := decode(text, &r); err != nil {
			p.unreadable(key, err)
			continue
		}
		p.timeline.takeOver(&r)
		s := newSession(p, r.Key)
		s.means, s.serial, s.grants, s.revoke, s.bearer, s.trouble = r.Means, r.Serial, r.Grants, r.Revoke, r.Bearer, r.Trouble.trouble()
		if s.bearer != "" {
			s.readings = newReadings()
		}
		p.sessions[s.key] = s
	}
	return nil
}

func (p *Provider) resumeVolumes(isThere func(volumeID string) bool) error {
	records, err := p.store.Load(volumePrefix)
	if err != nil {
		return err
	}
	for key, text := range records {
		var r volumeRecord
		if err := decode(text, &r); err != nil {
			p.unreadable(key, err)
			continue
		}
		s, shared := p.sessions[r.Session], p.sharedOf(&r)
		if s == nil || !isThere(r.VolumeID) || shared == nil && r.Shared != "" && p.sharing == ShareServiceAccount {
			p.forget(key)
			continue
		}
		p.timeline.takeOver(&r)
		v := newResumed(p, &r)
		v.session, v.shared = s, shared
		p.resume(v)
	}
	return nil
}

func newResumed(p *Provider, r *volumeRecord) *volume {
	v := newVolume(p, Request{VolumeID: r.VolumeID, Pod: r.Pod, Outputs: r.Outputs, Refresh: r.Refresh, Endpoint: r.Endpoint, Options: r.Options})
	v.answers, v.stale, v.shown, v.refreshed = decodeAnswers(r.Answers), r.Stale, r.Shown, r.Refreshed
	known := v.answers.forRenderer()
	for query, each := range v.answers {
		// Older records do not say it.
		each.hidden = each.hidden || v.holdsSecret(query, known)
	}
	v.leases, v.plan = len(v.answers.leased()), v.answers.plan()
	v.trouble = r.Trouble.trouble()
	v.failure = first(v.trouble.err, v.answers.failure())
	if len(r.Written) == sha256.Size {
		v.written = [sha256.Size]byte(r.Written)
	}
	return v
}

// resume puts a volume to work again. Its first look is at once, since what was
// due may be overdue; if nothing is, it costs nothing.
func (p *Provider) resume(v *volume) {
	now := p.now()
	for _, s := range v.sessions() {
		s.mutex.Lock()
		s.volumes[v] = true
		s.mutex.Unlock()
		p.schedule.wake(s.task, now)
	}
	p.volumes[v.id] = v
	v.isOpen.Store(true)
	p.schedule.wake(v.task, now)
}

// sharedOf is the session that a volume shared with other pods, nil for none; and
// none any more if pods are not to share.
func (p *Provider) sharedOf(r *volumeRecord) *session {
	s := p.sessions[r.Shared]
	if s == nil || s.readings == nil || p.sharing != ShareServiceAccount {
		return nil
	}
	return s
}

func (p *Provider) unreadable(key string, err error) {
	p.logger.Error(err, "State not readable; its volume logs in anew at its next republish", "record", key)
	p.forget(key)
}
