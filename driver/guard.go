package driver

import (
	"slices"
	"time"

	"github.com/vaultmount/vaultmount/driver/rounds"
)

// lookInterval is the time between two looks for a registration that somebody has
// removed. No pod with a volume starts on the node meanwhile.
const lookInterval = 5 * time.Second

// guard keeps the driver where it is looked for. Somebody may remove the link in
// plugins_registry, at which the kubelet takes the driver off the node, or a socket: the
// one of CSI, or the one behind the link, without which neither a kubelet that restarts
// finds the driver nor its next process. A process that fails to take over removes its
// own, which it had put in the place of this one's. Nobody tells the driver of it.
type guard struct {
	term   *term
	rounds *rounds.Rounds

	lost bool // it cannot be made again; one look is made at a time
}

func startGuard(t *term) *guard {
	g := &guard{term: t}
	g.rounds = rounds.Start(lookInterval, g.look)
	return g
}

// stop returns when nothing is made again any more: the link is about to be withdrawn,
// or to be another process's.
func (g *guard) stop() { g.rounds.Stop() }

// look says once what is wrong, and once that it is over.
func (g *guard) look() {
	removed := g.term.removed()
	if len(removed) == 0 && !g.lost {
		return
	}
	if err := g.restore(removed); err != nil {
		if !g.lost {
			g.term.logger.Error(err, "Registration was removed while the driver runs, and cannot be made anew; no pod with a volume starts on this node before that", "removed", removed)
		}
		g.lost = true
		return
	}
	g.term.logger.Error(nil, "Registration was removed while the driver runs; it is made anew, and the kubelet will find it. Leave what is the driver's in the kubelet's directories plugins and plugins_registry to the driver", "removed", removed)
	g.lost = false
}

// restore makes the sockets again that are gone, and has the kubelet register the driver
// by a new link. If only the socket behind the link was gone, the kubelet may have started
// in that time, and have passed the old link over.
func (g *guard) restore(removed []string) error {
	p := g.term.plugin
	for _, each := range slices.Clone(g.term.sockets) {
		if each.isFound() {
			continue
		}
		if err := g.term.renew(each); err != nil {
			return err
		}
	}
	if !g.lost && !slices.Contains(removed, p.registrationSocket()) && !slices.Contains(removed, p.link("*")) {
		return nil // the kubelet knows the driver, and finds it by the same path
	}
	p.setRegistered(false)
	return p.announce()
}

// removed is what the kubelet, or an administrator, needs to find the driver, and does not
// lead to it.
func (t *term) removed() []string {
	var removed []string
	// A directory that cannot be read has kept the driver from being announced at all.
	if links, err := t.plugin.announcements(); err == nil && len(links) == 0 {
		removed = append(removed, t.plugin.link("*"))
	}
	for _, each := range t.sockets {
		if !each.isFound() {
			removed = append(removed, each.path)
		}
	}
	return removed
}
