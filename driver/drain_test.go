package driver

import (
	"context"
	"net"
	"path/filepath"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/container-storage-interface/spec/lib/go/csi"
)

// Whoever has connected before a listener is left gets an answer: those that wait to
// be accepted as well.
func TestDrainTurnsNobodyAway(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "s")
	bound, err := listen(path)
	if err != nil {
		t.Fatal(err)
	}
	const callers = 50
	var waiting []net.Conn
	for range callers { // nobody accepts yet
		connection, err := net.Dial("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		waiting = append(waiting, connection)
	}
	server := grpc.NewServer(grpc.WaitForHandlers(true))
	csi.RegisterIdentityServer(server, &Plugin{})
	served := make(chan error, 1)
	go func() { served <- server.Serve(bound) }()
	bound.drain(t.Context())
	stopped := make(chan struct{})
	go func() {
		server.GracefulStop()
		close(stopped)
	}()
	for _, connection := range waiting {
		greeting := make([]byte, 9) // the header of an HTTP/2 frame
		if _, err := connection.Read(greeting); err != nil {
			t.Errorf("one who had connected reads %v", err)
		}
		connection.Close()
	}
	<-stopped
	if err := <-served; err != nil {
		t.Error(err)
	}
}

// A listener that is drained still serves the calls on its connections.
func TestDrainLeavesConnectionsAlone(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "s")
	bound, err := listen(path)
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer()
	csi.RegisterIdentityServer(server, &Plugin{})
	go func() { _ = server.Serve(bound) }() // ends with Stop
	defer server.Stop()
	connection, err := grpc.NewClient("unix://"+path, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer connection.Close()
	probe := func(ctx context.Context) error {
		_, err := csi.NewIdentityClient(connection).Probe(ctx, &csi.ProbeRequest{})
		return err
	}
	if err := probe(t.Context()); err != nil {
		t.Fatal(err)
	}
	bound.drain(t.Context())
	if err := probe(t.Context()); err != nil {
		t.Errorf("after the drain: %v", err)
	}
}
