package holder

import (
	"context"
	"io"
	"net"
	"sync"
)

// forward passes every connection to listener on to an address in the cluster's
// network namespace. A listener made outside stays there: a socket belongs to
// the namespace it was made in.
func (h *holder) forward(ctx context.Context, listener net.Listener, address string) {
	h.closers = append(h.closers, listener.Close)
	h.wg.Go(func() {
		for {
			outer, err := listener.Accept()
			if err != nil {
				return // closed
			}
			h.wg.Go(func() { connect(ctx, outer, address) })
		}
	})
}

// connect joins a connection to a new one to address until both directions have
// ended or the context has.
func connect(ctx context.Context, outer net.Conn, address string) {
	defer outer.Close()
	var dialer net.Dialer
	inner, err := dialer.DialContext(ctx, "tcp", address)
	if err != nil {
		return // the client sees its connection end, as if nobody listened
	}
	defer inner.Close()
	defer context.AfterFunc(ctx, func() {
		_ = outer.Close()
		_ = inner.Close()
	})()
	var wg sync.WaitGroup
	wg.Go(func() { pour(inner, outer) })
	pour(outer, inner)
	wg.Wait()
}

// pour copies one direction and passes its end on, so that the other direction
// can go on by itself.
func pour(to, from net.Conn) {
	_, _ = io.Copy(to, from) // an error ends the connection, which is all there is to do
	if half, ok := to.(interface{ CloseWrite() error }); ok {
		_ = half.CloseWrite()
	}
}
