package worker

import "time"

// What a worker may take at most. The worker enforces its own share; the parent
// enforces what a worker that no longer obeys could exceed.
const (
	// memoryLimit is where Go's collector works against the growth of a worker, in
	// bytes.
	memoryLimit = 64 << 20
	// addressLimit is for all addresses of a worker: those that Go 1.26 reserves
	// for its tables in any program (1256 MiB), a second piece of heap of 64 MiB, and
	// what belongs to it. RLIMIT_DATA is of no use: it does not count what replaces a
	// reservation, which is how Go grows its heap.
	addressLimit = 1360 << 20
	// residentLimit ends a worker that found a way to more memory. It is looked at
	// from time to time.
	residentLimit = 192 << 20
	// keepLimit is the resident memory in bytes with which a worker is not kept
	// for the next template.
	keepLimit = 48 << 20
	// stackLimit bounds recursion, in bytes.
	stackLimit = 16 << 20

	// outputLimit is for all files that one template makes, in bytes.
	outputLimit = 4 << 20
	// queriesLimit is how many secrets a template may ask for, and pathLimit how
	// long the path of each may be in bytes: it stands in errors.
	queriesLimit = 1000
	pathLimit    = 2 << 10
	// messageLimit is the length in bytes of an error.
	messageLimit = 4 << 10

	// requestLimit holds a template and all its secrets in JSON.
	requestLimit = 8 << 20
	// replyLimit holds the files in JSON, where three bytes become four, and the
	// queries.
	replyLimit = 8 << 20
	// elementsLimit is how many elements a reply may have: JSON's shortest are
	// two bytes and much more in memory.
	elementsLimit = 16 << 10
)

// DefaultCPU is a thousand times what ordinary templates need.
const DefaultCPU = 2 * time.Second

// quickWall is how long a template may keep a place that others wait for.
const quickWall = 10 * time.Second

// Limits are the limits of time.
type Limits struct {
	// CPU is processor time, which a busy node does not use up. Default DefaultCPU.
	CPU time.Duration
	// Wall is for a template that does not get its processor time. Default 90 s,
	// since the kubelet waits for 120.
	Wall time.Duration
	// Slow is the processor time after which a template is stopped, and run anew
	// where slow ones wait for each other. Default 50 ms.
	Slow time.Duration
	// Idle is after which a worker ends that is not the last. Default a minute.
	Idle time.Duration
}

func (l Limits) withDefaults() Limits {
	if l.CPU == 0 {
		l.CPU = DefaultCPU
	}
	if l.Wall == 0 {
		l.Wall = 90 * time.Second
	}
	if l.Slow == 0 {
		l.Slow = 50 * time.Millisecond
	}
	if l.Idle == 0 {
		l.Idle = time.Minute
	}
	return l
}
