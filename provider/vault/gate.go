package vault

import (
	"container/list"
	"context"
	"errors"
	"fmt"
	"sync"
)

// gate lets a number of requests through at a time. Those in the foreground, for
// which a pod waits, pass before any in the background, each kind in the order
// of arrival. (A weighted semaphore of golang.org/x/sync knows one queue.)
type gate struct {
	mutex                  sync.Mutex
	free                   int
	foreground, background list.List // of chan struct{}, closed to let one through
}

var errNoTurn = errors.New("no turn to ask Vault came, so many requests are in flight")

func newGate(places int) *gate { return &gate{free: places} }

type backgroundKey struct{}

// Background marks the requests of a context as ones that can wait for those
// that pods wait for.
func Background(ctx context.Context) context.Context {
	return context.WithValue(ctx, backgroundKey{}, true)
}

func isBackground(ctx context.Context) bool {
	return ctx.Value(backgroundKey{}) != nil
}

// enter waits for a place, or for the end of ctx. Each enter without an error is
// followed by one leave.
func (g *gate) enter(ctx context.Context, background bool) error {
	g.mutex.Lock()
	if g.free > 0 {
		g.free--
		g.mutex.Unlock()
		return nil
	}
	queue := &g.foreground
	if background {
		queue = &g.background
	}
	turn := make(chan struct{})
	place := queue.PushBack(turn)
	g.mutex.Unlock()

	select {
	case <-turn:
		return nil
	case <-ctx.Done():
		g.giveUp(queue, place, turn)
		return fmt.Errorf("%w: %w", errNoTurn, ctx.Err())
	}
}

// giveUp leaves the queue, or passes on a place that was given just now.
func (g *gate) giveUp(queue *list.List, place *list.Element, turn chan struct{}) {
	g.mutex.Lock()
	defer g.mutex.Unlock()
	select {
	case <-turn:
		g.passOn()
	default:
		queue.Remove(place)
	}
}

func (g *gate) leave() {
	g.mutex.Lock()
	defer g.mutex.Unlock()
	g.passOn()
}

// passOn gives a place to whoever is next. The mutex is held.
func (g *gate) passOn() {
	for _, queue := range []*list.List{&g.foreground, &g.background} {
		if first := queue.Front(); first != nil {
			queue.Remove(first)
			close(first.Value.(chan struct{}))
			return
		}
	}
	g.free++
}
