package provider

import "time"

// adoptSpread is the time over which the volumes of a node log in whose state
// was lost.
const adoptSpread = 5 * time.Second

// Republish takes over fresh means to log in, asks no Vault, and has static
// secrets read if the pod had an event. A volume that is not known, since the
// state of an earlier process was lost, gets a new session in the background.
func (p *Provider) Republish(request Request) {
	p.mutex.Lock()
	v := p.volumes[request.VolumeID]
	p.mutex.Unlock()
	if v != nil {
		if !request.Same {
			fresh := means{request.Endpoint, request.Options, request.Login}
			for _, s := range v.sessions() {
				s.equip(v, fresh)
			}
			v.direct(request.Endpoint, request.Options)
			if v.describe(request.Files) {
				p.schedule.wake(v.task, p.now())
			}
		}
		v.tick()
		return
	}
	if request.Same || request.Refresh.Disabled {
		return
	}
	p.logger.Info("Volume adopted; it logs in anew", logVolumeID, request.VolumeID, logPod, request.Pod)
	adopted := newVolume(p, request)
	adopted.stale = true
	p.join(adopted, request)
	p.start(adopted, p.now().Add(p.chance.part(adoptSpread, 0, 1)))
}
