package driver

import (
	"context"
	"errors"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// drainable is a listener that can be left without turning anybody away. A listener
// that closes resets who has connected and was not accepted yet, or was not greeted:
// a call of the kubelet that came just before another process took its place would
// fail.
type drainable struct {
	*net.UnixListener

	draining atomic.Bool
	drained  chan struct{} // closed when nobody waits to be accepted
	closed   chan struct{}
	close    func() error
	isEmpty  func()
	greeting sync.WaitGroup // who is accepted and not greeted
}

func newDrainable(listener *net.UnixListener) *drainable {
	d := &drainable{UnixListener: listener, drained: make(chan struct{}), closed: make(chan struct{})}
	d.close = sync.OnceValue(func() error {
		close(d.closed)
		return listener.Close()
	})
	d.isEmpty = sync.OnceFunc(func() { close(d.drained) })
	return d
}

// Accept implements net.Listener. Once the listener is drained it waits for Close.
func (d *drainable) Accept() (net.Conn, error) {
	for {
		if d.draining.Load() && !d.hasWaiting() {
			d.isEmpty()
			<-d.closed
			return nil, net.ErrClosed
		}
		connection, err := d.UnixListener.Accept()
		if errors.Is(err, os.ErrDeadlineExceeded) {
			if err := d.SetDeadline(time.Time{}); err != nil {
				return nil, err
			}
			continue
		}
		if err != nil {
			return nil, err
		}
		d.greeting.Add(1)
		return &greeted{Conn: connection, done: sync.OnceFunc(d.greeting.Done)}, nil
	}
}

// hasWaiting tells whether somebody waits to be accepted.
func (d *drainable) hasWaiting() bool {
	raw, err := d.SyscallConn()
	if err != nil {
		return false
	}
	waiting := false
	err = raw.Control(func(fd uintptr) {
		ready, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 0)
		waiting = err == nil && ready > 0
	})
	return err == nil && waiting
}

// drain returns when all who have connected are accepted and greeted, or when ctx
// ends. It is for a listener that nobody finds any more.
func (d *drainable) drain(ctx context.Context) {
	d.draining.Store(true)
	if err := d.SetDeadline(time.Now()); err != nil { // wakes Accept
		return
	}
	greeted := make(chan struct{})
	go func() {
		select {
		case <-d.drained:
			d.greeting.Wait()
		case <-d.closed:
		}
		close(greeted)
	}()
	select {
	case <-greeted:
	case <-ctx.Done():
	}
}

// Close implements net.Listener.
func (d *drainable) Close() error { return d.close() }

// greeted is a connection that knows whether the server has said anything on it. An
// HTTP/2 server speaks first.
type greeted struct {
	net.Conn

	done func()
}

// Write implements net.Conn.
func (g *greeted) Write(p []byte) (int, error) {
	n, err := g.Conn.Write(p)
	g.done()
	return n, err
}

// Close implements net.Conn.
func (g *greeted) Close() error {
	defer g.done()
	return g.Conn.Close()
}
