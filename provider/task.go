package provider

import (
	"context"
	"errors"
	"time"

	"k8s.io/klog/v2"
	"k8s.io/utils/clock"

	"github.com/vaultmount/vaultmount/provider/recovery"
)

// task is something to do, again and again. Its fields belong to the schedule.
type task struct {
	// tenant is the namespace of the pod that it is done for.
	tenant string
	// run returns when to run again; zero for when somebody wakes it.
	run func(ctx context.Context) time.Time

	at      time.Time // when it runs next; while it runs, at the latest. Zero: not planned.
	index   int       // in the heap, or notWaiting
	cancel  context.CancelFunc
	removed bool
}

// panicBackoff is the time to the next run of a task after one that panicked.
const panicBackoff = time.Minute

// guarded is run, except that a panic only ends this run: the task runs again later, and
// those of other tenants go on.
func guarded(logger klog.Logger, clock clock.Clock, run func(ctx context.Context) time.Time) func(ctx context.Context) time.Time {
	return func(ctx context.Context) (next time.Time) {
		err := recovery.Do(func() error {
			next = run(ctx)
			return nil
		})
		var panicked *recovery.PanicError
		if errors.As(err, &panicked) {
			logger.Error(err, "Background task failed; it runs again later", logStack, panicked.Stack)
			next = clock.Now().Add(panicBackoff)
		}
		return next
	}
}

const notWaiting = -1

// newTask returns a task of a tenant that nobody has woken.
func newTask(tenant string, run func(ctx context.Context) time.Time) *task {
	return &task{tenant: tenant, run: run, index: notWaiting}
}

// taskQueue holds the tasks of one tenant that wait, and counts those that run.
type taskQueue struct {
	tenant  string
	waiting taskHeap
	running int
}

// taskHeap has the task that is due first at its top.
type taskHeap []*task

func (h taskHeap) Len() int { return len(h) }

func (h taskHeap) Less(i, j int) bool { return h[i].at.Before(h[j].at) }

func (h taskHeap) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].index, h[j].index = i, j
}

func (h *taskHeap) Push(t any) {
	pushed := t.(*task)
	pushed.index = len(*h)
	*h = append(*h, pushed)
}

func (h *taskHeap) Pop() any {
	last := len(*h) - 1
	popped := (*h)[last]
	(*h)[last] = nil
	*h = (*h)[:last]
	popped.index = notWaiting
	return popped
}
