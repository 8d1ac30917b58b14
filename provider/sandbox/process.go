package sandbox

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"strconv"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// The users and groups of workers start at firstID. Each worker has its own, so that
// none can signal another. No container gets an id of this half: runAsUser ends
// below.
const (
	firstID = 1 << 31
	idCount = 1 << 30
)

// startTimeout is for a node that is so busy that a program needs long to start.
const startTimeout = 60 * time.Second

// process is one worker from the outside. All that comes out of it is suspect.
type process struct {
	id       uint32 // user and group
	pid      int
	process  *os.Process
	requests *os.File
	replies  io.Reader
	words    *words

	// exited is closed when nothing is left of the process; state is set then.
	exited chan struct{}
	state  *os.ProcessState

	// Its owner alone uses these, see Pool.
	tenant  string
	isSpare bool // it has served nobody
	expiry  *time.Timer
}

// startProcess returns when the worker is confined and waits for a request.
func startProcess(ctx context.Context, program string, arguments []string, id uint32) (*process, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, startTimeout, errors.New("it takes too long"))
	defer cancel()
	p := &process{id: id, exited: make(chan struct{}), words: &words{}}
	started := make(chan error, 1)
	onThread(func() {
		defer close(p.exited)
		p.live(ctx, program, arguments, started)
	})
	if err := <-started; err != nil {
		<-p.exited
		return nil, fmt.Errorf("start a render worker: %w", err)
	}
	if err := preferForOOM(p.pid); err != nil {
		p.end()
		return nil, fmt.Errorf("start a render worker: %w", err)
	}
	return p, nil
}

// live runs the process on its own thread, since the kernel kills it with the
// thread that started it (PR_SET_PDEATHSIG).
func (p *process) live(ctx context.Context, program string, arguments []string, started chan<- error) {
	var files pipes
	err := files.open()
	if err == nil {
		err = p.launch(program, arguments, &files)
	}
	files.closeChild()
	defer files.closeParent()
	if err != nil {
		started <- err
		return
	}
	p.requests, p.replies = files.requests, files.replies
	var group sync.WaitGroup
	group.Go(func() { _, _ = io.Copy(p.words, files.errors) }) // until the process ends
	if err = p.greet(ctx); err != nil {
		p.kill()
	}
	started <- err
	p.state, _ = p.process.Wait() // a child of ours, waited for once
	group.Wait()
}

// launch prepares the calling thread and makes a process of it.
func (p *process) launch(program string, arguments []string, files *pipes) error {
	if err := unix.CloseRange(3, math.MaxInt32, unix.CLOSE_RANGE_CLOEXEC); err != nil {
		return fmt.Errorf("keep files from the worker: %w", err)
	}
	if err := enterRoot(program); err != nil {
		return err
	}
	if err := dropPrivileges(); err != nil {
		return err
	}
	child, err := os.StartProcess(programName, append([]string{programName}, arguments...), &os.ProcAttr{
		Dir:   "/",
		Env:   []string{},
		Files: files.child[:],
		Sys: &syscall.SysProcAttr{
			Credential: &syscall.Credential{Uid: p.id, Gid: p.id},
			Cloneflags: unix.CLONE_NEWPID | unix.CLONE_NEWNET | unix.CLONE_NEWIPC | unix.CLONE_NEWUTS | unix.CLONE_NEWCGROUP,
			Setsid:     true,
			Pdeathsig:  unix.SIGKILL,
		},
	})
	switch {
	case errors.Is(err, unix.ENOENT):
		return fmt.Errorf("%w: the program must be linked statically (CGO_ENABLED=0)", err)
	case errors.Is(err, unix.EACCES):
		return fmt.Errorf("%w: the program must be executable by all users (chmod 0755)", err)
	case err != nil:
		return err
	}
	p.process, p.pid = child, child.Pid
	return nil
}

// greet waits until the worker says that it is confined, and takes its program
// out of its sight.
func (p *process) greet(ctx context.Context) error {
	stop := context.AfterFunc(ctx, p.kill)
	err := p.confine()
	if !stop() {
		return context.Cause(ctx)
	}
	if err != nil {
		return err
	}
	return emptyRoot()
}

// confine tells the worker how much memory it may take, when its runtime has reserved
// its tables, and waits until it is confined.
func (p *process) confine() error {
	if err := p.hear(); err != nil {
		return err
	}
	var size int64
	var err error
	var group sync.WaitGroup
	group.Go(func() { size, _, err = p.memory() }) // this thread sees no /proc
	group.Wait()
	if err != nil {
		return fmt.Errorf("read its size: %w", err)
	}
	if err := writeFrame(p.requests, strconv.AppendInt(nil, size+addressLimit, 10), messageLimit); err != nil {
		return fmt.Errorf("limit its memory: %w", err)
	}
	return p.hear()
}

// hear waits for an empty frame. Any other one is an error of the worker.
func (p *process) hear() error {
	payload, err := readFrame(p.replies, messageLimit)
	if err != nil {
		return fmt.Errorf("wait for it to be confined: %w", err)
	}
	if len(payload) != 0 {
		return errors.New(string(payload))
	}
	return nil
}

// preferForOOM makes the kernel choose a worker when the driver's container is
// out of memory.
func preferForOOM(pid int) error {
	return os.WriteFile("/proc/"+strconv.Itoa(pid)+"/oom_score_adj", []byte("1000"), 0)
}

func (p *process) kill() { _ = p.process.Kill() } // it may have exited

// end kills the process and waits until nothing is left of it.
func (p *process) end() {
	p.kill()
	<-p.exited
}
