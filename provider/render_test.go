package provider

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/vaultmount/vaultmount/provider/fairqueue"
	"github.com/vaultmount/vaultmount/provider/template"
	"github.com/vaultmount/vaultmount/provider/template/templatetest"
)

// fieldTemplate shows the second field of a value, and cannot be rendered of a value
// without one.
func fieldTemplate(path string) string {
	return `{{ with secret "` + path + `" }}{{ index (.Data.value | split ":") 1 }}{{ end }}`
}

// holdValues lets the fake Vault hold values below values/. One that is empty is not
// there, and one that is "hang" is not answered.
func (h *harness) holdValues(values map[string]string) {
	h.vault.change(func() {
		h.vault.override = func(w http.ResponseWriter, r *http.Request) bool {
			path, ok := strings.CutPrefix(r.URL.Path, "/v1/values/")
			if !ok {
				return false
			}
			h.vault.mutex.Lock()
			value := values[path]
			h.vault.counts["values/"+path]++
			h.vault.mutex.Unlock()
			switch value {
			case "":
				respondErrors(w, http.StatusNotFound)
			case "hang":
				<-r.Context().Done()
			default:
				respond(w, map[string]any{"data": map[string]any{"value": value}})
			}
			return true
		}
	})
}

// requireCredentials fails the test if the first file ever holds dead credentials.
func (h *harness) requireCredentials(duration time.Duration) {
	h.t.Helper()
	h.advance(duration, func() {
		if username, _, _ := strings.Cut(h.content("v"), "|"); !h.vault.opens(username) {
			h.t.Fatalf("after %s the file holds dead credentials %q", h.time.Now().Sub(start), username)
		}
	})
}

func (h *harness) requireRest(want string) {
	h.t.Helper()
	if _, rest, _ := strings.Cut(h.content("v"), "|"); rest != want {
		h.t.Errorf("the other files hold %q, want %q", rest, want)
	}
}

// One secret that does not fit its template keeps no other from being written.
func TestMisfitKeepsNoOtherSecretFromBeingWritten(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		templates     []string
		before, after map[string]string
		want, shown   string // at first, and after the change
		err           error
		corrected     map[string]string
		wantCorrected string
	}{
		"one": {
			templates: []string{fieldTemplate("values/a")},
			before:    map[string]string{"a": "x:1"}, want: "1",
			after: map[string]string{"a": "bad"}, shown: "1", err: ErrData,
			corrected: map[string]string{"a": "x:2"}, wantCorrected: "2",
		},
		"one in the file of the credentials": {
			templates: []string{`{{ with secret "database/creds/app" }}{{ .Data.username }}{{ end }}` + fieldTemplate("values/a")},
			before:    map[string]string{"a": "x:1"}, want: "",
			after: map[string]string{"a": "bad"}, shown: "", err: ErrData,
			corrected: map[string]string{"a": "x:2"}, wantCorrected: "",
		},
		"two beside two that fit": {
			templates: []string{fieldTemplate("values/a"), fieldTemplate("values/b"), fieldTemplate("values/c") + fieldTemplate("values/d")},
			before:    map[string]string{"a": "x:1", "b": "x:1", "c": "x:1", "d": "x:1"}, want: "1|1|11",
			after: map[string]string{"a": "bad", "b": "x:2", "c": "bad", "d": "x:2"}, shown: "1|2|12", err: ErrData,
			corrected: map[string]string{"a": "x:3", "c": "x:3"}, wantCorrected: "3|2|32",
		},
		"two that fit together alone": {
			templates: []string{`{{ with secret "values/a" }}{{ $a := .Data.value }}{{ with secret "values/b" }}{{ index (.Data.value | split ":") ($a | parseInt) }}{{ end }}{{ end }}`},
			before:    map[string]string{"a": "0", "b": "x"}, want: "x",
			after: map[string]string{"a": "2"}, shown: "x", err: ErrData,
			corrected: map[string]string{"b": "x:y:z"}, wantCorrected: "z",
		},
		"a path to what is not there": {
			templates: []string{`{{ with secret "values/a" }}{{ with secret .Data.value }}{{ .Data.value }}{{ end }}{{ end }}`},
			before:    map[string]string{"a": "values/b", "b": "first"}, want: "first",
			after: map[string]string{"a": "values/c"}, shown: "first", err: ErrNotFound,
			corrected: map[string]string{"c": "second"}, wantCorrected: "second",
		},
		"a path to what hangs": {
			templates: []string{`{{ with secret "values/a" }}{{ with secret .Data.value }}{{ .Data.value }}{{ end }}{{ end }}`},
			before:    map[string]string{"a": "values/b", "b": "first", "c": "hang"}, want: "first",
			after: map[string]string{"a": "values/c"}, shown: "first", err: ErrUnavailable,
			corrected: map[string]string{"c": "second"}, wantCorrected: "second",
		},
		"the mode of another file": {
			templates: []string{`{{ with secret "values/a" }}{{ .Data.value }}{{ "x" | writeToFile "b" "" "" .Data.value }}{{ end }}`},
			before:    map[string]string{"a": "0600"}, want: "0600",
			after: map[string]string{"a": "bad"}, shown: "0600", err: ErrTemplate,
			corrected: map[string]string{"a": "0640"}, wantCorrected: "0640",
		},
		"more than the volume holds, beside one that fits": {
			templates: []string{fieldTemplate("values/a"), fieldTemplate("values/b")},
			before:    map[string]string{"a": "x:1", "b": "x:1"}, want: "1|1",
			after: map[string]string{"a": "x:large", "b": "x:2"}, shown: "1|2", err: errTooLarge,
			corrected: map[string]string{"a": "x:3"}, wantCorrected: "3|2",
		},
		"one that is removed": {
			templates: []string{fieldTemplate("values/a"), fieldTemplate("values/b")},
			before:    map[string]string{"a": "x:1", "b": "x:1"}, want: "1|1",
			after: map[string]string{"a": "", "b": "x:2"}, shown: "1|2", err: ErrNotFound,
			corrected: map[string]string{"a": "x:3"}, wantCorrected: "3|2",
		},
		"one that does not fit and is removed then": {
			templates: []string{fieldTemplate("values/a")},
			before:    map[string]string{"a": "x:1"}, want: "1",
			after: map[string]string{"a": "bad"}, shown: "1", err: ErrData,
			corrected: map[string]string{"a": ""}, wantCorrected: "1",
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHarness(t)
			phases := [3]time.Duration{20 * time.Minute, 2 * time.Minute, 20 * time.Minute}
			usual := h.Manager.timeouts
			if strings.Contains(name, "hangs") { // which takes the time of the machine
				usual = timeouts{refresh: 5 * time.Second, fetch: 2 * time.Second, request: time.Second}
				phases = [3]time.Duration{DefaultInterval, 90 * time.Second, time.Minute}
			}
			h.Manager.timeouts, h.timeouts = usual, usual
			values := test.before
			change := func(to map[string]string) {
				h.vault.change(func() {
					for path, value := range to {
						values[path] = value
					}
				})
			}
			h.holdValues(values)
			h.mount("v").refuse = refuseLarge
			h.publish(h.request("v", append([]string{databaseTemplate}, test.templates...)...))
			if test.want != "" {
				h.requireRest(test.want)
			}
			change(test.after)
			h.requireCredentials(phases[0])
			if test.shown != "" {
				h.requireRest(test.shown)
			}
			if err := h.statuses()[0].Err; !errors.Is(err, test.err) {
				t.Errorf("the volume's error is %v", err)
			}
			h.restart()
			h.requireCredentials(phases[1])
			change(test.corrected)
			h.requireCredentials(phases[2])
			if test.wantCorrected != "" {
				h.requireRest(test.wantCorrected)
			}
		})
	}
}

var errTooLarge = errors.New("the files do not fit into the volume")

func refuseLarge(contents []RenderedFile) error {
	for _, each := range contents {
		if strings.Contains(string(each.Content), "large") {
			return errTooLarge
		}
	}
	return nil
}

// onceRenderer does something once, instead of a run with answers of which one holds a
// text.
type onceRenderer struct {
	templatetest.Renderer

	armed atomic.Bool
	text  string
	do    func(ctx context.Context) error
}

func (o *onceRenderer) Render(ctx context.Context, templates []template.Template, known template.Values) ([]template.Result, error) {
	for _, each := range known {
		if each.Secret != nil && each.Secret.Data["value"] == o.text && o.armed.CompareAndSwap(true, false) {
			return nil, o.do(ctx)
		}
	}
	return o.Renderer.Render(ctx, templates, known)
}

// Whichever way the first attempt to render a misfit ends, and whatever the next process
// finds, credentials are written as they rotate.
func TestMisfitOutlivesAPassThatEndsOtherwise(t *testing.T) {
	t.Parallel()
	ends := map[string]func(h *harness) func(context.Context) error{
		"the worker is away": func(*harness) func(context.Context) error {
			return func(context.Context) error { return fmt.Errorf("%w: no worker", ErrRendererUnavailable) }
		},
		"the time is over": func(h *harness) func(context.Context) error {
			h.Manager.timeouts.refresh = time.Second
			return func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }
		},
		"the token is gone": func(h *harness) func(context.Context) error {
			return func(context.Context) error {
				h.vault.change(func() { clear(h.vault.tokens) })
				return fmt.Errorf("%w: no worker", ErrRendererUnavailable)
			}
		},
		"the process is killed": func(h *harness) func(context.Context) error {
			return func(context.Context) error {
				h.store.freeze(true)
				return fmt.Errorf("%w: killed", ErrRendererUnavailable)
			}
		},
	}
	for name, end := range ends {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHarness(t)
			values := map[string]string{"a": "x:first"}
			h.holdValues(values)
			renderer := &onceRenderer{text: "bad"}
			renderer.do = end(h)
			h.Manager.renderer = renderer
			h.publish(h.request("v", databaseTemplate, fieldTemplate("values/a")))
			renderer.armed.Store(true)
			h.vault.change(func() { values["a"] = "bad" })
			for renderer.armed.Load() {
				h.advance(time.Second, func() {})
			}
			if name == "the process is killed" {
				h.end()
				h.store.freeze(false)
				h.begin()
			}
			h.waitIdle()
			if name == "the token is gone" {
				h.advance(20*time.Second, func() {}) // its credentials are gone with it
			}
			h.requireCredentials(20 * time.Minute)
			h.requireRest("first")
			h.vault.change(func() { values["a"] = "x:second" })
			h.requireCredentials(maxBackoff * 5 / 4)
			h.requireRest("second")
		})
	}
}

// Vault makes something that does not fit, once: what it has made for others is written,
// and it is asked no more often than otherwise.
func TestMadeMisfitKeepsNoOtherSecretFromBeingWritten(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	var made, fits atomic.Int64
	fits.Store(1)
	h.vault.engine("other/creds", func(w http.ResponseWriter, _ *http.Request) {
		value := fmt.Sprint("x:", made.Add(1))
		if fits.Load() == 0 {
			value = "bad"
		}
		respond(w, map[string]any{"lease_id": value, "lease_duration": 60, "renewable": false, "data": map[string]any{"value": value}})
	})
	h.publish(h.request("v", databaseTemplate, staticTemplate, fieldTemplate("other/creds")))
	h.requireRest("first|1")
	fits.Store(0)
	h.vault.change(func() { h.vault.static = "second" })
	h.requireCredentials(20 * time.Minute)
	h.requireRest("second|1")
	if got := made.Load(); got > 35 {
		t.Errorf("Vault was asked %d times in 20 minutes, for what ends after a minute", got)
	}
	if err := h.statuses()[0].Err; !errors.Is(err, ErrData) {
		t.Errorf("the volume's error is %v", err)
	}
	fits.Store(1)
	h.requireCredentials(2 * time.Minute)
	if _, rest, _ := strings.Cut(h.content("v"), "|"); rest == "second|1" {
		t.Error("what fits again is not written")
	}
}

// A misfit that asks Vault to make something has it made once, and not again at each
// attempt.
func TestMisfitHasCredentialsMadeOnce(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	values := map[string]string{"a": "none:fits"}
	h.holdValues(values)
	h.vault.change(func() { h.vault.leaseTTL, h.vault.leaseMax = time.Hour, 24*time.Hour })
	h.publish(h.request("v", `{{ with secret "values/a" }}{{ if .Data.value | contains "none" | not }}{{ with secret "database/creds/app" }}{{ end }}{{ end }}{{ index (.Data.value | split ":") 1 }}{{ end }}`))
	h.vault.change(func() { values["a"] = "bad" })
	h.advance(2*time.Hour, func() { h.requireContent("v", "fits") })
	h.requireCount("database/creds/app", 1)
	h.vault.change(func() { values["a"] = "x:fits again" })
	h.advance(maxBackoff*5/4, func() {})
	h.requireContent("v", "fits again")
	h.requireCount("database/creds/app", 1)
}

// With very many misfits, the files are made a bounded number of times.
func TestManyMisfitsAreBounded(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	const many = 20
	const fits = `{{ with secret "kv/static" }}{{ .Data.value | toUpper }}{{ end }}`
	values, templates := map[string]string{}, []string{fits} // which runs first at each attempt
	for i := range many {
		values[fmt.Sprint(i)] = "x:1"
		templates = append(templates, fieldTemplate(fmt.Sprint("values/", i)))
	}
	h.holdValues(values)
	attempts := 0
	h.Manager.renderer = textRenderer(func(text string) {
		if text == fits {
			attempts++
		}
	})
	h.publish(h.request("v", templates...))
	h.vault.change(func() {
		for path := range values {
			values[path] = "bad"
		}
	})
	attempts = 0
	h.refresh("v")
	h.waitIdle()
	if attempts != maxAttempts+2 {
		t.Errorf("the files were made %d times for one refresh, want %d", attempts, maxAttempts+2)
	}
}

// textRenderer hears of the text of each template that runs.
type textRenderer func(text string)

// Render implements Renderer.
func (r textRenderer) Render(ctx context.Context, templates []template.Template, known template.Values) ([]template.Result, error) {
	for _, t := range templates {
		r(t.Text)
	}
	return templatetest.Renderer{}.Render(ctx, templates, known)
}

// countedRenderer counts the round trips.
type countedRenderer struct{ runs atomic.Int32 }

func (r *countedRenderer) Render(ctx context.Context, templates []template.Template, answers template.Values) ([]template.Result, error) {
	r.runs.Add(1)
	return templatetest.Renderer{}.Render(ctx, templates, answers)
}

// A pod that starts waits for no more round trips to the renderer than its secrets need.
func TestOpenRendersNoMoreThanNeedBe(t *testing.T) {
	for name, c := range map[string]struct {
		template string
		runs     int32
	}{
		"one secret":                     {staticTemplate, 2},
		"no secret":                      {`x`, 1},
		"one that no secret can correct": {`{{ with secret "kv/static" }}{{ key "x" }}{{ end }}`, 1},
		"one secret after another one":   {`{{ with secret "kv/static" }}{{ with secret "database/static-creds/app" }}{{ .Data.username }}{{ end }}{{ end }}`, 3},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHarness(t)
			counted := &countedRenderer{}
			h.Manager.renderer = counted
			if _, err := h.tryPublish(t.Context(), h.request("v", c.template, c.template)); err != nil && !errors.Is(err, ErrTemplate) {
				t.Fatal(err)
			}
			if got := counted.runs.Load(); got != c.runs {
				t.Errorf("it ran %d times, want %d", got, c.runs)
			}
		})
	}
}

// tenantRenderer keeps whose templates ran.
type tenantRenderer struct {
	mutex   sync.Mutex
	tenants []string
}

func (r *tenantRenderer) Render(ctx context.Context, templates []template.Template, answers template.Values) ([]template.Result, error) {
	r.mutex.Lock()
	r.tenants = append(r.tenants, fairqueue.Tenant(ctx))
	r.mutex.Unlock()
	return templatetest.Renderer{}.Render(ctx, templates, answers)
}

// A process runs templates of one namespace alone, so each run has to name it: when a
// pod starts, and at each refresh.
func TestRendererIsToldTheNamespace(t *testing.T) {
	h := newHarness(t)
	renderer := &tenantRenderer{}
	h.Manager.renderer = renderer
	h.publish(h.request("v", `{{ $s := secret "database/creds/app" }}{{ $s.Data.username }}`))
	atStart := len(renderer.tenants)
	h.advance(time.Hour, func() {})
	renderer.mutex.Lock()
	defer renderer.mutex.Unlock()
	if atStart == 0 || len(renderer.tenants) == atStart {
		t.Fatalf("%d runs at the start, %d in all", atStart, len(renderer.tenants))
	}
	for _, tenant := range renderer.tenants {
		if tenant != "default" {
			t.Errorf("a template ran for the tenant %q", tenant)
		}
	}
}

// A call that has ended takes no CPU time for the templates that are left.
func TestTemplatesAreNotRunForACallThatHasEnded(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	counting := &countedRenderer{}
	h.Manager.renderer = counting
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := h.tryPublish(ctx, h.request("v", staticTemplate, "{{ 1 }}")); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	if got := counting.runs.Load(); got != 0 {
		t.Errorf("%d templates were run", got)
	}
}
