package faults

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"github.com/stretchr/testify/require"

	"github.com/vaultmount/vaultmount/test/rig"
	"github.com/vaultmount/vaultmount/test/tally"
)

// killRounds is how often the driver is killed.
const killRounds = 210

// The driver is killed at random times during what it does for a volume, over and
// over. Whoever looks finds all files of one generation or none, the kubelet's next
// call succeeds, and in the end nothing is left.
func TestKills(t *testing.T) {
	vault := rig.StartVault(t)
	// Short, so that tokens are renewed all the time, and that one which only a dead
	// process knew is soon over.
	vault.SetTokenTTL(t, 20*time.Second)
	k := &killer{node: startNode(t, vault, vault.Server.Address), random: rig.NewRandom(t), lost: map[string]bool{}, tries: map[action]*trial{publishing: {}, refreshing: {}, unpublishing: {}}}
	k.rotate(t)
	for i := range 8 {
		k.volumes = append(k.volumes, &victim{request: k.request(t, "pod-"+string(rune('a'+i)), generations())})
	}
	k.calibrate(t)
	for range killRounds {
		k.round(t)
	}
	k.finish(t)
}

// action is what the driver is killed in.
type action string

const (
	publishing   action = "publish"
	refreshing   action = "refresh"
	unpublishing action = "unpublish"
)

// trial counts the kills in one action.
type trial struct {
	takes               time.Duration // undisturbed
	kills, midway, lost int
}

type killer struct {
	*node
	random     *rand.Rand
	generation int // the newest in Vault
	volumes    []*victim
	// lost are Vault tokens of logins whose answer no living process saw. Nobody can
	// revoke them; they end with their TTL.
	lost  map[string]bool
	tries map[action]*trial
}

// victim is a volume as its kubelet knows it.
type victim struct {
	request *csi.NodePublishVolumeRequest
	mounted bool
	seen    int // the generation that the files held last
}

func (k *killer) rotate(t *testing.T) {
	t.Helper()
	k.generation++
	k.Vault.SetPassword(t, password(k.generation))
}

// calibrate measures how long the actions take here, so that kills come in their
// midst.
func (k *killer) calibrate(t *testing.T) {
	t.Helper()
	first := k.volumes[0]
	begin := time.Now()
	k.MustPublish(t, first.request)
	k.tries[publishing].takes = time.Since(begin)
	k.Process.Kill(t)
	k.Again(t)
	k.MustPublish(t, first.request)
	k.rotate(t)
	begin = time.Now()
	require.NoError(t, k.refresh(t.Context(), first.request))
	rig.Eventually(t, "the files are refreshed", func() bool {
		seen, err := readGeneration(first.request.GetTargetPath())
		return err == nil && seen == k.generation
	})
	k.tries[refreshing].takes = time.Since(begin)
	begin = time.Now()
	k.MustUnpublish(t, first.request)
	k.tries[unpublishing].takes = time.Since(begin)
}

// choose draws what to do, and to which volumes.
func (k *killer) choose() (action, []*victim) {
	var mounted, unmounted []*victim
	for _, v := range k.volumes {
		if v.mounted {
			mounted = append(mounted, v)
		} else {
			unmounted = append(unmounted, v)
		}
	}
	what := []action{publishing, refreshing, unpublishing}[k.random.IntN(3)]
	switch {
	case len(unmounted) == 0 && what == publishing:
		what = unpublishing
	case len(mounted) == 0:
		what = publishing
	}
	from := mounted
	if what == publishing {
		from = unmounted
	}
	k.random.Shuffle(len(from), func(i, j int) { from[i], from[j] = from[j], from[i] })
	return what, from[:1+k.random.IntN(min(3, len(from)))]
}

func (k *killer) call(ctx context.Context, what action, v *victim) error {
	switch what {
	case publishing:
		return k.Publish(ctx, v.request)
	case refreshing:
		return k.refresh(ctx, v.request)
	}
	return k.Unpublish(ctx, v.request)
}

// round kills the driver in the midst of something, and has the next one finish it.
func (k *killer) round(t *testing.T) {
	t.Helper()
	what, chosen := k.choose()
	trial := k.tries[what]
	if what == refreshing {
		k.rotate(t)
	}
	trial.kills++
	failed := k.killIn(t, what, chosen)
	complete := k.look(t, what, chosen) && k.account(t, what, failed)
	if failed > 0 || what == refreshing && slices.ContainsFunc(chosen, func(v *victim) bool { return v.seen != k.generation }) {
		trial.midway++
	}
	k.Again(t)
	if !k.resume(t, what, chosen) || !complete {
		trial.lost++
	}
}

// killIn returns how many of the calls were not answered.
func (k *killer) killIn(t *testing.T, what action, chosen []*victim) (failed int) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var calls sync.WaitGroup
	failures := make([]error, len(chosen))
	for i, v := range chosen {
		calls.Go(func() { failures[i] = k.call(ctx, what, v) })
	}
	time.Sleep(time.Duration(k.random.Float64() * 1.5 * float64(k.tries[what].takes)))
	k.Process.Kill(t)
	cancel() // of calls that wait for a driver
	calls.Wait()
	for _, err := range failures {
		if err != nil {
			failed++
		}
	}
	return failed
}

// look reads all volumes while no driver runs. Only what was being made or removed
// may be missing.
func (k *killer) look(t *testing.T, what action, chosen []*victim) bool {
	t.Helper()
	complete := true
	for _, v := range k.volumes {
		before := v.seen
		seen, err := readGeneration(v.request.GetTargetPath())
		mayMiss := !v.mounted || what == unpublishing && slices.Contains(chosen, v)
		if err != nil || seen == 0 && !mayMiss || seen != 0 && (seen < before || seen > k.generation) {
			t.Errorf("killed in %s, %s holds generation %d after %d, %v", what, v.request.GetVolumeId(), seen, before, err)
			complete = false
		}
		v.seen = seen
	}
	return complete
}

// account compares the tokens that Vault knows with those that the dead process has
// left to the next. One may be missing for each login whose answer was on its way.
func (k *killer) account(t *testing.T, what action, failed int) bool {
	t.Helper()
	// Vault may still be at work for the dead process: what it makes is of this kill.
	rig.Eventually(t, "Vault is done with all requests", func() bool { return k.Vault.InFlight(t) == 0 })
	known := k.knownAccessors(t)
	fresh := 0
	for _, accessor := range k.Vault.Accessors(t) {
		if !known[accessor] && !k.lost[accessor] && k.Vault.IsGood(t, accessor) {
			k.lost[accessor] = true
			fresh++
		}
	}
	if fresh > 0 && (what != publishing || fresh > failed) {
		t.Errorf("killed in %s, with %d calls in progress: %d Vault tokens are lost", what, failed, fresh)
		return false
	}
	return true
}

// alive are the tokens that somebody could use. Vault lists others for good: when its
// client goes in the midst of a login, it may fail to write the lease of the token
// that it has made, and then to clean up. It takes no such token.
func (k *killer) alive(t *testing.T) []string {
	t.Helper()
	return slices.DeleteFunc(k.Vault.Accessors(t), func(accessor string) bool { return !k.Vault.IsGood(t, accessor) })
}

// knownAccessors are those of the tokens in the state.
func (k *killer) knownAccessors(t *testing.T) map[string]bool {
	t.Helper()
	known := map[string]bool{}
	for _, path := range k.Records(t) {
		content, err := os.ReadFile(path)
		require.NoError(t, err)
		for _, token := range tokensIn(content) {
			// Vault may have ended it before the record goes.
			if secret, err := k.Vault.Root.Auth().Token().LookupWithContext(t.Context(), token); err == nil {
				known[secret.Data["accessor"].(string)] = true
			}
		}
	}
	return known
}

// tokensIn are the Vault tokens in a record, wherever in it: a "Token" with a "Secret". A
// record is JSON, with a line of JSON before it for a volume. One that is half written has
// none.
func tokensIn(record []byte) (tokens []string) {
	var collect func(value any)
	collect = func(value any) {
		switch value := value.(type) {
		case []any:
			for _, each := range value {
				collect(each)
			}
		case map[string]any:
			if token, ok := value["Token"].(map[string]any); ok {
				if secret, ok := token["Secret"].(string); ok && secret != "" {
					tokens = append(tokens, secret)
				}
			}
			for _, each := range value {
				collect(each)
			}
		}
	}
	for decoder := json.NewDecoder(bytes.NewReader(record)); ; {
		var part any
		if decoder.Decode(&part) != nil {
			return tokens
		}
		collect(part)
	}
}

// resume is the kubelet after the driver has come back: it repeats its calls, or
// the pod has been deleted meanwhile.
func (k *killer) resume(t *testing.T, what action, chosen []*victim) bool {
	t.Helper()
	whole := true
	for _, v := range chosen {
		again := what
		if what == publishing && k.random.IntN(3) == 0 {
			again = unpublishing
		}
		err := k.call(t.Context(), again, v)
		v.mounted = again != unpublishing
		seen, readErr := readGeneration(v.request.GetTargetPath())
		_, statErr := os.Lstat(v.request.GetTargetPath())
		switch {
		case err != nil, readErr != nil, (seen != 0) != v.mounted, v.mounted && seen < v.seen, !v.mounted && !errors.Is(statErr, fs.ErrNotExist):
			t.Errorf("%s after a kill in %s: %v; %s then holds generation %d after %d, %v", again, what, err, v.request.GetVolumeId(), seen, v.seen, readErr)
			whole = false
		}
		v.seen = seen
	}
	return whole
}

// finish has all volumes refreshed, removed, and nothing left.
func (k *killer) finish(t *testing.T) {
	t.Helper()
	k.Process.Kill(t)
	k.Again(t)
	k.rotate(t)
	for _, v := range k.volumes {
		if err := k.refresh(t.Context(), v.request); err != nil {
			t.Error(err)
		}
	}
	for _, v := range k.volumes {
		rig.Eventually(t, v.request.GetVolumeId()+" is refreshed", func() bool {
			seen, err := readGeneration(v.request.GetTargetPath())
			return err == nil && seen == k.generation
		})
		k.MustUnpublish(t, v.request)
	}
	k.requireClean(t)
	k.Process.Stop(t)
	for _, accessor := range k.alive(t) {
		if !k.lost[accessor] {
			t.Errorf("the token %s is left, and no kill explains it", accessor)
		}
	}
	t.Logf("%d logins were killed on their way back", len(k.lost))
	rig.Eventually(t, "the tokens that nobody could revoke are over", func() bool { return len(k.alive(t)) == 0 })
	for what, trial := range k.tries {
		t.Logf("%s takes %s; of %d kills, %d came in its midst", what, trial.takes.Round(time.Millisecond), trial.kills, trial.midway)
		if trial.midway == 0 {
			t.Errorf("no kill came in the midst of %s, so nothing is proved", what)
		}
		tally.Record(t, "driver killed (SIGKILL) in "+string(what), trial.kills, trial.lost)
	}
	if text := k.Process.Log.String(); strings.Contains(text, "generation-") {
		t.Error("the log holds the password")
	}
}
