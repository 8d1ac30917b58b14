package faults

import (
	"context"
	"math/rand/v2"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"k8s.io/utils/clock"

	"github.com/vaultmount/vaultmount/test/rig"
	"github.com/vaultmount/vaultmount/test/tally"
)

// However many calls for one volume come at once, and in whatever order: each is
// served or told to come back, whoever looks finds all files or none, and nothing
// is left when the last has gone. The driver is in this process, where the race
// detector sees it. Two of three calls publish: the first of them mounts, and those
// that find the volume there are the kubelet's republishes.
func TestStormOfCallsForOneVolume(t *testing.T) {
	const callers = 16
	s := startStorm(t)
	ctx, cancel := context.WithTimeout(t.Context(), stormTime())
	defer cancel()
	var all sync.WaitGroup
	tallies := make([]stormTally, callers)
	first := rig.NewRandom(t)
	for i := range callers {
		random := rand.New(rand.NewPCG(first.Uint64(), uint64(i)))
		all.Go(func() {
			for ctx.Err() == nil {
				s.call(t, random.IntN(3) > 0, &tallies[i])
				s.lookInto(t, &tallies[i])
			}
		})
	}
	all.Wait()
	var total stormTally
	for _, each := range tallies {
		total.add(each)
	}
	t.Logf("%+v", total)
	if total.published == 0 || total.unpublished == 0 || total.seen == 0 {
		t.Error("the calls never came to work on the volume")
	}
	tally.Record(t, "calls for one volume, 16 at a time", total.calls(), total.lost)
	s.finish(t)
}

// stormTime is how long the calls go on.
func stormTime() time.Duration {
	if os.Getenv(longRun) != "" {
		return time.Minute
	}
	return 3 * time.Second
}

// storm is one volume, and the driver that all calls go to.
type storm struct {
	*rig.Kubelet
	*rig.InProcess

	vault   *rig.Vault
	request *csi.NodePublishVolumeRequest
}

func startStorm(t *testing.T) *storm {
	t.Helper()
	kubelet, vault, log := rig.NewKubelet(t), rig.StartVault(t), &rig.Log{}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("log of the driver:\n%s", log)
		}
	})
	vault.SetPassword(t, password(1))
	s := &storm{
		Kubelet: kubelet, vault: vault, request: kubelet.Request(t, vault, "storm", generations()),
		InProcess: &rig.InProcess{Config: rig.NewConfig(kubelet.Root, vault.Server.Address), Clock: clock.RealClock{}, Log: log},
	}
	s.Start(t)
	return s
}

// finish publishes and unpublishes once more, alone.
func (s *storm) finish(t *testing.T) {
	t.Helper()
	if _, err := s.Calls.NodePublishVolume(t.Context(), s.request); err != nil {
		t.Error(err)
	}
	if seen, err := readGeneration(s.request.GetTargetPath()); err != nil || seen != 1 {
		t.Errorf("in the end the files hold generation %d, %v", seen, err)
	}
	rig.Eventually(t, "only the last token is left", func() bool { return s.vault.PodTokens(t) == 1 })
	if _, err := s.Calls.NodeUnpublishVolume(t.Context(), rig.Unpublish(s.request)); err != nil {
		t.Error(err)
	}
	rig.RequireNothing(t, s.request.GetTargetPath())
	rig.Eventually(t, "no token is left", func() bool { return s.vault.PodTokens(t) == 0 })
	rig.Eventually(t, "nothing is left to remember", func() bool { return len(s.Records(t)) == 0 })
}

// stormTally counts how calls were answered, how often the files were seen, and
// what went wrong.
type stormTally struct{ published, unpublished, rejected, seen, lost int }

func (s *stormTally) add(other stormTally) {
	s.published += other.published
	s.unpublished += other.unpublished
	s.rejected += other.rejected
	s.seen += other.seen
	s.lost += other.lost
}

// calls are all; those that went wrong are lost.
func (s *stormTally) calls() int { return s.published + s.unpublished + s.rejected + s.lost }

func (s *storm) call(t *testing.T, publish bool, counts *stormTally) {
	count := &counts.published
	var err error
	if publish {
		_, err = s.Calls.NodePublishVolume(t.Context(), s.request)
	} else {
		count = &counts.unpublished
		_, err = s.Calls.NodeUnpublishVolume(t.Context(), rig.Unpublish(s.request))
	}
	switch status.Code(err) {
	case codes.OK:
		*count++
	case codes.Aborted:
		counts.rejected++
	default:
		counts.lost++
		t.Errorf("publish=%t: %v", publish, err)
	}
}

// lookInto reads the files of the volume, if there is one. A volume that is
// unmounted meanwhile stays whole for who has it open.
func (s *storm) lookInto(t *testing.T, counts *stormTally) {
	seen, err := readSet(s.request.GetTargetPath())
	switch {
	case err != nil || seen > 1:
		counts.lost++
		t.Errorf("the volume holds generation %d, %v", seen, err)
	case seen == 1:
		counts.seen++
	}
}
