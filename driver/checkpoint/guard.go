package checkpoint

import (
	"time"

	"k8s.io/klog/v2"

	"github.com/vaultmount/vaultmount/driver/rounds"
)

// lookInterval is the time between two looks for an unmount that nobody announces.
// The driver must not be killed in that time for the state to be lost.
const lookInterval = 5 * time.Second

// guard keeps the tmpfs where the next process looks for it. An administrator may
// unmount it, or a script that unmounts all below the kubelet's directory: records
// go on in memory then, and would end with this process.
type guard struct {
	logger klog.Logger
	tmpfs  Tmpfs
	rounds *rounds.Rounds

	lost bool // it cannot be brought back; one look is made at a time
}

func startGuard(logger klog.Logger, tmpfs Tmpfs) *guard {
	g := &guard{logger: logger, tmpfs: tmpfs}
	g.rounds = rounds.Start(lookInterval, g.look)
	return g
}

// stop looks once more, for the next process.
func (g *guard) stop() {
	g.rounds.Stop()
	g.look()
}

// look says once what is wrong, and once that it is over.
func (g *guard) look() {
	anew, err := g.tmpfs.Attach()
	if err != nil {
		if !g.lost {
			g.logger.Error(err, "State is not mounted any more, and cannot be mounted again; it goes on in memory, and unless what is in the way is removed, volumes log in anew after a restart of the driver")
		}
		g.lost = true
		return
	}
	if anew {
		g.logger.Error(nil, "State was unmounted while the driver runs; it is mounted again with all its records, and none was written to the disk. Leave what is mounted below the kubelet's plugins directory to the driver")
	}
	g.lost = false
}
