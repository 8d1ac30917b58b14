package provider

import (
	"context"
	"fmt"
	"time"

	"k8s.io/klog/v2"

	"github.com/vaultmount/vaultmount/provider/vault"
)

const (
	// maxRevocations bounds what waits while Vault is away.
	maxRevocations = 4096
	// revokeTimeout is for one token. A Vault that does not answer by then ends
	// the token itself when its TTL is over.
	revokeTimeout = 10 * time.Second
)

// revocations ends sessions in the background, one at a time: the deletion of a
// pod waits for no Vault, and an emptied node is no burst for it.
type revocations struct {
	logger klog.Logger
	queue  chan *vault.Session
	cancel context.CancelFunc
	done   chan struct{}
}

func startRevocations(logger klog.Logger) *revocations {
	// Not a caller's context: that ends with its call.
	ctx, cancel := context.WithCancel(context.Background())
	r := &revocations{logger: logger, queue: make(chan *vault.Session, maxRevocations), cancel: cancel, done: make(chan struct{})}
	go r.run(ctx)
	return r
}

func (r *revocations) run(ctx context.Context) {
	defer close(r.done)
	for session := range r.queue {
		if err := revoke(ctx, session); err != nil {
			r.logger.Error(err, "Vault token not revoked; it ends with its TTL")
		}
	}
}

func revoke(ctx context.Context, session *vault.Session) error {
	defer session.Close()
	ctx, cancel := context.WithTimeout(vault.Background(ctx), revokeTimeout)
	defer cancel()
	return session.Revoke(ctx)
}

func (r *revocations) add(session *vault.Session) {
	select {
	case r.queue <- session:
	default:
		session.Close()
		r.logger.Error(nil, "Vault token not revoked, too many wait for it; it ends with its TTL", "waiting", maxRevocations)
	}
}

// stop takes no more sessions and waits for those in the queue, until ctx ends.
func (r *revocations) stop(ctx context.Context) error {
	defer r.cancel()
	close(r.queue)
	select {
	case <-r.done:
		return nil
	case <-ctx.Done():
		left := len(r.queue)
		r.cancel()
		<-r.done
		return fmt.Errorf("revoke the Vault tokens of %d closed volumes: %w", left, ctx.Err())
	}
}
