package provider

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/vaultmount/vaultmount/provider/recovery"
	render "github.com/vaultmount/vaultmount/provider/template"
)

// A panic in the refresh of one volume is that refresh's error: the process lives, the
// other volume has good credentials all along, and the first recovers.
func TestPanicIsTheErrorOfItsRefresh(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.open(b.request("v", databaseTemplate))
	b.open(b.request("w", databaseTemplate))
	b.files.panicOn("v")
	b.pass(5*time.Minute, func() { b.requireOpens("w") })
	for _, status := range b.Volumes() {
		if status.VolumeID == "v" && !errors.As(status.Err, new(*recovery.PanicError)) {
			t.Errorf("the status is %v, want a PanicError", status.Err)
		}
	}
	if got := b.logs.String(); strings.Count(got, "stack=") != 1 || !strings.Contains(got, "Replace") {
		t.Errorf("the log does not hold the stack once:\n%s", got)
	}
	b.files.panicOn("")
	b.pass(2*time.Minute, func() { b.requireOpens("w") })
	b.requireOpens("v")
}

func (f *writtenFiles) panicOn(volumeID string) {
	f.mutex.Lock()
	defer f.mutex.Unlock()
	f.panicsOn = volumeID
}

// panicking panics as soon as a template has its secrets.
type panicking struct{ Renderer }

func (p panicking) Render(ctx context.Context, templates []render.Template, answers render.Values) ([]render.Result, error) {
	if len(answers) > 0 {
		panic("canary")
	}
	return p.Renderer.Render(ctx, templates, answers)
}

// After a panic in Open nothing is left, as after any error.
func TestPanicIsTheErrorOfItsOpen(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	healthy := b.renderer
	b.renderer = panicking{healthy}
	request := b.request("v", `{{ with secret "kv/static" }}{{ .Data.value | toUpper }}{{ end }}`)
	if _, err := b.Open(t.Context(), request); !errors.As(err, new(*recovery.PanicError)) {
		t.Errorf("got %v, want a PanicError", err)
	}
	if left := b.Volumes(); len(left) > 0 {
		t.Errorf("%d volumes are left", len(left))
	}
	b.vault.awaitNoToken(t)
	b.renderer = healthy
	b.open(request)
	b.requireContent("v", "FIRST")
}

// A task that panics does not end the process, and runs again.
func TestGuardedTaskRunsAgainAfterAPanic(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	runs := make(chan time.Time, 2)
	task := newTask("a", guarded(b.logger, b.time, func(context.Context) time.Time {
		runs <- b.time.Now()
		if len(runs) == 1 {
			panic("canary")
		}
		return time.Time{}
	}))
	b.schedule.wake(task, start)
	waitFor(t, func() bool { return !b.schedule.planned(task).IsZero() && b.schedule.planned(task).After(start) })
	b.time.Step(panicBackoff)
	waitFor(t, func() bool { return len(runs) == 2 })
	<-runs
	if got := <-runs; !got.Equal(start.Add(panicBackoff)) {
		t.Errorf("the task ran again at %s", got)
	}
}

// Secrets are read in goroutines, where nothing above recovers from a panic.
func TestPanicOfAReadIsItsError(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	v := newVolume(b.Provider, b.request("v", staticTemplate))
	query := render.Dependency{Verb: render.Read, Path: "kv/static"}
	withoutClient := v.newAccess(true, MinInterval)
	defer withoutClient.quota.Close()
	failed := v.gather(t.Context(), withoutClient, []render.Dependency{query}, render.Values{})
	if err := failed[query]; !errors.As(err, new(*recovery.PanicError)) {
		t.Errorf("got %v, want a PanicError", err)
	}
}
