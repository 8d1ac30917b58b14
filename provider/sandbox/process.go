package sandbox

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// The users and groups of workers start at firstID. Each worker has its own, so that none
// can signal another. No container has an id of this half: runAsUser ends below.
const (
	firstID = 1 << 31
	idCount = 1 << 30
)

// startTimeout is for a node that is so busy that a program needs long to start.
const startTimeout = 60 * time.Second

// worker is a process from the outside. All that comes out of it is hostile.
type worker struct {
	command  *exec.Cmd
	requests io.Writer
	replies  io.Reader
	statm    *os.File // of /proc; open, since it is read at each call
	// stderr may hold secrets, and is never shown. Complete when exited is closed, which
	// is when nothing is left of the process.
	stderr stderrStart
	exited chan struct{}

	// The pool's.
	tenant string
	expiry *time.Timer // of an idle worker
}

// stderrStart keeps the start of what is written to it.
type stderrStart []byte

// Write implements io.Writer and never fails.
func (s *stderrStart) Write(p []byte) (int, error) {
	*s = append(*s, p[:min(len(p), messageLimit-len(*s))]...)
	return len(p), nil
}

// startWorker returns when the worker is confined and waits for a request.
func startWorker(ctx context.Context, program string, arguments []string, id uint32) (*worker, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, startTimeout, errors.New("it takes too long"))
	defer cancel()
	w := &worker{exited: make(chan struct{})}
	started := make(chan error, 1)
	onThread(func() {
		defer close(w.exited)
		w.run(ctx, program, arguments, id, started)
	})
	err := <-started
	if err == nil {
		// The kernel chooses the worker when the driver's container is out of memory.
		if err = os.WriteFile("/proc/"+strconv.Itoa(w.command.Process.Pid)+"/oom_score_adj", []byte("1000"), 0); err != nil {
			w.kill()
		}
	}
	if err != nil {
		<-w.exited
		return nil, fmt.Errorf("start a render worker: %w", err)
	}
	return w, nil
}

// onThread runs f in a goroutine on a thread of its own, which ends with f: what f does to
// the thread changes nothing else. It does not wait for f.
func onThread(f func()) {
	go func() {
		runtime.LockOSThread() // without unlocking, the thread ends with the goroutine
		if unix.Gettid() != os.Getpid() {
			f()
			return
		}
		// The main thread never ends, and /proc/self shows it. Occupy it until f has another.
		started := make(chan struct{})
		onThread(func() {
			close(started)
			f()
		})
		<-started
		runtime.UnlockOSThread()
	}()
}

// run lives as long as the process, on its own thread: the kernel kills the process with
// the thread that started it (PR_SET_PDEATHSIG).
func (w *worker) run(ctx context.Context, program string, arguments []string, id uint32, started chan<- error) {
	if err := w.launch(program, arguments, id); err != nil {
		started <- err
		return
	}
	err := w.handshake(ctx)
	if err != nil {
		w.kill()
	}
	started <- err
	_ = w.command.Wait() // its state says how it ended
	_ = w.statm.Close()  // nil after a failed handshake
}

// launch prepares the calling thread and starts the process from it.
func (w *worker) launch(program string, arguments []string, id uint32) error {
	if err := unix.CloseRange(3, math.MaxInt32, unix.CLOSE_RANGE_CLOEXEC); err != nil {
		return fmt.Errorf("keep files from the worker: %w", err)
	}
	if err := enterRoot(program); err != nil {
		return err
	}
	if err := dropPrivileges(); err != nil {
		return err
	}
	w.command = &exec.Cmd{
		Path:   programName,
		Args:   append([]string{programName}, arguments...),
		Dir:    "/",
		Env:    []string{}, // nil would be the driver's
		Stderr: &w.stderr,
		SysProcAttr: &syscall.SysProcAttr{
			Credential: &syscall.Credential{Uid: id, Gid: id},
			Cloneflags: unix.CLONE_NEWPID | unix.CLONE_NEWNET | unix.CLONE_NEWIPC | unix.CLONE_NEWUTS | unix.CLONE_NEWCGROUP,
			Setsid:     true,
			Pdeathsig:  unix.SIGKILL,
		},
	}
	var err error
	if w.requests, err = w.command.StdinPipe(); err != nil {
		return err
	}
	replies, err := w.command.StdoutPipe()
	if err != nil {
		return err
	}
	w.replies = bufio.NewReader(replies)
	err = w.command.Start()
	switch {
	case errors.Is(err, unix.ENOENT):
		return fmt.Errorf("%w: the program must be linked statically (CGO_ENABLED=0)", err)
	case errors.Is(err, unix.EACCES):
		return fmt.Errorf("%w: the program must be executable by all users (chmod 0755)", err)
	}
	return err
}

// handshake bounds the memory of the worker when its runtime has reserved its tables, waits
// until it is confined, and takes the program out of its sight.
func (w *worker) handshake(ctx context.Context) error {
	stop := context.AfterFunc(ctx, w.kill)
	err := w.awaitEmptyFrame()
	if err == nil {
		err = w.sendAddressLimit()
	}
	if err == nil {
		err = w.awaitEmptyFrame()
	}
	if !stop() {
		return context.Cause(ctx)
	}
	if err != nil {
		return err
	}
	return emptyRoot()
}

// awaitEmptyFrame returns the text of any other frame as an error of the worker.
func (w *worker) awaitEmptyFrame() error {
	payload, err := readFrame(w.replies, messageLimit)
	if err != nil {
		return fmt.Errorf("wait for it to be confined: %w", err)
	}
	if len(payload) > 0 {
		return errors.New(string(payload))
	}
	return nil
}

func (w *worker) sendAddressLimit() error {
	var size int64
	var err error
	var group sync.WaitGroup
	group.Go(func() { // this thread has no /proc
		if w.statm, err = os.Open("/proc/" + strconv.Itoa(w.command.Process.Pid) + "/statm"); err == nil {
			size, _, err = w.memory()
		}
	})
	group.Wait()
	if err != nil {
		return fmt.Errorf("read its size: %w", err)
	}
	return writeFrame(w.requests, strconv.AppendInt(nil, size+addressLimit, 10), messageLimit)
}

func (w *worker) kill() { _ = w.command.Process.Kill() } // it may have exited

// end kills the process and waits until nothing is left of it.
func (w *worker) end() {
	w.kill()
	<-w.exited
}
