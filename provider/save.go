package provider

import (
	"context"
	"crypto/sha256"
	"slices"
)

// save keeps a volume's state for the next process. Only whoever fetches for the
// volume may call it.
func (v *volume) save() {
	v.retain()
	v.checkpoint.save(v, func() record { return v.record() })
}

// record is nil for a volume that is closed.
func (v *volume) record() *volumeRecord {
	v.mutex.Lock()
	closed, endpoint, options := v.closed, v.endpoint, v.options
	v.mutex.Unlock()
	if closed {
		return nil
	}
	shared := ""
	if v.shared != nil {
		shared = v.shared.key
	}
	return &volumeRecord{
		Version: stateVersion, VolumeID: v.id, Pod: v.pod, Session: v.session.key, Shared: shared, Endpoint: endpoint, Options: options,
		Outputs: v.outputRecords, Size: v.size, Pods: v.pods, Refresh: v.refresh, Answers: encodeAnswers(v.answers),
		Written: slices.Clone(v.written[:]), Stale: v.stale, Shown: v.shown, Refreshed: v.refreshed, Trouble: v.trouble.record(),
	}
}

func volumeKey(volumeID string) string { return volumePrefix + hash([]byte(volumeID)) }

// close forgets a volume.
func (v *volume) close() {
	v.shut()
	v.checkpoint.forget(v)
}

// shut keeps a fetch that may still run from saving the volume again.
func (v *volume) shut() {
	v.mutex.Lock()
	defer v.mutex.Unlock()
	v.closed = true
	v.isOpen.Store(false)
}

// save keeps a session's state for the next process. The mutex is not held.
func (s *session) save() {
	s.checkpoint.save(s, func() record { return s.record() })
}

// record is nil for a session that is closed.
func (s *session) record() *sessionRecord {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	if s.closed {
		return nil
	}
	return &sessionRecord{
		Version: stateVersion, Key: s.key, Namespace: s.namespace, Means: s.means, Serial: s.serial, Grants: slices.Clone(s.grants),
		Revoke: s.revoke, Bearer: s.bearer, Trouble: s.trouble.record(),
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
	if err := p.revocations.resume(ctx); err != nil {
		return err
	}
	p.mutex.Lock()
	p.sessions = sessions
	for _, v := range volumes {
		p.resume(v)
	}
	all := make([]*session, 0, len(sessions))
	for _, s := range sessions {
		s.closeIfUnused()
		all = append(all, s)
	}
	p.mutex.Unlock()
	for _, s := range all {
		p.settle(s)
	}
	p.logger.Info("Resumed", "volumes", len(volumes), "sessions", len(sessions))
	return nil
}

// closeIfUnused closes a session without volumes. A shared one goes on without the volume
// that has logged in so far, if that is gone.
func (s *session) closeIfUnused() {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	switch {
	case len(s.volumes) == 0:
		s.closeLocked()
	case s.readings != nil && s.volumeLocked(s.bearer) == nil:
		s.passOnLocked()
	}
}

func (p *Provider) resumeSessions(ctx context.Context) (map[string]*session, error) {
	sessions := map[string]*session{}
	err := p.records.each(ctx, sessionPrefix, func() record { return &sessionRecord{} }, func(_ string, content record) (string, bool) {
		r := content.(*sessionRecord)
		s := newSession(p, r.Key, r.Namespace)
		s.means, s.serial, s.grants, s.revoke, s.bearer, s.trouble = r.Means, r.Serial, r.Grants, r.Revoke, r.Bearer, r.Trouble.trouble()
		if s.bearer != "" {
			s.readings = newReadings()
		}
		s.checkpoint.resumed(s, s.record())
		sessions[s.key] = s
		return r.Namespace, true
	})
	return sessions, err
}

func (p *Provider) resumeVolumes(ctx context.Context, sessions map[string]*session, isThere func(volumeID string) bool) ([]*volume, error) {
	var volumes []*volume
	err := p.records.each(ctx, volumePrefix, func() record { return &volumeRecord{} }, func(_ string, content record) (string, bool) {
		r := content.(*volumeRecord)
		s, shared := sessions[r.Session], p.sharedOf(sessions[r.Shared])
		if s == nil || !isThere(r.VolumeID) || shared == nil && r.Shared != "" && p.sharing == ShareServiceAccount {
			return "", false
		}
		v := newResumed(p, r)
		v.session, v.shared = s, shared
		v.checkpoint.resumed(v, v.record())
		volumes = append(volumes, v)
		return v.namespace, true
	})
	return volumes, err
}

func newResumed(p *Provider, r *volumeRecord) *volume {
	v := newVolume(p, Request{VolumeID: r.VolumeID, Pod: r.Pod, Files: r.outputs(), Size: r.Size, Refresh: r.Refresh, Endpoint: r.Endpoint, Options: r.Options})
	v.answers, v.stale, v.shown, v.refreshed = decodeAnswers(r.Answers), r.Stale, r.Shown, r.Refreshed
	v.leases, v.plan = len(v.answers.leased()), v.answers.plan()
	v.trouble = r.Trouble.trouble()
	v.failure = first(v.trouble.err, v.answers.failure())
	if len(r.Written) == sha256.Size {
		v.written = [sha256.Size]byte(r.Written)
	}
	v.retain()
	return v
}

// resume puts a volume to work again. Its first look is at once, since what was
// due may be overdue; if nothing is, it costs nothing. The mutex is held.
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
