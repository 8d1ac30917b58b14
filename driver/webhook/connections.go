package webhook

import (
	"net"
	"sync"
)

// maxConnections bounds the connections of a listener: each takes some 50 KiB, and
// an API server sends one review at a time over each.
const maxConnections = 256

// maxHealthConnections is for kubelets and Prometheus.
const maxHealthConnections = 32

// receiveBuffer is what the kernel takes of a connection before the program reads it,
// in bytes. It counts against the memory of the pod.
const receiveBuffer = 32 << 10

// connections is a listener with a bound on its connections. Above it, the host that
// has the most of them loses its oldest: whoever opens many cannot keep an API server
// out, and nobody waits.
type connections struct {
	net.Listener
	max    int
	mutex  sync.Mutex
	total  int
	byHost map[string][]*connection // oldest first
}

func newConnections(listener net.Listener, max int) *connections {
	return &connections{Listener: listener, max: max, byHost: map[string][]*connection{}}
}

// Accept implements net.Listener.
func (l *connections) Accept() (net.Conn, error) {
	accepted, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	if tcp, ok := accepted.(*net.TCPConn); ok {
		_ = tcp.SetReadBuffer(receiveBuffer) // without it the kernel's default counts
	}
	host, _, _ := net.SplitHostPort(accepted.RemoteAddr().String())
	c := &connection{Conn: accepted, listener: l, host: host}
	if displaced := l.add(c); displaced != nil {
		_ = displaced.Close() // whether or not its host hears of it
	}
	return c, nil
}

// add returns the connection to close in turn, if there is one.
func (l *connections) add(c *connection) (displaced *connection) {
	l.mutex.Lock()
	defer l.mutex.Unlock()
	l.byHost[c.host] = append(l.byHost[c.host], c)
	if l.total++; l.total <= l.max {
		return nil
	}
	var most []*connection
	for _, of := range l.byHost {
		if len(of) > len(most) {
			most = of
		}
	}
	return most[0]
}

func (l *connections) remove(c *connection) {
	l.mutex.Lock()
	defer l.mutex.Unlock()
	of := l.byHost[c.host]
	for i := range of {
		if of[i] == c {
			l.total--
			if l.byHost[c.host] = append(of[:i:i], of[i+1:]...); len(of) == 1 {
				delete(l.byHost, c.host)
			}
			return
		}
	}
}

type connection struct {
	net.Conn
	listener *connections
	host     string
}

// Close implements net.Conn. It may be called more than once.
func (c *connection) Close() error {
	c.listener.remove(c)
	return c.Conn.Close()
}
