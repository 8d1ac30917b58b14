package provider

import (
	"slices"
	"strings"
	"time"

	render "github.com/vaultmount/vaultmount/provider/template"
)

// Status is what an operator wants to know of one volume. It holds no token and no
// secret.
type Status struct {
	VolumeID string
	Pod      string
	// Session is the pod's own, which has no token yet if the pod needs none.
	Session SessionStatus
	// Shared is the session that the pod shares with others; nil for none.
	Shared *SessionStatus
	// Refreshed is when all was well last, Next when something is due; zero for
	// never. Next is not after now while something is being done.
	Refreshed, Next time.Time
	// Err is why the files may be older than Vault's content, nil if they are not.
	Err error
	// Leases is how many of Vault's leases the volume keeps alive.
	Leases int
	// Secrets is what the files are made of, in the order of their paths.
	Secrets []SecretStatus
}

// SessionStatus is the Vault token of a volume, which other volumes of the pod may
// share, and other pods if it is a shared one.
type SessionStatus struct {
	Address, Namespace, Mount, Role string
	// Since is when Vault made the token, Expires when it ends unless it is renewed;
	// zero for never, and both for no token.
	Since, Expires time.Time
	// Logins counts the tokens so far.
	Logins int
	// Pods is how many share it.
	Pods int
	// Err is why there is no token, or why it is not renewed.
	Err error
}

// SecretStatus is a secret of a volume.
type SecretStatus struct {
	Path string
	Verb render.Verb
	// At is when Vault is asked about it next; zero for never.
	At time.Time
	// Expires is when its lease ends, unless it is renewed; zero for none.
	Expires   time.Time
	Renewable bool
	// Err is why Vault did not answer last time, or why the files cannot be made of what it
	// said.
	Err error
}

// Volumes returns the state of each open volume, in the order of their ids.
func (p *Provider) Volumes() []Status {
	p.mutex.Lock()
	defer p.mutex.Unlock()
	all := make([]Status, 0, len(p.volumes))
	for _, v := range p.volumes {
		all = append(all, v.status())
	}
	slices.SortFunc(all, func(a, b Status) int { return strings.Compare(a.VolumeID, b.VolumeID) })
	return all
}

func (v *volume) status() Status {
	status := Status{VolumeID: v.id, Pod: v.pod, Session: v.session.status(), Next: v.provider.schedule.planned(v.task)}
	for _, s := range v.sessions() {
		status.Next = earlier(status.Next, v.provider.schedule.planned(s.task))
	}
	status.Err = status.Session.Err
	if v.shared != nil {
		shared := v.shared.status()
		status.Shared, status.Err = &shared, first(status.Err, shared.Err)
	}
	v.mutex.Lock()
	defer v.mutex.Unlock()
	status.Refreshed, status.Leases, status.Secrets = v.refreshed, v.leases, slices.Clone(v.plan)
	status.Err = first(v.failure, status.Err)
	return status
}

func (s *session) status() SessionStatus {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	status := SessionStatus{
		Address: s.means.Endpoint.Address, Namespace: s.means.Options.Namespace,
		Mount: s.means.Login.Mount, Role: s.means.Login.Role, Logins: s.serial, Err: s.trouble.err, Pods: s.podsLocked(),
	}
	if len(s.grants) > 0 {
		current := s.grants[len(s.grants)-1]
		status.Since, status.Expires = current.Since, current.Term.Expires
	}
	return status
}

func (s *session) podsLocked() int {
	pods := map[string]bool{}
	for v := range s.volumes {
		pods[v.pod] = true
	}
	return len(pods)
}

// plan tells when what is due.
func (a answers) plan() []SecretStatus {
	all := make([]SecretStatus, 0, len(a))
	for _, each := range a.inOrder() {
		all = append(all, SecretStatus{
			Path: each.shownPath(), Verb: each.query.Verb, At: each.due,
			Expires: each.lease.Expires, Renewable: each.lease.Renewable, Err: each.failure(),
		})
	}
	return all
}

// Stats sum a node up.
type Stats struct {
	// Volumes are open; Failing is how many of them may have files that are older
	// than Vault's content.
	Volumes, Failing int
	// Sessions have a Vault token each; SessionsFailing is how many cannot get or
	// renew it. SessionsShared are those of several pods, and VolumesSharing the
	// volumes of those.
	Sessions, SessionsFailing, SessionsShared int
	VolumesSharing                            int
	Leases                                    int
	// PendingRevocations is how many tokens wait to be revoked.
	PendingRevocations int
	// Unsaved is how many namespaces had a record last that was not saved.
	Unsaved int
	// QueueLag is for how long the most overdue refresh has waited; OldestFailure, of the
	// volumes that fail, the longest time since all was well.
	QueueLag, OldestFailure time.Duration
	// BreakerOpen tells for the address of each Vault whether its circuit breaker is open.
	BreakerOpen map[string]bool
}

// Numbers returns how the node fares.
func (p *Provider) Numbers() Stats {
	p.mutex.Lock()
	defer p.mutex.Unlock()
	n := Stats{Volumes: len(p.volumes), PendingRevocations: p.revocations.count(), Unsaved: p.records.unsaved(), QueueLag: p.schedule.lag(), BreakerOpen: p.clients.BreakerOpen()}
	for _, s := range p.sessions {
		s.count(&n)
	}
	now := p.now()
	for _, v := range p.volumes {
		v.mutex.Lock()
		n.Leases += v.leases
		if v.shared != nil {
			n.VolumesSharing++
		}
		if v.failure != nil {
			n.Failing++
			n.OldestFailure = max(n.OldestFailure, now.Sub(v.lastWell()))
		}
		v.mutex.Unlock()
	}
	return n
}

// lastWell is when all was well last, as far as this process knows. The mutex is
// held.
func (v *volume) lastWell() time.Time {
	if v.refreshed.IsZero() {
		return v.since
	}
	return v.refreshed
}

// count adds a session, unless none of its pod's volumes has needed it so far.
func (s *session) count(n *Stats) {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	if !s.isWantedLocked() {
		return
	}
	n.Sessions++
	if s.trouble.err != nil {
		n.SessionsFailing++
	}
	if s.readings != nil {
		n.SessionsShared++
	}
}
