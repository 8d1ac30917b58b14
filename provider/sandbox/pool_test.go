package sandbox

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime/pprof"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/vaultmount/vaultmount/provider/fairqueue"
	"github.com/vaultmount/vaultmount/provider/limits"
	"github.com/vaultmount/vaultmount/provider/template"
)

func file(text string) template.Template { return template.Template{Name: "file", Text: text} }

const endless = `{{ define "x" }}{{ range $i := "aaaaaaaaaaaaaaaaaaaa" | split "" }}{{ template "y" }}{{ end }}{{ end }}{{ define "y" }}{{ range $i := "aaaaaaaaaaaaaaaaaaaa" | split "" }}{{ template "z" }}{{ end }}{{ end }}{{ define "z" }}{{ range $i := "aaaaaaaaaaaaaaaaaaaa" | split "" }}{{ template "w" }}{{ end }}{{ end }}{{ define "w" }}{{ range $i := "aaaaaaaaaaaaaaaaaaaa" | split "" }}{{ template "v" }}{{ end }}{{ end }}{{ define "v" }}{{ range $i := "aaaaaaaaaaaaaaaaaaaa" | split "" }}{{ template "u" }}{{ end }}{{ end }}{{ define "u" }}{{ range $i := "aaaaaaaaaaaaaaaaaaaa" | split "" }}{{ template "t" }}{{ end }}{{ end }}{{ define "t" }}{{ range $i := "aaaaaaaaaaaaaaaaaaaa" | split "" }}{{ end }}{{ end }}{{ template "x" }}`

// Each limit has an error that says what was too much, and the next template
// is rendered.
func TestLimits(t *testing.T) {
	t.Parallel()
	time300 := generous()
	time300.CPU = 300 * time.Millisecond
	pool := startPool(t, time300)
	tests := map[string]struct{ text, want string }{
		"CPU time":              {endless, "invalid template: rendering takes more than 300ms of CPU time"},
		"memory at once":        {`{{ sprig_repeat 200000000 "x" }}`, "invalid template: it needs more than 64 MiB of memory"},
		"more than all":         {`{{ sprig_repeat 4000000000000 "x" }}`, "invalid template: it needs more than 64 MiB of memory"},
		"recursion":             {`{{ define "x" }}{{ template "x" }}{{ end }}{{ template "x" }}`, "invalid template: it is nested too deeply, or calls itself without an end"},
		"output":                {`{{ sprig_repeat 4194305 "x" }}`, "invalid template: it writes more than 4 MiB"},
		"output and characters": {`{{ sprig_repeat 2097153 "é" }}`, "invalid template: it writes more than 4 MiB"},
		"files":                 {`{{ sprig_repeat 2097153 "x" | writeToFile "/vault/secrets/a" "" "" "0644" }}{{ sprig_repeat 2097153 "x" }}`, "invalid template: it writes more than 4 MiB"},
		"queries":               {`{{ range $i, $c := sprig_repeat 1001 "x" | split "" }}{{ secret (printf "a/%d" $i) }}{{ end }}`, "invalid template: line 1, column 58, at <secret (printf \"a/%d\" $i)>: secret: 1001 dependencies exceed the limit of 1000 (dependencies); ask for fewer or shorter paths"},
		"path":                  {`{{ secret (sprig_repeat 3000 "x") }}`, "invalid template: line 1, column 4, at <secret (sprig_repeat 3000 \"x\")>: secret: 3000 bytes exceed the limit of 2048 (vault-path-bytes); ask for fewer or shorter paths"},
		"arguments":             {`{{ secret "x" (sprig_repeat 4000000 "x" | printf "k=%s") }}`, "invalid template: what it writes and asks for is more than 8 MiB"},
		"text":                  {strings.Repeat("x", limits.TemplateBytes.Max()+1), "invalid template: 262145 bytes exceed the limit of 262144 (template-bytes); split it into several files"},
		"text and secrets":      {strings.Repeat("x", requestLimit), "invalid template: the templates and their secrets take more than 9 MiB"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			_, err := render(pool, t.Context(), file(test.text), nil)
			if !errors.Is(err, template.ErrInvalid) || err.Error() != test.want {
				t.Fatalf("got  %v\nwant %s", err, test.want)
			}
			requireWorking(t, pool)
		})
	}
}

// What stays below the limits is rendered.
func TestWithinLimits(t *testing.T) {
	t.Parallel()
	pool := startPool(t, generous())
	for name, text := range map[string]string{
		"output":  `{{ sprig_repeat 4194304 "x" }}`,
		"bytes":   `{{ "/////w==" | base64Decode | sprig_repeat 1000000 }}`,
		"memory":  `{{ sprig_repeat 30000000 "x" | len }}`,
		"text":    strings.Repeat("x", limits.TemplateBytes.Max()),
		"queries": `{{ range $i, $c := sprig_repeat 999 "x" | split "" }}{{ secret (printf "a/%d" $i) }}{{ end }}`,
	} {
		want, err := template.Execute(file(text), nil)
		if err != nil {
			t.Fatal(err)
		}
		got, err := render(pool, t.Context(), file(text), nil)
		if err != nil || string(got.Output) != string(want.Output) || len(got.Missing) != len(want.Missing) {
			t.Errorf("%s: got %d bytes, %d queries, %v", name, len(got.Output), len(got.Missing), err)
		}
	}
}

// A template that took much memory does not leave a large worker behind.
func TestLargeWorkerIsReplaced(t *testing.T) {
	t.Parallel()
	pool := startPool(t, generous())
	first := useFirst(t, pool)
	if _, err := render(pool, t.Context(), file(`{{ sprig_repeat 40000000 "x" | len }}`), nil); err != nil {
		t.Fatal(err)
	}
	select {
	case <-first.exited:
	default:
		t.Errorf("a worker of %d bytes is kept", first.resident())
	}
	requireWorking(t, pool)
}

// A tenant with slow templates keeps no other waiting, however many they are and
// however often they come.
func TestSlowTenantWaitsForItself(t *testing.T) {
	t.Parallel()
	slow := generous()
	slow.CPU = time.Hour
	pool := startPool(t, slow)
	ctx, cancel := context.WithCancel(t.Context())
	var group sync.WaitGroup
	for i := range 6 {
		group.Go(func() {
			for ctx.Err() == nil {
				// The text tells nobody that it is slow.
				text := fmt.Sprintf("{{/* %d */}}%s", i, endless)
				if _, err := render(pool, fairqueue.WithTenant(ctx, "slow"), file(text), nil); !errors.Is(err, context.Canceled) {
					t.Errorf("got %v", err)
				}
			}
		})
	}
	waitUntil(t, func() bool { return pool.limiter.Waiting() == 4 })
	for range 10 {
		requireWorkingFor(t, pool, "quick")
		requireWorkingFor(t, pool, "other")
	}
	cancel()
	group.Wait()
	requireWorking(t, pool)
}

// A worker that has served a tenant serves no other, and there are never more than a
// few, whatever tenants come and go and whenever idle workers end.
func TestWorkerServesOneTenant(t *testing.T) {
	t.Parallel()
	short := generous()
	short.Idle = time.Millisecond
	pool := startPool(t, short)
	const tenants = 6
	var group sync.WaitGroup
	for i := range 3 * tenants {
		tenant := fmt.Sprintf("tenant-%d", i%tenants)
		group.Go(func() {
			for range 5 {
				got, err := attackAs(t, pool, tenant, servePrefix+tenant)
				if err != nil || got != "serves "+tenant {
					t.Errorf("%s: got %q, %v", tenant, got, err)
				}
				if n := pool.kept(); n > maxBusy {
					t.Errorf("%d workers run or are kept", n)
				}
			}
		})
	}
	group.Wait()
}

// Each tenant finds its own worker again, while there are few of them.
func TestWorkerIsKeptForItsTenant(t *testing.T) {
	t.Parallel()
	pool := startPool(t, generous())
	requireWorkingFor(t, pool, "a")
	first := pool.idle[0]
	requireWorkingFor(t, pool, "b")
	requireWorkingFor(t, pool, "a")
	pool.mutex.Lock()
	defer pool.mutex.Unlock()
	if last := pool.idle[len(pool.idle)-1]; last != first || last.tenant != "a" {
		t.Errorf("%q is served by another worker", "a")
	}
	if len(pool.idle) != 2 {
		t.Errorf("%d workers are kept for 2 tenants", len(pool.idle))
	}
}

// When a worker is killed, what it ran is run by another.
func TestKilledWorker(t *testing.T) {
	t.Parallel()
	pool := startPool(t, generous())
	first := useFirst(t, pool)
	var group sync.WaitGroup
	group.Go(func() {
		if got, err := attack(t, pool, "hang in the first worker"); err != nil || got != "done by another" {
			t.Errorf("got %q, %v", got, err)
		}
	})
	waitUntil(t, pool.isBusy)
	requireWorking(t, pool) // in the second
	first.kill()
	group.Wait()
}

func TestKilledIdleWorker(t *testing.T) {
	t.Parallel()
	pool := startPool(t, generous())
	first := useFirst(t, pool)
	first.end()
	requireWorking(t, pool)
	pool.mutex.Lock()
	defer pool.mutex.Unlock()
	if slices.Contains(pool.idle, first) || pool.all[first] {
		t.Error("a dead worker is kept")
	}
}

// A worker that is killed again and again is not the template's fault.
func TestKilledWorkers(t *testing.T) {
	t.Parallel()
	pool := startPool(t, generous())
	ended := make(chan error, 1)
	go func() {
		_, err := attack(t, pool, "hang")
		ended <- err
	}()
	var err error
	for err == nil {
		select {
		case err = <-ended:
		default:
			pool.mutex.Lock()
			for worker := range pool.all {
				worker.kill()
			}
			pool.mutex.Unlock()
		}
	}
	if !errors.Is(err, template.ErrUnavailable) || !strings.Contains(err.Error(), "4 render workers were killed") {
		t.Errorf("got %v", err)
	}
}

func TestWallClock(t *testing.T) {
	t.Parallel()
	limits := generous()
	limits.Wall = 50 * time.Millisecond
	pool := startPool(t, limits)
	if _, err := attack(t, pool, "hang"); !errors.Is(err, template.ErrUnavailable) || !strings.Contains(err.Error(), "rendering has not ended in 50ms") {
		t.Errorf("got %v", err)
	}
}

func TestContext(t *testing.T) {
	t.Parallel()
	pool := startPool(t, generous())
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		_, err := render(pool, ctx, template.Template{Name: attackPrefix + "hang", Text: "x"}, nil)
		ended <- err
	}()
	waitUntil(t, pool.isBusy)
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	if _, err := render(pool, ctx, file("x"), nil); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	requireWorking(t, pool)
}

func TestIdleWorkersEnd(t *testing.T) {
	t.Parallel()
	short := generous()
	short.Idle = time.Millisecond
	pool := startPool(t, short)
	requireWorking(t, pool)
	waitUntil(t, func() bool {
		pool.mutex.Lock()
		defer pool.mutex.Unlock()
		return len(pool.idle) == 0 && len(pool.all) == 1 && pool.spare != nil
	})
}

func TestManyAtOnce(t *testing.T) {
	t.Parallel()
	pool := startPool(t, generous())
	var group sync.WaitGroup
	for range 50 {
		group.Go(func() {
			for range 10 {
				requireWorking(t, pool)
			}
		})
	}
	group.Wait()
	if n := pool.kept(); n > (maxBusy+1)/2 {
		t.Errorf("one tenant has %d workers", n)
	}
}

func TestStartFails(t *testing.T) {
	t.Parallel()
	script := filepath.Join(t.TempDir(), "script")
	if err := os.WriteFile(script, []byte("#!/bin/sh\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct{ program, want string }{
		"missing":       {"/nowhere", "start a render worker: open the program /nowhere: no such file or directory"},
		"dynamic":       {"/bin/sh", "no such file or directory: the program must be linked statically (CGO_ENABLED=0)"},
		"private":       {script, "permission denied: the program must be executable by all users (chmod 0755)"},
		"not a program": {"/etc/passwd", "start a render worker: fork/exec /render-worker: "},
	} {
		pool := New(newLogger(t), Config{Program: test.program})
		if err := pool.Start(t.Context()); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: got %v", name, err)
		}
		_, err := render(pool, t.Context(), file("x"), nil)
		if !errors.Is(err, template.ErrUnavailable) {
			t.Errorf("%s: got %v", name, err)
		}
		if err := pool.Stop(t.Context()); err != nil {
			t.Error(err)
		}
	}
}

func TestStopped(t *testing.T) {
	t.Parallel()
	pool := startPool(t, generous())
	var group sync.WaitGroup
	group.Go(func() {
		if _, err := attack(t, pool, "hang"); !errors.Is(err, template.ErrUnavailable) {
			t.Errorf("got %v", err)
		}
	})
	waitUntil(t, pool.isBusy)
	if err := pool.Stop(t.Context()); err != nil {
		t.Error(err)
	}
	group.Wait()
	if _, err := render(pool, t.Context(), file("x"), nil); !errors.Is(err, template.ErrUnavailable) || !strings.Contains(err.Error(), "the driver is stopping") {
		t.Errorf("got %v", err)
	}
	if len(pool.all) != 0 {
		t.Error("a worker is left")
	}
}

// useFirst returns the worker that serves the tenant "" from now on.
func useFirst(t testing.TB, pool *Pool) *worker {
	t.Helper()
	requireWorking(t, pool)
	return pool.idle[0]
}

// isBusy tells whether a worker runs a template.
func (p *Pool) isBusy() bool {
	p.mutex.Lock()
	defer p.mutex.Unlock()
	return p.busy > 0
}

func (p *Pool) hasSpare() bool {
	p.mutex.Lock()
	defer p.mutex.Unlock()
	return p.spare != nil
}

// kept counts those that run or are kept, the spare one apart.
func (p *Pool) kept() int {
	p.mutex.Lock()
	defer p.mutex.Unlock()
	return p.busy + len(p.idle)
}

func waitUntil(t *testing.T, condition func() bool) {
	t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for !condition() {
		select {
		case <-tick.C:
		case <-t.Context().Done():
			t.Fatal("it never happened")
		}
	}
}

func files(texts ...string) []template.Template {
	var all []template.Template
	for i, text := range texts {
		all = append(all, template.Template{Name: fmt.Sprint("file-", i), Text: text})
	}
	return all
}

// The templates of a volume are rendered in one call, in order.
func TestFilesOfAVolume(t *testing.T) {
	t.Parallel()
	pool := startPool(t, generous())
	templates := files("one", `{{ secret "kv/a" }}`, `{{ env "NAMESPACE" }}`, typical)
	templates[2].Pod.Environment = map[string]string{"NAMESPACE": "shop"}
	results, err := pool.Render(t.Context(), templates, typicalValues())
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, result := range results {
		got = append(got, fmt.Sprintf("%s%v", result.Output, result.Missing))
	}
	if want := []string{"one[]", "[{read kv/a }]", "shop[]", "postgresql://u:p@postgres:5432/wizard[]"}; fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("got  %q\nwant %q", got, want)
	}
	if results, err := pool.Render(t.Context(), nil, nil); err != nil || len(results) > 0 {
		t.Errorf("no files: got %v, %v", results, err)
	}
}

// A limit of the volume, or a fault of one file, is an error of that file.
func TestFirstFileThatFailsIsNamed(t *testing.T) {
	t.Parallel()
	short := generous()
	short.CPU, short.Output = 300*time.Millisecond, 5<<20
	pool := startPool(t, short)
	large := `{{ sprig_repeat 2000000 "x" }}`
	asks := func(name string) string {
		return fmt.Sprintf(`{{ range $i := loop %d }}{{ secret (printf "%s/%%d" $i) }}{{ end }}`, limits.Dependencies.Max()/2, name)
	}
	for name, test := range map[string]struct {
		texts []string
		want  string
	}{
		"fault":        {[]string{"x", "{{ nope }}", "{{ nope }}"}, `render file "file-1": invalid template: line 1, column 4: function "nope" is not defined`},
		"CPU time":     {[]string{"x", "y", endless}, `render file "file-2": invalid template: rendering takes more than 300ms of CPU time`},
		"output":       {[]string{large, large, large}, `render file "file-2": invalid template: it and the files before it have more than 5242880 bytes`},
		"dependencies": {[]string{asks("a"), asks("b"), asks("a"), `{{ secret "c" }}`}, `render file "file-3": invalid template: the templates of the volume together: 1001 dependencies exceed the limit of 1000 (dependencies); split the volume`},
	} {
		t.Run(name, func(t *testing.T) {
			results, err := pool.Render(t.Context(), files(test.texts...), nil)
			if !errors.Is(err, template.ErrInvalid) || err.Error() != test.want || results != nil {
				t.Errorf("got  %v\nwant %s", err, test.want)
			}
			requireWorking(t, pool)
		})
	}
}

// The parser takes much memory and stack for few bytes of text: that is the worker's own.
func TestTemplatesThatAreHardToParse(t *testing.T) {
	t.Parallel()
	pool := startPool(t, generous())
	for name, unit := range map[string][3]string{
		"blocks":       {"", "{{ if 1 }}{{ end }}", ""},
		"open blocks":  {"", "{{ if 1 }}", ""},
		"definitions":  {"", `{{ define "x" }}{{ end }}`, ""},
		"actions":      {"", "{{1}}", ""},
		"numbers":      {"{{ print ", "1 ", "}}"},
		"long fields":  {"{{ print ", ".a", "}}"},
		"pipes":        {"{{ print ", "|print", "}}"},
		"parentheses":  {"{{ print ", "(1) ", "}}"},
		"open":         {"{{ print ", "(", "}}"},
		"string field": {`{{ print "x"`, `.x`, ` }}`},
		"else if":      {"{{if 1}}", "{{else if 1}}", "{{end}}"},
	} {
		t.Run(name, func(t *testing.T) {
			count := (limits.TemplateBytes.Max() - len(unit[0]) - len(unit[2])) / len(unit[1])
			_, err := render(pool, t.Context(), file(unit[0]+strings.Repeat(unit[1], count)+unit[2]), nil)
			if err != nil && !errors.Is(err, template.ErrInvalid) {
				t.Errorf("got %v", err)
			}
			t.Log(err)
			requireWorking(t, pool)
		})
	}
}

// Not parallel: it counts what the whole process has.
func TestNothingLeaks(t *testing.T) {
	// The runtime opens files for its poller, and those stay.
	warm := startPool(t, generous())
	requireWorking(t, warm)
	if err := warm.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	waitUntil(t, func() bool { return ownGoroutines(t) == 0 })
	files := openFiles(t)

	limits := generous()
	limits.CPU = 50 * time.Millisecond
	pool := startPool(t, limits)
	for _, name := range []string{"promise 4 GiB", "exit", "crash", "many elements", "half a message"} {
		if _, err := attack(t, pool, name); err == nil {
			t.Errorf("%s went well", name)
		}
	}
	for _, text := range []string{endless, `{{ sprig_repeat 200000000 "x" }}`, `{{ if }}`} {
		if _, err := render(pool, t.Context(), file(text), nil); err == nil {
			t.Errorf("%s went well", text)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if _, err := render(pool, ctx, file(endless), nil); err == nil {
		t.Error("an endless template ended")
	}
	requireWorking(t, pool)
	waitUntil(t, func() bool { return pool.hasSpare() && len(children(t)) == 2 })
	if got := openFiles(t) - files; got != 2*5 {
		t.Errorf("%d files are open for two workers, want three pipes, statm and what Go holds to wait for it for each", got)
	}
	if err := pool.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	waitUntil(t, func() bool { return ownGoroutines(t) == 0 })
	if got := children(t); len(got) != 0 {
		t.Errorf("processes %v are left", got)
	}
	if got := openFiles(t); got != files {
		t.Errorf("%d files are open, and %d were before", got, files)
	}
}

func openFiles(t *testing.T) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}

// children are the processes of this one, zombies included.
func children(t *testing.T) []string {
	t.Helper()
	entries, err := os.ReadDir("/proc")
	if err != nil {
		t.Fatal(err)
	}
	parent := "PPid:\t" + strconv.Itoa(os.Getpid()) + "\n"
	var found []string
	for _, entry := range entries {
		if status, err := os.ReadFile("/proc/" + entry.Name() + "/status"); err == nil && strings.Contains(string(status), parent) {
			found = append(found, entry.Name())
		}
	}
	return found
}

// ownGoroutines counts the goroutines of workers.
func ownGoroutines(t *testing.T) int {
	t.Helper()
	var stacks strings.Builder
	if err := pprof.Lookup("goroutine").WriteTo(&stacks, 2); err != nil {
		t.Fatal(err)
	}
	count := 0
	for stack := range strings.SplitSeq(stacks.String(), "\n\n") {
		if strings.Contains(stack, "sandbox.onThread") || strings.Contains(stack, "sandbox.(*p") {
			count++
		}
	}
	return count
}
