package provider

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	render "github.com/vaultmount/vaultmount/provider/template"
)

// volume is what one open volume needs to stay fresh.
type volume struct {
	provider *Provider
	session  *session
	shared   *session // with other pods; nil for none
	task     *task    // refreshTask
	id, pod  string
	// namespace is that of the pod, on whose account all is done.
	namespace string
	since     time.Time // this process knows it
	outputs   []FileSpec
	size      int64 // of the files in bytes, see Request
	// outputRecords and pods are the outputs as they are saved.
	outputRecords []outputRecord
	pods          []Pod
	checkpoint    *checkpoint
	refresh       RefreshPolicy
	// isOpen is false until its files are written first.
	isOpen atomic.Bool
	// retained is how many bytes of memory the volume holds.
	retained atomic.Int64

	// turn holds one: the task that fetches for the open volume, or the Open of another
	// in its place.
	turn chan struct{}
	// These belong to whoever fetches for the volume: Open, then who has the turn.
	answers answers
	// written is the hash of what the files hold; stale says that the answers have
	// changed since.
	written [sha256.Size]byte
	stale   bool
	// serial is the number of the token that was used last.
	serial int
	// shown is the serial number of the token that the files show, if they do.
	shown int
	// trouble is of the volume as a whole.
	trouble trouble

	mutex     sync.Mutex // held for no longer than a look
	described []FileSpec // by a republish, if the files are others than those of outputs
	endpoint  Endpoint
	options   ClientOptions
	ticks     ticks
	closed    bool
	failure   error     // of anything
	refreshed time.Time // when all was well last
	leases    int
	plan      []SecretStatus
}

func newVolume(p *Provider, r Request) *volume {
	v := &volume{
		provider: p, id: r.VolumeID, pod: r.Pod, namespace: namespaceOf(r.Pod), outputs: r.Files, size: r.Size, refresh: r.Refresh.withDefaults(),
		turn: make(chan struct{}, 1), answers: answers{}, endpoint: r.Endpoint, options: r.Options, since: p.now(),
	}
	v.checkpoint = p.records.checkpoint(v.namespace, volumeKey(v.id))
	v.outputRecords, v.pods = encodeOutputs(v.outputs)
	v.task = newTask(v.namespace, guarded(p.logger, p.clock, v.refreshTask))
	return v
}

// preview finds out what every template asks, without an answer, and refuses those
// that no secret can make good.
func (p *Provider) preview(ctx context.Context, outputs []FileSpec, size int64) ([]render.Result, error) {
	if ctx.Err() != nil {
		return nil, fmt.Errorf("check the templates: %w", ctx.Err())
	}
	return p.renderAll(ctx, outputs, size, nil)
}

// open fetches and renders for the first time, after a preview of each output.
func (v *volume) open(ctx context.Context, previews []render.Result) (contents []RenderedFile, err error) {
	v.answers = v.session.takeLeftovers(v.id)
	a := v.newAccess(true, MinInterval)
	var used map[render.Dependency]bool
	err = a.run(ctx, func() error {
		contents, used, err = v.render(ctx, a, previews, nil)
		return err
	})
	if lacking := (*tokenError)(nil); errors.As(err, &lacking) {
		return nil, lacking.err // which no file is to blame for
	}
	if err != nil {
		return nil, err
	}
	v.answers.accept(used, nil, v.provider.now())
	now := v.provider.now()
	v.written = digest(contents)
	v.mutex.Lock()
	defer v.mutex.Unlock()
	v.refreshed, v.leases, v.plan = now, len(v.answers.leased()), v.answers.plan()
	v.ticks = ticks{opened: now, read: now}
	return contents, nil
}
