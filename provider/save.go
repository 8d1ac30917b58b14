package provider

import (
	"context"
	"crypto/sha256"
	"fmt"
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
		Version: stateVersion, Key: s.key, Namespace: s.namespace, Means: s.means, Serial: s.serial, Grants: slices.Clone(s.grants), Revoke: s.revoke, Bearer: s.bearer,
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
// anything. What belongs to no volume that isThere reports is given up. It is called
// once, before a volume is opened, republished or closed; Volumes and Numbers may be
// called meanwhile, and know nothing of these volumes before it returns. The time is
// linear in the size of the records; if ctx ends before, its error is returned, and the
// records are there for another process.
func (p *Provider) Resume(ctx context.Context, isThere func(volumeID string) bool) error {
	sessions, err := p.resumeSessions(ctx)
	if err != nil {
		return err
	}
	volumes, err := p.resumeVolumes(ctx, sessions, isThere)
	if err != nil {
		return err
	}
	if err := p.revocations.resume(ctx, p.store); err != nil {
		return err
	}
	p.mutex.Lock()
	defer p.mutex.Unlock()
	p.sessions = sessions
	for _, v := range volumes {
		p.resume(v)
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

func (p *Provider) resumeSessions(ctx context.Context) (map[string]*session, error) {
	sessions := map[string]*session{}
	err := p.loadEach(ctx, sessionPrefix, func(key string, text []byte) {
		var r sessionRecord
		if err := decode(text, &r); err != nil {
			p.unreadable(key, err)
			return
		}
		p.timeline.takeOver(&r)
		s := newSession(p, r.Key, r.Namespace)
		s.means, s.serial, s.grants, s.revoke, s.bearer, s.trouble = r.Means, r.Serial, r.Grants, r.Revoke, r.Bearer, r.Trouble.trouble()
		if s.bearer != "" {
			s.readings = newReadings()
		}
		sessions[s.key] = s
	})
	return sessions, err
}

func (p *Provider) resumeVolumes(ctx context.Context, sessions map[string]*session, isThere func(volumeID string) bool) ([]*volume, error) {
	var volumes []*volume
	err := p.loadEach(ctx, volumePrefix, func(key string, text []byte) {
		var r volumeRecord
		if err := decode(text, &r); err != nil {
			p.unreadable(key, err)
			return
		}
		s, shared := sessions[r.Session], p.sharedOf(sessions[r.Shared])
		if s == nil || !isThere(r.VolumeID) || shared == nil && r.Shared != "" && p.sharing == ShareServiceAccount {
			p.forget(key)
			return
		}
		p.timeline.takeOver(&r)
		v := newResumed(p, &r)
		v.session, v.shared = s, shared
		volumes = append(volumes, v)
	})
	return volumes, err
}

// loadEach calls do with each record of a kind, until ctx ends.
func (p *Provider) loadEach(ctx context.Context, prefix string, do func(key string, text []byte)) error {
	records, err := p.store.Load(prefix)
	if err != nil {
		return err
	}
	for key, text := range records {
		if err := ctx.Err(); err != nil {
			return fmt.Errorf("take over the state of the volumes: %w", err)
		}
		do(key, text)
		delete(records, key) // what it holds is needed once
	}
	return nil
}

func newResumed(p *Provider, r *volumeRecord) *volume {
	v := newVolume(p, Request{VolumeID: r.VolumeID, Pod: r.Pod, Outputs: r.Outputs, Refresh: r.Refresh, Endpoint: r.Endpoint, Options: r.Options})
	v.answers, v.stale, v.shown, v.refreshed = decodeAnswers(r.Answers), r.Stale, r.Shown, r.Refreshed
	v.leases, v.plan = len(v.answers.leased()), v.answers.plan()
	v.retain()
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
func (p *Provider) sharedOf(s *session) *session {
	if s == nil || s.readings == nil || p.sharing != ShareServiceAccount {
		return nil
	}
	return s
}

func (p *Provider) unreadable(key string, err error) {
	p.logger.Error(err, "State not readable; its volume logs in anew at its next republish", "record", key)
	p.forget(key)
}
