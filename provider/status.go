package provider

import (
	"slices"
	"strings"
	"time"
)

// Status is what an operator wants to know of one volume.
type Status struct {
	VolumeID string
	Pod      string
	// Refreshed is when all was well last, Next when something is due; zero for
	// never. Next is not after now while something is being done.
	Refreshed, Next time.Time
	// Err is why the files may be older than Vault's content, nil if they are not.
	Err error
	// Leases is how many of Vault's leases the volume keeps alive.
	Leases int
	// TokenExpires is when the Vault token ends unless it is renewed; zero for never.
	TokenExpires time.Time
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
	s := v.session
	s.mutex.Lock()
	sessionErr := s.trouble.err
	var expires time.Time
	if len(s.grants) > 0 {
		expires = s.grants[len(s.grants)-1].Term.Expires
	}
	s.mutex.Unlock()
	v.mutex.Lock()
	defer v.mutex.Unlock()
	return Status{
		VolumeID: v.id, Pod: v.pod, Refreshed: v.refreshed, Leases: v.leases,
		Next:         earlier(v.provider.schedule.planned(v.task), v.provider.schedule.planned(s.task)),
		Err:          first(v.failure, sessionErr),
		TokenExpires: expires,
	}
}
