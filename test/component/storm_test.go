package component

import (
	"errors"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// However many calls for one volume come at once, and in whatever order: each is
// served or told to come back, whoever looks finds all files or none, and nothing
// is left when the last has gone.
func TestStormOfCallsForOneVolume(t *testing.T) {
	const callers, calls = 16, 150
	fixture := startVault(t)
	n := startNode(t, fixture.server.Address, fixture)
	request := n.request(t, "storm", map[string]string{"template/db": connectionTemplate, "secret/app": "old/app"})
	var storm sync.WaitGroup
	tallies := make([]tally, callers)
	for i := range callers {
		storm.Go(func() {
			random := rand.New(rand.NewPCG(1, uint64(i)))
			for range calls {
				n.call(t, request, random.IntN(3) > 0, &tallies[i])
				lookInto(t, request.GetTargetPath(), &tallies[i])
			}
		})
	}
	storm.Wait()
	var total tally
	for _, each := range tallies {
		total.published += each.published
		total.unpublished += each.unpublished
		total.turnedAway += each.turnedAway
		total.seen += each.seen
	}
	t.Logf("%d calls: %+v", callers*calls, total)
	if total.published == 0 || total.unpublished == 0 || total.seen == 0 {
		t.Error("the calls never came to work on the volume")
	}
	if _, err := n.calls.NodePublishVolume(t.Context(), request); err != nil {
		t.Error(err)
	}
	if got := mustRead(t, volumeFile(request, "db")) + mustRead(t, volumeFile(request, "app")); got != connection+"html: <&>\nname: value\n" {
		t.Errorf("in the end the files hold %q", got)
	}
	eventually(t, "only the last token is left", func() bool { return fixture.podTokens(t) == 1 })
	if _, err := n.calls.NodeUnpublishVolume(t.Context(), unpublishRequest(request)); err != nil {
		t.Error(err)
	}
	requireNothing(t, request.GetTargetPath())
	eventually(t, "no token is left", func() bool { return fixture.podTokens(t) == 0 })
	eventually(t, "nothing is left to remember", func() bool { return len(n.records(t)) == 0 })
}

// tally counts how calls were answered, and how often the files were seen.
type tally struct{ published, unpublished, turnedAway, seen int }

func (n *node) call(t *testing.T, request *csi.NodePublishVolumeRequest, publish bool, counts *tally) {
	count := &counts.published
	var err error
	if publish {
		_, err = n.calls.NodePublishVolume(t.Context(), request)
	} else {
		count = &counts.unpublished
		_, err = n.calls.NodeUnpublishVolume(t.Context(), unpublishRequest(request))
	}
	switch status.Code(err) {
	case codes.OK:
		*count++
	case codes.Aborted:
		counts.turnedAway++
	default:
		t.Errorf("publish=%t: %v", publish, err)
	}
}

// lookInto reads the files of a volume, if there is one. A volume that is unmounted
// meanwhile stays whole for who has it open.
func lookInto(t *testing.T, target string, counts *tally) {
	directory, err := os.OpenRoot(filepath.Join(target, "..data"))
	if errors.Is(err, fs.ErrNotExist) {
		return
	}
	if err != nil {
		t.Errorf("look into the volume: %v", err)
		return
	}
	defer directory.Close()
	for name, want := range map[string]string{"db": connection, "app": "html: <&>\nname: value\n"} {
		if got, err := directory.ReadFile(name); err != nil || string(got) != want {
			t.Errorf("%s holds %q, %v", name, got, err)
		}
	}
	counts.seen++
}
