package sandbox

import (
	"errors"

	"github.com/vaultmount/vaultmount/provider/template"
)

// Reason is why a worker was ended before its time.
type Reason string

// The reasons, as metrics name them.
const (
	CPU    Reason = "cpu"
	Wall   Reason = "wall"
	Memory Reason = "memory"
	Output Reason = "output"
	// Crash is a template that makes the renderer end by itself.
	Crash Reason = "crash"
	// Killed is for something outside, such as a node without memory.
	Killed Reason = "killed"
)

// Reasons are all there are, for whoever counts them from zero.
func Reasons() []Reason { return []Reason{CPU, Wall, Memory, Output, Crash, Killed} }

// How the errors of a breach begin.
var (
	errCPU  = errors.New("rendering takes more")
	errWall = errors.New("rendering has not ended")
)

// reasonOf returns the reason for an error of exchange; empty where a worker was
// ended for another purpose.
func reasonOf(err error) Reason {
	switch {
	case errors.Is(err, errCPU):
		return CPU
	case errors.Is(err, errWall):
		return Wall
	case errors.Is(err, errMemory):
		return Memory
	case errors.Is(err, errTooLong), errors.Is(err, errNonsense), errors.Is(err, template.ErrNotAsked):
		return Output
	case errors.Is(err, errCrash), errors.Is(err, errStack):
		return Crash
	case errors.Is(err, errKilled):
		return Killed
	}
	return ""
}
