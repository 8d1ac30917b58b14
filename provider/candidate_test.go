package provider

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/vault/api"

	render "github.com/vaultmount/vaultmount/provider/template"
	"github.com/vaultmount/vaultmount/provider/template/templatetest"
)

// fieldTemplate shows the second field of a value, and cannot be rendered of a value
// without one.
func fieldTemplate(path string) string {
	return `{{ with secret "` + path + `" }}{{ index (.Data.value | split ":") 1 }}{{ end }}`
}

// holdValues lets the played Vault hold values below values/. One that is empty is not
// there, and one that is "hang" is not answered.
func (b *bench) holdValues(values map[string]string) {
	b.vault.change(func() {
		b.vault.instead = func(w http.ResponseWriter, r *http.Request) bool {
			path, ok := strings.CutPrefix(r.URL.Path, "/v1/values/")
			if !ok {
				return false
			}
			b.vault.mutex.Lock()
			value := values[path]
			b.vault.counts["values/"+path]++
			b.vault.mutex.Unlock()
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
func (b *bench) requireCredentials(duration time.Duration) {
	b.t.Helper()
	b.pass(duration, func() {
		if username, _, _ := strings.Cut(b.files.content("v"), "|"); !b.vault.opens(username) {
			b.t.Fatalf("after %s the file holds dead credentials %q", b.time.Now().Sub(start), username)
		}
	})
}

func (b *bench) requireRest(want string) {
	b.t.Helper()
	if _, rest, _ := strings.Cut(b.files.content("v"), "|"); rest != want {
		b.t.Errorf("the other files hold %q, want %q", rest, want)
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
			b := newBench(t)
			phases := [3]time.Duration{20 * time.Minute, 2 * time.Minute, 20 * time.Minute}
			usual := b.patience
			if strings.Contains(name, "hangs") { // which takes the time of the machine
				usual = patience{refresh: time.Second, fetch: 400 * time.Millisecond, ask: 200 * time.Millisecond}
				phases = [3]time.Duration{DefaultInterval, 90 * time.Second, time.Minute}
			}
			b.patience, b.patient = usual, usual
			values := test.before
			change := func(to map[string]string) {
				b.vault.change(func() {
					for path, value := range to {
						values[path] = value
					}
				})
			}
			b.holdValues(values)
			b.files.refuse = refuseLarge
			b.open(b.request("v", append([]string{databaseTemplate}, test.templates...)...))
			if test.want != "" {
				b.requireRest(test.want)
			}
			change(test.after)
			b.requireCredentials(phases[0])
			if test.shown != "" {
				b.requireRest(test.shown)
			}
			if err := b.Volumes()[0].Err; !errors.Is(err, test.err) {
				t.Errorf("the volume's error is %v", err)
			}
			b.restart()
			b.requireCredentials(phases[1])
			change(test.corrected)
			b.requireCredentials(phases[2])
			if test.wantCorrected != "" {
				b.requireRest(test.wantCorrected)
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

func (o *onceRenderer) Render(ctx context.Context, templates []render.Template, known render.Values) ([]render.Result, error) {
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
	ends := map[string]func(b *bench) func(context.Context) error{
		"the worker is away": func(*bench) func(context.Context) error {
			return func(context.Context) error { return fmt.Errorf("%w: no worker", ErrRendererUnavailable) }
		},
		"the time is over": func(b *bench) func(context.Context) error {
			b.patience.refresh = 200 * time.Millisecond
			return func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }
		},
		"the token is gone": func(b *bench) func(context.Context) error {
			return func(context.Context) error {
				b.vault.change(func() { clear(b.vault.tokens) })
				return fmt.Errorf("%w: no worker", ErrRendererUnavailable)
			}
		},
		"the process is killed": func(b *bench) func(context.Context) error {
			return func(context.Context) error {
				b.saved.freeze(true)
				return fmt.Errorf("%w: killed", ErrRendererUnavailable)
			}
		},
	}
	for name, end := range ends {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBench(t)
			values := map[string]string{"a": "x:first"}
			b.holdValues(values)
			renderer := &onceRenderer{text: "bad"}
			renderer.do = end(b)
			b.Provider.renderer = renderer
			b.open(b.request("v", databaseTemplate, fieldTemplate("values/a")))
			renderer.armed.Store(true)
			b.vault.change(func() { values["a"] = "bad" })
			for renderer.armed.Load() {
				b.pass(time.Second, func() {})
			}
			if name == "the process is killed" {
				b.end()
				b.saved.freeze(false)
				b.begin()
			}
			b.settle()
			if name == "the token is gone" {
				b.pass(20*time.Second, func() {}) // its credentials are gone with it
			}
			b.requireCredentials(20 * time.Minute)
			b.requireRest("first")
			b.vault.change(func() { values["a"] = "x:second" })
			b.requireCredentials(longestBackoff * 5 / 4)
			b.requireRest("second")
		})
	}
}

// Vault makes something that does not fit, once: what it has made for others is written,
// and it is asked no more often than otherwise.
func TestMadeMisfitKeepsNoOtherSecretFromBeingWritten(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	var made, fits atomic.Int64
	fits.Store(1)
	b.vault.engine("other/creds", func(w http.ResponseWriter, _ *http.Request) {
		value := fmt.Sprint("x:", made.Add(1))
		if fits.Load() == 0 {
			value = "bad"
		}
		respond(w, map[string]any{"lease_id": value, "lease_duration": 60, "renewable": false, "data": map[string]any{"value": value}})
	})
	b.open(b.request("v", databaseTemplate, staticTemplate, fieldTemplate("other/creds")))
	b.requireRest("first|1")
	fits.Store(0)
	b.vault.change(func() { b.vault.static = "second" })
	b.requireCredentials(20 * time.Minute)
	b.requireRest("second|1")
	if got := made.Load(); got > 35 {
		t.Errorf("Vault was asked %d times in 20 minutes, for what ends after a minute", got)
	}
	if err := b.Volumes()[0].Err; !errors.Is(err, ErrData) {
		t.Errorf("the volume's error is %v", err)
	}
	fits.Store(1)
	b.requireCredentials(2 * time.Minute)
	if _, rest, _ := strings.Cut(b.files.content("v"), "|"); rest == "second|1" {
		t.Error("what fits again is not written")
	}
}

// A misfit that asks Vault to make something has it made once, and not again at each
// attempt.
func TestMisfitHasCredentialsMadeOnce(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	values := map[string]string{"a": "none:fits"}
	b.holdValues(values)
	b.vault.change(func() { b.vault.leaseTTL, b.vault.leaseMax = time.Hour, 24*time.Hour })
	b.open(b.request("v", `{{ with secret "values/a" }}{{ if .Data.value | contains "none" | not }}{{ with secret "database/creds/app" }}{{ end }}{{ end }}{{ index (.Data.value | split ":") 1 }}{{ end }}`))
	b.vault.change(func() { values["a"] = "bad" })
	b.pass(2*time.Hour, func() { b.requireContent("v", "fits") })
	b.requireCount("database/creds/app", 1)
	b.vault.change(func() { values["a"] = "x:fits again" })
	b.pass(longestBackoff*5/4, func() {})
	b.requireContent("v", "fits again")
	b.requireCount("database/creds/app", 1)
}

// With very many misfits, the files are made a bounded number of times.
func TestManyMisfitsAreBounded(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	const many = 20
	const fits = `{{ with secret "kv/static" }}{{ .Data.value | toUpper }}{{ end }}`
	values, templates := map[string]string{}, []string{fits} // which runs first at each attempt
	for i := range many {
		values[fmt.Sprint(i)] = "x:1"
		templates = append(templates, fieldTemplate(fmt.Sprint("values/", i)))
	}
	b.holdValues(values)
	attempts := 0
	b.Provider.renderer = textRenderer(func(text string) {
		if text == fits {
			attempts++
		}
	})
	b.open(b.request("v", templates...))
	v := b.find("v")
	if err := v.takeTurn(t.Context()); err != nil {
		t.Fatal(err)
	}
	defer v.endTurn()
	for query, each := range v.answers {
		if strings.HasPrefix(query.Path, "values/") {
			bad := render.Value{Secret: &api.Secret{Data: map[string]any{"value": "bad"}}}
			each.says(reply{Value: bad, at: start}, v.refresh, start, v.provider.chance)
		}
	}
	a := v.newAccess(false, DefaultInterval)
	if err := a.logIn(t.Context()); err != nil {
		t.Fatal(err)
	}
	attempts = 0
	if err := v.rewrite(t.Context(), a); err != nil {
		t.Error(err)
	}
	if attempts != maxTries+2 {
		t.Errorf("the files were made %d times for one refresh, want %d", attempts, maxTries+2)
	}
}

// textRenderer hears of the text of each template that runs.
type textRenderer func(text string)

// Render implements Renderer.
func (r textRenderer) Render(ctx context.Context, templates []render.Template, known render.Values) ([]render.Result, error) {
	for _, t := range templates {
		r(t.Text)
	}
	return templatetest.Renderer{}.Render(ctx, templates, known)
}
