package driver

import (
	"os"
	"path/filepath"
	"time"

	"github.com/vaultmount/vaultmount/driver/rounds"
)

// lookInterval is the time between two looks for a registration that somebody has
// removed. No pod with a volume starts on the node meanwhile.
const lookInterval = 5 * time.Second

// guard keeps the driver where it is looked for. Somebody may remove the link in
// plugins_registry, at which the kubelet takes the driver off the node, or the socket
// behind it, without which neither a kubelet that restarts finds the driver nor its
// next process. Nobody tells the driver of it.
type guard struct {
	term   *term
	rounds *rounds.Rounds

	lost bool // it cannot be made anew; one look is made at a time
}

func startGuard(t *term) *guard {
	g := &guard{term: t}
	g.rounds = rounds.Start(lookInterval, g.look)
	return g
}

// stop returns when nothing is made anew any more: the link is about to be withdrawn,
// or to be another process's.
func (g *guard) stop() { g.rounds.Stop() }

// look says once what is wrong, and once that it is over.
func (g *guard) look() {
	removed := g.term.plugin.removed()
	if len(removed) == 0 && !g.lost {
		return
	}
	if err := g.restore(); err != nil {
		if !g.lost {
			g.term.logger.Error(err, "Registration was removed while the driver runs, and cannot be made anew; no pod with a volume starts on this node before that", "removed", removed)
		}
		g.lost = true
		return
	}
	g.term.logger.Error(nil, "Registration was removed while the driver runs; it is made anew, and the kubelet will find it. Leave what is the driver's in the kubelet's directories plugins and plugins_registry to the driver", "removed", removed)
	g.lost = false
}

// restore has the kubelet register the driver by a new link. If only the socket was
// gone, the kubelet may have started in that time, and have passed the old link over.
func (g *guard) restore() error {
	p := g.term.plugin
	p.setRegistered(false)
	if !exists(p.registrationSocket()) {
		if err := g.term.renewAnnouncement(); err != nil {
			return err
		}
	}
	return p.announce()
}

// removed is what the kubelet needs to find the driver, and is not there.
func (p *Plugin) removed() []string {
	var removed []string
	// A pattern that cannot be read has kept the driver from being announced at all.
	if links, err := p.announcements(); err == nil && len(links) == 0 {
		removed = append(removed, filepath.Join(p.registry(), p.config.Name+"-reg-*.sock"))
	}
	if socket := p.registrationSocket(); !exists(socket) {
		removed = append(removed, socket)
	}
	return removed
}

// exists is also true of what another process has put there.
func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}
