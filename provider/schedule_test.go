package provider

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"k8s.io/utils/clock"
	clocktesting "k8s.io/utils/clock/testing"

	"github.com/vaultmount/vaultmount/provider/fairqueue"
)

func TestScheduleRunsTasksInTheOrderTheyAreDue(t *testing.T) {
	t.Parallel()
	clock := clocktesting.NewFakeClock(start)
	s := startSchedule(clock, 1, 1)
	defer s.stop(t.Context())
	ran := make(chan int)
	for _, i := range []int{3, 1, 2} {
		s.wake(newTask("a", func(context.Context) time.Time {
			ran <- i
			return time.Time{}
		}), start.Add(time.Duration(i)*time.Minute))
	}
	clock.Step(3 * time.Minute)
	for want := 1; want <= 3; want++ {
		if got := <-ran; got != want {
			t.Errorf("task %d ran in place %d", got, want)
		}
	}
}

func TestScheduleRunsATaskAgainWhenItSaysSo(t *testing.T) {
	t.Parallel()
	clock := clocktesting.NewFakeClock(start)
	s := startSchedule(clock, 2, 2)
	defer s.stop(t.Context())
	ran := make(chan time.Time)
	again := newTask("a", func(context.Context) time.Time {
		now := clock.Now()
		ran <- now
		return now.Add(time.Hour)
	})
	s.wake(again, start)
	<-ran
	for i := 1; i <= 3; i++ {
		waitFor(t, func() bool { return s.planned(again).After(clock.Now()) })
		clock.Step(time.Hour)
		if got := <-ran; !got.Equal(start.Add(time.Duration(i) * time.Hour)) {
			t.Errorf("it ran at %s", got)
		}
	}
}

func TestScheduleWakesOnlyEarlier(t *testing.T) {
	t.Parallel()
	s := startSchedule(clocktesting.NewFakeClock(start), 1, 1)
	defer s.stop(t.Context())
	sleeper := newTask("a", func(context.Context) time.Time { return time.Time{} })
	for _, step := range []struct{ at, want time.Duration }{{time.Hour, time.Hour}, {2 * time.Hour, time.Hour}, {time.Minute, time.Minute}} {
		s.wake(sleeper, start.Add(step.at))
		if got := s.planned(sleeper).Sub(start); got != step.want {
			t.Errorf("woken for %s, it is planned after %s", step.at, got)
		}
	}
}

// What wakes a task while it runs must not be lost, nor run it beside itself.
func TestScheduleWakesATaskThatRuns(t *testing.T) {
	t.Parallel()
	s := startSchedule(clock.RealClock{}, 4, 4)
	defer s.stop(t.Context())
	var inside atomic.Int32
	entered, leave := make(chan struct{}), make(chan struct{})
	busy := newTask("a", func(context.Context) time.Time {
		if inside.Add(1) > 1 {
			t.Error("it runs twice at a time")
		}
		defer inside.Add(-1)
		entered <- struct{}{}
		<-leave
		return time.Time{}
	})
	now := time.Now()
	s.wake(busy, now)
	for range 5 {
		<-entered
		s.wake(busy, now)
		leave <- struct{}{}
	}
	<-entered
	leave <- struct{}{}
}

func TestScheduleBoundsItsWorkers(t *testing.T) {
	t.Parallel()
	const workers, tasks = 3, 20
	s := startSchedule(clock.RealClock{}, workers, workers)
	defer s.stop(t.Context())
	var running, most atomic.Int32
	var all sync.WaitGroup
	all.Add(tasks)
	full := make(chan struct{})
	var once sync.Once
	for range tasks {
		s.wake(newTask("a", func(context.Context) time.Time {
			defer all.Done()
			if n := running.Add(1); n > most.Load() {
				most.Store(n)
			}
			if running.Load() == workers {
				once.Do(func() { close(full) })
			}
			<-full // all places are taken at least once
			running.Add(-1)
			return time.Time{}
		}), time.Now())
	}
	all.Wait()
	if most.Load() != workers {
		t.Errorf("%d tasks ran at a time, want %d", most.Load(), workers)
	}
}

func TestScheduleRemoveEndsTheRun(t *testing.T) {
	t.Parallel()
	s := startSchedule(clock.RealClock{}, 1, 1)
	defer s.stop(t.Context())
	entered, left := make(chan struct{}), make(chan struct{})
	endless := newTask("a", func(ctx context.Context) time.Time {
		close(entered)
		<-ctx.Done()
		close(left)
		return time.Now()
	})
	s.wake(endless, time.Now())
	<-entered
	s.remove(endless)
	<-left
	waiting := newTask("a", func(context.Context) time.Time { t.Error("a removed task runs"); return time.Time{} })
	s.wake(waiting, time.Now().Add(time.Hour))
	s.remove(waiting)
	s.wake(waiting, time.Now())
	s.drain(t.Context())
}

func TestScheduleDrainRunsWhatIsDue(t *testing.T) {
	t.Parallel()
	clock := clocktesting.NewFakeClock(start)
	s := startSchedule(clock, 2, 2)
	var mutex sync.Mutex
	var ran []int
	for i := range 5 {
		s.wake(newTask("a", func(context.Context) time.Time {
			mutex.Lock()
			defer mutex.Unlock()
			ran = append(ran, i)
			return start.Add(time.Hour)
		}), start.Add(time.Duration(i/3)*time.Hour))
	}
	s.drain(t.Context())
	slices.Sort(ran)
	if !slices.Equal(ran, []int{0, 1, 2}) {
		t.Errorf("tasks %v ran, want those that are due", ran)
	}
}

// waitFor polls for what another goroutine is about to do.
func waitFor(t *testing.T, condition func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for !condition() {
		select {
		case <-ctx.Done():
			t.Fatal("it never happened")
		case <-tick.C:
		}
	}
}

// A task that runs when the process ends has time to finish, and no other starts.
func TestScheduleStopLetsTasksFinish(t *testing.T) {
	t.Parallel()
	s := startSchedule(clock.RealClock{}, 2, 2)
	entered, leave := make(chan struct{}), make(chan struct{})
	finished := false
	s.wake(newTask("a", func(ctx context.Context) time.Time {
		close(entered)
		<-leave
		finished = ctx.Err() == nil
		return time.Now()
	}), time.Now())
	<-entered
	stopped := make(chan struct{})
	go func() {
		s.stop(t.Context())
		close(stopped)
	}()
	waitFor(t, func() bool {
		s.mutex.Lock()
		defer s.mutex.Unlock()
		return s.ending == afterRunning
	})
	s.wake(newTask("a", func(context.Context) time.Time { t.Error("a task starts after the end"); return time.Time{} }), time.Now())
	close(leave)
	<-stopped
	if !finished {
		t.Error("the task was cut short")
	}
}

// blockedTasks wakes tasks of a tenant that run until the test ends, and returns how
// many run.
func blockedTasks(t *testing.T, s *schedule, tenant string, tasks int) func() int {
	t.Helper()
	var running atomic.Int32
	for range tasks {
		s.wake(newTask(tenant, func(ctx context.Context) time.Time {
			running.Add(1)
			<-ctx.Done()
			return time.Time{}
		}), time.Now())
	}
	return func() int { return int(running.Load()) }
}

// Tasks of one tenant that do not end take its share, and those of others run.
func TestScheduleKeepsATenantToItsShare(t *testing.T) {
	t.Parallel()
	s := startSchedule(clock.RealClock{}, 5, 2)
	defer func() {
		ended, end := context.WithCancel(t.Context())
		end()
		s.stop(ended)
	}()
	first := blockedTasks(t, s, "a", 10)
	second := blockedTasks(t, s, "b", 10)
	waitFor(t, func() bool { return first() == 2 && second() == 2 })
	for range 3 {
		ran := make(chan string, 1)
		s.wake(newTask("c", func(ctx context.Context) time.Time {
			ran <- fairqueue.Tenant(ctx)
			return time.Time{}
		}), time.Now())
		if got := <-ran; got != "c" {
			t.Errorf("a task of c runs on the account of %q", got)
		}
	}
	if first() != 2 || second() != 2 {
		t.Errorf("%d and %d tasks run, and the share is 2", first(), second())
	}
	if s.lag() <= 0 {
		t.Error("what waits for its turn is not late")
	}
}

// Where each tenant has tasks that are due, they take turns.
func TestScheduleHasTenantsTakeTurns(t *testing.T) {
	t.Parallel()
	clock := clocktesting.NewFakeClock(start)
	s := startSchedule(clock, 1, 1)
	defer s.stop(t.Context())
	ran := make(chan string, 10)
	for i, tenant := range []string{"a", "a", "a", "a", "b", "b", "c"} {
		s.wake(newTask(tenant, func(context.Context) time.Time {
			ran <- tenant
			return time.Time{}
		}), start.Add(time.Minute+time.Duration(i)))
	}
	clock.Step(2 * time.Minute)
	got := ""
	for range 7 {
		got += <-ran
	}
	if got != "abcabaa" {
		t.Errorf("the order is %s", got)
	}
	waitFor(t, func() bool { s.mutex.Lock(); defer s.mutex.Unlock(); return len(s.queues) == 0 })
}
