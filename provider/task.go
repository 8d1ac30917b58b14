package provider

import (
	"context"
	"time"
)

// task is something to do, again and again. Its fields belong to the schedule.
type task struct {
	// run returns when to run again; zero for when somebody wakes it.
	run func(ctx context.Context) time.Time

	at      time.Time // when it runs next; while it runs, at the latest. Zero: not planned.
	index   int       // in the heap, or notWaiting
	cancel  context.CancelFunc
	removed bool
}

const notWaiting = -1

func newTask(run func(ctx context.Context) time.Time) *task {
	return &task{run: run, index: notWaiting}
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
