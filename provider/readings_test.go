package provider

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/vault/api"

	"github.com/vaultmount/vaultmount/provider/limits"
	render "github.com/vaultmount/vaultmount/provider/template"
)

func TestLookTakes(t *testing.T) {
	t.Parallel()
	const age = 5 * time.Minute
	tests := map[string]struct {
		at, own time.Duration // before now, when the go began; own 0 is none
		want    bool
	}{
		"asked in this go":             {0, time.Minute, true},
		"asked by itself in this go":   {0, -time.Second, true},
		"newer and fresh":              {time.Minute, 2 * time.Minute, true},
		"fresh, and there is none":     {time.Minute, 0, true},
		"the one at hand":              {time.Minute, time.Minute, false},
		"older than the one at hand":   {2 * time.Minute, time.Minute, false},
		"newer than a very old one":    {age, time.Hour, false},
		"old, and there is none":       {age, 0, false},
		"almost old, and there is one": {age - 1, age, true},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l := look{now: func() time.Time { return start }, fresh: start, age: age}
			if test.own != 0 {
				l.own = start.Add(-test.own)
			}
			if got := l.takes(start.Add(-test.at)); got != test.want {
				t.Errorf("got %t", got)
			}
		})
	}
}

// Those who wait while one asks are told what that one is told, be it an answer or
// why there is none; those who come later ask again if there is none.
func TestThoseWhoWaitAreToldTheSame(t *testing.T) {
	t.Parallel()
	answer := render.Value{Secret: &api.Secret{Data: map[string]any{"value": "x"}}}
	leased := render.Value{Secret: &api.Secret{LeaseID: "lease"}}
	for name, test := range map[string]struct {
		said render.Value
		err  error
		want error
		asks int // with one that comes later
	}{
		"an answer": {said: answer, asks: 1},
		"a failure": {err: ErrNotFound, want: ErrNotFound, asks: 2},
		"a lease":   {said: leased, want: errUnshared, asks: 1},
		"no KV":     {err: errUnshared, want: errUnshared, asks: 2},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				asks := 0
				ask := func() (render.Value, error) {
					asks++
					time.Sleep(time.Second) // Vault's time
					return test.said, test.err
				}
				r := newReadings().of(queryOf("kv/app"))
				check := func() {
					got, err := r.ask(look{ctx: t.Context(), now: time.Now, age: time.Minute}, ask)
					if !errors.Is(err, test.want) || test.want == nil && got.Secret != answer.Secret {
						t.Errorf("got %+v, %v", got, err)
					}
				}
				for range replicas {
					go check()
				}
				time.Sleep(time.Minute / 2)
				synctest.Wait()
				check()
				if asks != test.asks {
					t.Errorf("Vault was asked %d times", asks)
				}
			})
		})
	}
}

// One that gives up while it asks says nothing about Vault: the next asks.
func TestOneThatGivesUpSpoilsNothing(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := newReadings().of(queryOf("kv/app"))
		ctx, cancel := context.WithCancel(t.Context())
		go func() {
			_, err := r.ask(look{ctx: ctx, now: time.Now}, func() (render.Value, error) {
				<-ctx.Done()
				return render.Value{}, ctx.Err()
			})
			if !errors.Is(err, context.Canceled) {
				t.Errorf("got %v", err)
			}
		}()
		synctest.Wait()
		go func() {
			impatient, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			if _, err := r.ask(look{ctx: impatient, now: time.Now}, nil); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("one that waited a second: %v", err)
			}
		}()
		asked := false
		go func() {
			_, err := r.ask(look{ctx: t.Context(), now: time.Now}, func() (render.Value, error) { asked = true; return render.Value{}, nil })
			if err != nil || !asked {
				t.Errorf("the next: %v, asked %t", err, asked)
			}
		}()
		time.Sleep(2 * time.Second)
		cancel()
		synctest.Wait()
		if !asked {
			t.Error("nobody asked")
		}
	})
}

// A refresh may fail without a question to Vault, as its login is held back. A pod that
// starts and has waited for it asks by itself, and the refreshes that wait do not.
func TestPodThatStartsAsksAfterARefreshFailed(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r, asks := newReadings().of(queryOf("kv/app")), 0
		failure := errors.New("the last login failed")
		ask := func(urgent bool) error {
			_, err := r.ask(look{ctx: t.Context(), now: time.Now, age: time.Minute, urgent: urgent}, func() (render.Value, error) {
				asks++
				time.Sleep(time.Second)
				if urgent {
					return render.Value{Names: []string{"a"}}, nil
				}
				return render.Value{}, failure
			})
			return err
		}
		go func() {
			if err := ask(false); !errors.Is(err, failure) {
				t.Errorf("the first refresh: %v", err)
			}
		}()
		synctest.Wait()
		for range 5 {
			go func() {
				if err := ask(true); err != nil {
					t.Errorf("a pod that starts: %v", err)
				}
			}()
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		if asks != 2 {
			t.Errorf("Vault was asked %d times, want once by the refresh and once by a pod", asks)
		}
	})
}

// What pods share is bounded as the responses of one volume, and goes when nobody asks
// for it any more.
func TestReadingsAreFewAndNotOld(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const interval = 5 * time.Minute
		r := newReadings()
		ask := func(path string, bytes int) {
			l := look{ctx: t.Context(), now: time.Now, age: interval, interval: interval}
			_, err := r.ask(queryOf(path), l, func() (render.Value, error) {
				return render.Value{Names: []string{strings.Repeat("x", bytes)}}, nil
			})
			if err != nil {
				t.Fatal(err)
			}
		}
		for i := range 3 * limits.Dependencies.Max() {
			ask(fmt.Sprint("kv/", i), 1)
		}
		if got := len(r.known); got > limits.Dependencies.Max() {
			t.Errorf("%d answers are kept", got)
		}
		for i := range 100 {
			ask(fmt.Sprint("kv/big/", i), 1<<20)
			if r.kept.Bytes > limits.VolumeResponseBytes.Max() {
				t.Fatalf("%d bytes are kept", r.kept.Bytes)
			}
		}
		time.Sleep(interval)
		ask("kv/last", 1)
		if got := len(r.known); got != 1 || r.kept != sizeOf(render.Value{Names: []string{"x"}}) {
			t.Errorf("an interval later, %d answers of %+v are kept", got, r.kept)
		}
	})
}
