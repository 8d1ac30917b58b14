// Package sandbox executes templates in worker processes that can do nothing else. A
// template is a program of the author of a pod, and the driver is root on the node.
//
// A worker is the driver's own program, started again. Before it reads its first byte it
// has: a user and a group of its own, no capabilities and no way to get any; its own
// namespaces for processes, network, mounts, IPC, host name and control groups; an empty
// read-only root; no environment; no open files except three pipes; a seccomp filter that
// allows to allocate memory, run threads, use open files and read the time; limits for
// memory, stack, threads, files and CPU time. Without any of these there is no worker.
//
// A worker serves the pods of one namespace, and then it ends: code that takes it over
// sees no secret of another tenant. Its replies are read as hostile data. It executes the
// templates of one volume at a time, so that the one that breaks a limit is known. That
// one gets an error, and the worker is killed.
//
// The package never asks Vault and decides nothing about volumes. It imports
// provider/fairqueue, provider/limits and provider/template.
package sandbox

import (
	"cmp"
	"errors"
	"fmt"
	"time"

	"github.com/vaultmount/vaultmount/provider/template"
)

// Command is the argument that makes the program a worker, which calls Main.
const Command = "render-worker"

// What a worker may take at most. The worker enforces its own share; the parent enforces
// what a worker that has been taken over could exceed.
const (
	// memoryLimit is where Go's collector works against the growth of a worker, in bytes.
	memoryLimit = 64 << 20
	// addressLimit is how many bytes of addresses a worker may take beyond those that it
	// starts with: Go reserves more than 1 GiB for its tables. It holds a second heap
	// arena of 64 MiB with its tables. RLIMIT_DATA does not count how Go grows its heap.
	addressLimit = 104 << 20
	// residentLimit kills a worker that found a way to more memory, in bytes.
	residentLimit = 192 << 20
	// keepLimit is the resident memory in bytes above which a worker is not kept.
	keepLimit = 48 << 20
	// stackLimit bounds recursion, in bytes.
	stackLimit = 16 << 20

	// fileLimit is for the output of one template, in bytes, with the files that it writes.
	fileLimit = 4 << 20
	// messageLimit is for a worker's words while it starts, and its standard error.
	messageLimit = 4 << 10
	// requestLimit holds the templates of a volume and all their secrets in JSON.
	requestLimit = 9 << 20
	// replyLimit holds the output of a template in JSON, where three bytes become four,
	// and its dependencies.
	replyLimit = 8 << 20
	// elementsLimit is how many elements a reply may have: they take two bytes in JSON,
	// and much more in memory.
	elementsLimit = 16 << 10
)

// DefaultCPU is a thousand times what ordinary templates need.
const DefaultCPU = 2 * time.Second

// Limits are those of one call of Render.
type Limits struct {
	// CPU is CPU time, which does not pass on a busy node. Default DefaultCPU.
	CPU time.Duration
	// Wall is for a call that does not get its CPU time. Default 90 s: the kubelet waits
	// for 120.
	Wall time.Duration
	// Output is how many bytes all files have together. Default 16 MiB.
	Output int64
	// Idle is how long a worker waits for the next call of its tenant. Default 1 minute.
	Idle time.Duration
}

func (l Limits) withDefaults() Limits {
	return Limits{cmp.Or(l.CPU, DefaultCPU), cmp.Or(l.Wall, 90*time.Second), cmp.Or(l.Output, 16<<20), cmp.Or(l.Idle, time.Minute)}
}

// Reason is why a worker was killed.
type Reason string

// The reasons, as metrics name them.
const (
	CPU    Reason = "cpu"
	Wall   Reason = "wall"
	Memory Reason = "memory"
	Output Reason = "output"
	// Crash is a template that makes the worker exit.
	Crash Reason = "crash"
	// Killed is for something outside, such as a node without memory.
	Killed Reason = "killed"
)

// Reasons returns all reasons, to count them from zero.
func Reasons() []Reason { return []Reason{CPU, Wall, Memory, Output, Crash, Killed} }

// workerError is why a worker was killed.
type workerError struct {
	reason Reason
	kind   error // of package template
	text   string
}

// Error implements error.
func (e *workerError) Error() string { return e.kind.Error() + ": " + e.text }
func (e *workerError) Unwrap() error { return e.kind }

func newWorkerError(reason Reason, format string, arguments ...any) *workerError {
	return &workerError{reason, template.ErrInvalid, fmt.Sprintf(format, arguments...)}
}

var (
	errMemory   = newWorkerError(Memory, "it needs more than %d MiB of memory", memoryLimit>>20)
	errStack    = newWorkerError(Crash, "it is nested too deeply, or calls itself without an end")
	errCrash    = newWorkerError(Crash, "it makes the renderer crash")
	errNonsense = newWorkerError(Output, "the answer of the worker cannot be read")
	errKilled   = &workerError{Killed, template.ErrUnavailable, "the render worker was killed"}
	errStopped  = errors.New("the driver is stopping")
)

// reasonOf returns the reason for an error of a call; empty if the call ended for another
// cause than its templates.
func reasonOf(err error) Reason {
	switch killed := (*workerError)(nil); {
	case errors.As(err, &killed):
		return killed.reason
	case errors.Is(err, template.ErrNotAsked):
		return Output
	}
	return ""
}
