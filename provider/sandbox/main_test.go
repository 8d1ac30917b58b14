package sandbox

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"k8s.io/klog/v2"
	"k8s.io/klog/v2/ktesting"

	"github.com/vaultmount/vaultmount/provider/fairqueue"
	"github.com/vaultmount/vaultmount/provider/template"
)

// TestMain is also a worker: under the confinement of every other it runs the
// attacks of these tests besides templates.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == Command {
		isFirst = os.Getuid() == firstID
		steps := confinement()
		if len(os.Args) > 2 && os.Args[2] == unfiltered {
			steps = steps[:len(steps)-1]
		}
		if err := serve(steps, attackOrExecute); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	directory, err := os.MkdirTemp("", "worker")
	if err != nil {
		panic(err)
	}
	buildDirectory = directory
	status := m.Run()
	if err := os.RemoveAll(directory); err != nil {
		panic(err)
	}
	os.Exit(status)
}

// isFirst is the first worker of a pool.
var isFirst bool

// unfiltered makes a worker without a filter of system calls.
const unfiltered = "unfiltered"

var buildDirectory string

// buildProgram builds these tests as a static program, whatever they run as: with
// the race detector they are not static.
var buildProgram = sync.OnceValues(func() (string, error) {
	program := filepath.Join(buildDirectory, "worker.test")
	command := exec.Command("go", "test", "-c", "-trimpath", "-buildvcs=false", "-ldflags=-s -w", "-o", program, ".")
	command.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=", "GOWORK=off")
	output, err := command.CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("build a worker: %w\n%s", err, output)
	}
	return program, nil
})

// newPool returns a pool that is empty again after the test.
func newPool(t testing.TB, limits Limits) *Pool {
	t.Helper()
	program, err := buildProgram()
	if err != nil {
		t.Fatal(err)
	}
	pool := New(newLogger(t), Config{Program: program, Limits: limits})
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		if err := pool.Stop(ctx); err != nil {
			t.Error(err)
		}
	})
	return pool
}

func newLogger(t testing.TB) klog.Logger { return ktesting.NewLogger(t, ktesting.NewConfig()) }

func startPool(t testing.TB, limits Limits) *Pool {
	t.Helper()
	pool := newPool(t, limits)
	if err := pool.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	return pool
}

// generous leaves the tests that are not about time alone on a busy machine.
func generous() Limits {
	return Limits{CPU: time.Minute, Wall: 5 * time.Minute, Idle: time.Hour}
}

// render renders one template and returns its error without the name of the file.
func render(pool *Pool, ctx context.Context, t template.Template, values template.Values) (template.Result, error) {
	results, err := pool.Render(ctx, []template.Template{t}, values)
	if err == nil {
		return results[0], nil
	}
	if file := (*template.FileError)(nil); errors.As(err, &file) {
		err = file.Err
	}
	return template.Result{}, err
}

// encode is the request for one template.
func encode(t testing.TB, asked template.Template) []byte {
	t.Helper()
	payload, err := json.Marshal(newRequest([]template.Template{asked}, nil))
	if err != nil {
		t.Fatal(err)
	}
	return payload
}

// receive returns a receiver for one template, and what reads its output.
func receive(asked template.Template) (*receiver, func() string) {
	r := newReceiver([]template.Template{asked}, 1<<20)
	return r, func() string {
		if len(r.results) == 0 {
			return ""
		}
		return string(r.results[0].Output)
	}
}

const attackPrefix = "attack "

// attack runs an attack in a worker, and returns what it says about itself.
func attack(t testing.TB, pool *Pool, name string) (string, error) {
	t.Helper()
	return attackAs(t, pool, "", name)
}

func attackAs(t testing.TB, pool *Pool, tenant, name string) (string, error) {
	t.Helper()
	result, err := render(pool, fairqueue.WithTenant(t.Context(), tenant), template.Template{Name: attackPrefix + name, Text: "x"}, nil)
	return string(result.Output), err
}

// servePrefix is for a worker that tells which tenant it was the first to serve.
const servePrefix = "serve "

// fillName is for a worker that takes all the memory that it can have.
const fillName = "fill memory"

// served is that tenant, in a worker.
var served string

func attackOrExecute(t template.Template, values template.Values) reply {
	name, ok := strings.CutPrefix(t.Name, attackPrefix)
	if !ok {
		return execute(t, values)
	}
	if tenant, ok := strings.CutPrefix(name, servePrefix); ok {
		if served == "" {
			served = tenant
		}
		return reply{Result: template.Result{Output: []byte("serves " + served)}}
	}
	if name == fillName {
		return reply{Result: template.Result{Output: []byte("refused: " + fillMemory().Error())}}
	}
	if answer, ok := misbehaviours()[name]; ok {
		return answer()
	}
	if err := attacks()[name](); err != nil {
		return reply{Result: template.Result{Output: []byte("refused: " + err.Error())}}
	}
	return reply{Result: template.Result{Output: []byte("it worked")}}
}
