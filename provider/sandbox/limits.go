package sandbox

import "time"

// What a worker may take at most. The worker enforces its own share; the parent
// enforces what a worker that no longer obeys could exceed.
const (
	// memoryLimit is where Go's collector works against the growth of a worker, in
	// bytes.
	memoryLimit = 64 << 20
	// addressLimit is how many bytes of addresses a worker may take beyond those
	// that it has before its first template. Go reserves more than 1 GiB for its
	// tables in any program, and how much depends on its version. The limit holds a
	// second piece of heap of 64 MiB, and what belongs to it. RLIMIT_DATA is of no
	// use: it does not count what replaces a reservation, which is how Go grows its
	// heap.
	addressLimit = 104 << 20
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
	// messageLimit is how much is read in bytes of what a worker says while it starts,
	// and of its standard error.
	messageLimit = 4 << 10

	// requestLimit holds the templates of a volume and all their secrets in JSON.
	requestLimit = 9 << 20
	// replyLimit holds the files in JSON, where three bytes become four, and the
	// queries.
	replyLimit = 8 << 20
	// elementsLimit is how many elements a reply may have: JSON's shortest are
	// two bytes and much more in memory.
	elementsLimit = 16 << 10
)

// DefaultCPU is a thousand times what ordinary templates need.
const DefaultCPU = 2 * time.Second

// Limits are those of one call of Render.
type Limits struct {
	// CPU is CPU time, which a busy node does not use up. Default DefaultCPU.
	CPU time.Duration
	// Output is how many bytes all files have together. Default 16 MiB.
	Output int64
	// Wall is for a template that does not get its CPU time. Default 90 s,
	// since the kubelet waits for 120.
	Wall time.Duration
	// Idle is after which a worker ends whose tenant does not need it. Default a
	// minute.
	Idle time.Duration
}

func (l Limits) withDefaults() Limits {
	if l.CPU == 0 {
		l.CPU = DefaultCPU
	}
	if l.Output == 0 {
		l.Output = 16 << 20
	}
	if l.Wall == 0 {
		l.Wall = 90 * time.Second
	}
	if l.Idle == 0 {
		l.Idle = time.Minute
	}
	return l
}
