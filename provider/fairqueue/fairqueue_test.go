package fairqueue

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
)

// acquired asks in a goroutine of its own and tells when it was let through.
func acquired(t *testing.T, l *Limiter, ctx context.Context, tenant string, class Class, n int64) *atomic.Bool {
	var done atomic.Bool
	go func() {
		if err := l.Acquire(ctx, tenant, class, n); err == nil {
			done.Store(true)
		}
	}()
	synctest.Wait()
	return &done
}

func TestTenantHoldsAtMostItsShare(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := New(4)
		for range 2 {
			if err := l.Acquire(t.Context(), "greedy", Foreground, 1); err != nil {
				t.Fatal(err)
			}
		}
		third := acquired(t, l, t.Context(), "greedy", Foreground, 1)
		if third.Load() {
			t.Error("a tenant has three of four places")
		}
		if other := acquired(t, l, t.Context(), "victim", Background, 1); !other.Load() {
			t.Error("a free place waits behind a tenant that has its share")
		}
		l.Release("greedy", 1)
		synctest.Wait()
		if !third.Load() {
			t.Error("the released place was not handed on")
		}
	})
}

func TestTenantsTakeTurns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := NewWithShare(1, 1)
		if err := l.Acquire(t.Context(), "greedy", Foreground, 1); err != nil {
			t.Fatal(err)
		}
		greedy := make([]*atomic.Bool, 100)
		for i := range greedy {
			greedy[i] = acquired(t, l, t.Context(), "greedy", Foreground, 1)
		}
		victim := acquired(t, l, t.Context(), "victim", Foreground, 1)
		l.Release("greedy", 1)
		synctest.Wait()
		if !greedy[0].Load() || victim.Load() {
			t.Fatal("the first request in the queue was not the first to pass")
		}
		l.Release("greedy", 1)
		synctest.Wait()
		if !victim.Load() {
			t.Error("99 requests of one tenant pass before the first of another")
		}
		l.Release("victim", 1)
		for range greedy[1:] {
			synctest.Wait()
			l.Release("greedy", 1)
		}
	})
}

func TestForegroundPassesFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := NewWithShare(1, 1)
		if err := l.Acquire(t.Context(), "a", Background, 1); err != nil {
			t.Fatal(err)
		}
		refresh := acquired(t, l, t.Context(), "a", Background, 1)
		publish := acquired(t, l, t.Context(), "a", Foreground, 1)
		l.Release("a", 1)
		synctest.Wait()
		if refresh.Load() || !publish.Load() {
			t.Error("a refresh passed before a pod that waits to start")
		}
		l.Release("a", 1)
		synctest.Wait()
	})
}

// Two tenants that ask all the time in the foreground must not stop refreshes.
func TestBackgroundIsNotStarved(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := NewWithShare(1, 1)
		if err := l.Acquire(t.Context(), "a", Foreground, 1); err != nil {
			t.Fatal(err)
		}
		var order []string
		ask := func(tenant string, class Class) {
			go func() {
				if l.Acquire(t.Context(), tenant, class, 1) == nil {
					order = append(order, tenant)
					l.Release(tenant, 1)
				}
			}()
			synctest.Wait()
		}
		for range foregroundRun {
			ask("a", Foreground)
			ask("b", Foreground)
		}
		ask("refresh", Background)
		l.Release("a", 1)
		synctest.Wait()
		if got := slices.Index(order, "refresh"); got != foregroundRun {
			t.Errorf("the refresh passed after %d foreground requests, want %d", got, foregroundRun)
		}
	})
}

func TestWaitingRequestsAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := NewWithShare(1, 1)
		if err := l.Acquire(t.Context(), "greedy", Foreground, 1); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		for range maxWaiting {
			go func() { _ = l.Acquire(ctx, "greedy", Foreground, 1) }()
		}
		synctest.Wait()
		if err := l.Acquire(t.Context(), "greedy", Foreground, 1); !errors.Is(err, ErrQueueFull) {
			t.Errorf("with %d waiting: got %v, want %v", l.Waiting(), err, ErrQueueFull)
		}
		victim := acquired(t, l, t.Context(), "victim", Foreground, 1)
		cancel()
		l.Release("greedy", 1)
		synctest.Wait()
		if !victim.Load() {
			t.Error("the full queue of one tenant stops another")
		}
		l.Release("victim", 1)
	})
}

func TestLargeRequestIsNotStarved(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := NewWithShare(4, 4)
		if err := l.Acquire(t.Context(), "small", Foreground, 3); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		large := acquired(t, l, ctx, "large", Foreground, 4)
		small := acquired(t, l, t.Context(), "small", Foreground, 1)
		if small.Load() {
			t.Error("a small request passed a large one that was there before")
		}
		cancel()
		synctest.Wait()
		if large.Load() || !small.Load() {
			t.Error("a large request that gave up still holds others back")
		}
	})
}

func TestAcquireFails(t *testing.T) {
	l := New(4)
	if err := l.Acquire(t.Context(), "a", Foreground, 3); !errors.Is(err, ErrTooLarge) {
		t.Errorf("three of four places: got %v, want %v", err, ErrTooLarge)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := l.Acquire(ctx, "a", Foreground, 1); !errors.Is(err, context.Canceled) {
		t.Errorf("ended context: got %v", err)
	}
	if l.Waiting() != 0 || len(l.held) != 0 {
		t.Errorf("failed requests left %d waiting and %v held", l.Waiting(), l.held)
	}
}

func TestNothingIsLostUnderLoad(t *testing.T) {
	const size = 8
	l := New(size)
	var held atomic.Int64
	var group sync.WaitGroup
	for i := range 400 {
		tenant, n := fmt.Sprint(i%5), int64(1+i%3)
		group.Go(func() {
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			if rand.IntN(4) == 0 {
				go cancel()
			}
			if l.Acquire(ctx, tenant, Class(i%2), n) != nil {
				return
			}
			if now := held.Add(n); now > size {
				t.Errorf("%d of %d units are held", now, size)
			}
			held.Add(-n)
			l.Release(tenant, n)
		})
	}
	group.Wait()
	if l.free != size || len(l.held) != 0 || l.Waiting() != 0 {
		t.Errorf("%d of %d units are free, %v held, %d waiting", l.free, size, l.held, l.Waiting())
	}
}

func TestTenantTravelsInContext(t *testing.T) {
	if got := Tenant(context.Background()); got != "" {
		t.Errorf("tenant of an empty context: %q", got)
	}
	ctx := WithTenant(context.Background(), "payments")
	if got := Tenant(WithTenant(ctx, "billing")); got != "billing" {
		t.Errorf("the nearest tenant is not the one that counts: %q", got)
	}
	if got := Tenant(ctx); got != "payments" {
		t.Errorf("tenant: %q", got)
	}
}
