package driver

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/types/known/emptypb"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// A process of the driver that starts beside another (maxSurge of the DaemonSet)
// takes the node over without a gap. It puts its own sockets in place of the
// other's, where the kubelet's next call finds them, and asks the other through
// the old registration socket to give the volumes up: the call Take. The answer
// comes when the other has finished what it had begun, and says whether the
// kubelet knows the driver. The stream then stays open for as long as the new
// process lives: if it dies, the other takes the node back.
const (
	handoverName = "vaultmount.handover.v1.HandOver"
	takeName     = "Take"
)

// handover is the side of the process that gives the volumes up.
type handover struct {
	asked    chan struct{} // closed when somebody takes over
	released chan struct{} // closed when the volumes are given up
	gone     chan struct{} // closed when whoever took over has ended
	// registered is what to tell; set before released.
	registered bool

	mutex sync.Mutex
	taken bool
}

func newHandover() *handover {
	return &handover{asked: make(chan struct{}), released: make(chan struct{}), gone: make(chan struct{})}
}

func (h *handover) register(server *grpc.Server) {
	server.RegisterService(&grpc.ServiceDesc{
		ServiceName: handoverName,
		HandlerType: (*any)(nil),
		Streams:     []grpc.StreamDesc{{StreamName: takeName, ServerStreams: true, Handler: h.take}},
	}, h)
}

func (h *handover) take(_ any, stream grpc.ServerStream) error {
	if err := stream.RecvMsg(&emptypb.Empty{}); err != nil {
		return err
	}
	h.mutex.Lock()
	again := h.taken
	h.taken = true
	h.mutex.Unlock()
	if again {
		return errors.New("another process has asked already")
	}
	close(h.asked)
	defer close(h.gone)
	select {
	case <-h.released:
	case <-stream.Context().Done():
		return stream.Context().Err()
	}
	if err := stream.SendMsg(wrapperspb.Bool(h.registered)); err != nil {
		return err
	}
	<-stream.Context().Done()
	return nil
}

// release tells whoever asked that the volumes are given up.
func (h *handover) release(registered bool) {
	h.registered = registered
	close(h.released)
}

// handoverTimeout is more than a process needs to give the volumes up: replaceAfter
// for each of what it has begun for the kubelet and for itself.
const handoverTimeout = 10 * time.Second

// predecessor is the side of the process that takes the volumes over.
type predecessor struct {
	client *grpc.ClientConn
	cancel context.CancelFunc
}

// findPredecessor connects to the process behind a registration socket; nil if there
// is none. It must be called before the socket is replaced.
func findPredecessor(socket string) (*predecessor, error) {
	connection, err := net.DialTimeout("unix", socket, time.Second)
	if err != nil {
		return nil, nil // nobody listens there
	}
	var once sync.Once
	client, err := grpc.NewClient("passthrough:///predecessor", grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(context.Context, string) (first net.Conn, err error) {
			err = errors.New("the process before has ended")
			once.Do(func() { first, err = connection, nil })
			return first, err
		}))
	if err != nil {
		return nil, errors.Join(fmt.Errorf("prepare to take over: %w", err), connection.Close())
	}
	client.Connect()
	return &predecessor{client: client, cancel: func() {}}, nil
}

// take waits until the process has given the volumes up, and reports whether the
// kubelet knows the driver. An error says that the process has ended meanwhile, or
// does not do as it is asked.
func (p *predecessor) take(ctx context.Context) (registered bool, err error) {
	life, cancel := context.WithCancel(context.WithoutCancel(ctx))
	p.cancel = cancel
	defer context.AfterFunc(ctx, cancel)()
	timer := time.AfterFunc(handoverTimeout, cancel)
	defer timer.Stop()
	stream, err := p.client.NewStream(life, &grpc.StreamDesc{ServerStreams: true}, "/"+handoverName+"/"+takeName)
	if err != nil {
		return false, err
	}
	if err := errors.Join(stream.SendMsg(&emptypb.Empty{}), stream.CloseSend()); err != nil {
		return false, err
	}
	answer := &wrapperspb.BoolValue{}
	if err := stream.RecvMsg(answer); err != nil {
		return false, err
	}
	return answer.GetValue(), nil
}

// close ends the stream, by which the process before knows that this one has ended.
func (p *predecessor) close() {
	p.cancel()
	_ = p.client.Close() // nothing of it is needed
}
