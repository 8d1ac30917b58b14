package worker

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

// firstID is the user and the group of the first worker; each has its own, so
// that none can signal another. No container gets an id of this half: runAsUser
// ends below.
const firstID = 1 << 31

// startTimeout is for a node that is so busy that a program needs long to start.
const startTimeout = 60 * time.Second

// process is one worker from the outside. All that comes out of it is suspect.
type process struct {
	slot     int
	pid      int
	nice     int
	process  *os.Process
	requests *os.File
	replies  *os.File
	words    *words

	// exited is closed when nothing is left of the process; state is set then.
	exited    chan struct{}
	state     *os.ProcessState
	idleSince time.Time
}

// startProcess returns when the worker is confined and waits for a request.
func startProcess(ctx context.Context, program string, arguments []string, slot int) (*process, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, startTimeout, errors.New("it takes too long"))
	defer cancel()
	p := &process{slot: slot, exited: make(chan struct{}), words: &words{}}
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
	id := uint32(firstID + p.slot)
	child, err := os.StartProcess(programName, append([]string{programName}, arguments...), &os.ProcAttr{
		Dir:   "/",
		Env:   []string{},
		Files: files.child[:],
		Sys: &syscall.SysProcAttr{
			Credential: &syscall.Credential{Uid: id, Gid: id},
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
	payload, err := readFrame(p.replies, messageLimit)
	if !stop() {
		return context.Cause(ctx)
	}
	if err != nil {
		return fmt.Errorf("wait for it to be confined: %w", err)
	}
	if len(payload) != 0 {
		return errors.New(string(payload))
	}
	return emptyRoot()
}

// preferForOOM makes the kernel choose a worker when the driver's container is
// out of memory.
func preferForOOM(pid int) error {
	return os.WriteFile("/proc/"+strconv.Itoa(pid)+"/oom_score_adj", []byte("1000"), 0)
}

// setPriority is for all threads of the process, 0 for the usual one.
func (p *process) setPriority(nice int) error {
	if p.nice == nice {
		return nil
	}
	// Its process group is its own (Setsid).
	if err := unix.Setpriority(unix.PRIO_PGRP, p.pid, nice); err != nil {
		return fmt.Errorf("set the priority of a render worker: %w", err)
	}
	p.nice = nice
	return nil
}

func (p *process) kill() { _ = p.process.Kill() } // it may have exited

// end kills the process and waits until nothing is left of it.
func (p *process) end() {
	p.kill()
	<-p.exited
}
