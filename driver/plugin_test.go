package driver

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"k8s.io/klog/v2"
	"k8s.io/klog/v2/textlogger"

	"github.com/vaultmount/vaultmount/driver/tmpfs"
	"github.com/vaultmount/vaultmount/provider"
)

// nothing is all that a charge of no volumes needs.
type nothing struct{}

func (nothing) Save(string, []byte) error              { return nil }
func (nothing) Delete(string) error                    { return nil }
func (nothing) Load(string) (map[string][]byte, error) { return nil, nil }

func (nothing) Open(context.Context, provider.Request) ([]provider.RenderedFile, error) {
	return nil, nil
}
func (nothing) Republish(provider.Request) {}
func (nothing) Close(string)               {}

func (nothing) Volumes() []provider.Status  { return nil }
func (nothing) Numbers() provider.Stats     { return provider.Stats{} }
func (nothing) Usage() (tmpfs.Usage, error) { return tmpfs.Usage{}, nil }
func (nothing) IsAttached() bool            { return true }

func (nothing) Called(string, string, time.Duration, bool) {}

// newNode makes a kubelet's root directory. Its name is short: paths of sockets hold
// 107 bytes, and t.TempDir's hold the name of the test.
func newNode(t *testing.T) Config {
	t.Helper()
	root, err := os.MkdirTemp("", "node")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(root) })
	config := Config{Name: "csi.vaultmount.dev", NodeName: "node-1", KubeletRoot: root, VolumeSize: 1, MaxVolumeSize: 1}
	for _, directory := range []string{"plugins_registry", filepath.Join("plugins", config.Name)} {
		if err := os.MkdirAll(filepath.Join(root, directory), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	return config
}

// newProcess is a process of the driver on a node without volumes.
func newProcess(t *testing.T, config Config) *Plugin {
	t.Helper()
	return newProcessThat(t, config, func(context.Context, func() error) (*Charge, error) { return newCharge(config) })
}

func newProcessThat(t *testing.T, config Config, opens Opener) *Plugin {
	t.Helper()
	p, err := NewPlugin(config, DefaultEndpoint(config.KubeletRoot, config.Name), opens, nothing{})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// run runs a process until the test ends, and waits until the kubelet can find it.
func run(t *testing.T, p *Plugin) {
	t.Helper()
	runIn(t, p, logged(t, context.Background()))
}

// runIn is run with a logger.
func runIn(t *testing.T, p *Plugin, ctx context.Context) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	ended := make(chan error, 1)
	go func() { ended <- p.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("the process ends with %v", err)
		}
	})
	eventually(t, "the process has charge of the volumes and is announced", func() bool {
		links, err := p.announcements()
		return err == nil && len(links) == 1 && p.current() != nil
	})
}

// logged has the log shown when the test fails.
func logged(t *testing.T, ctx context.Context) context.Context {
	return klog.NewContext(ctx, textlogger.NewLogger(textlogger.NewConfig(textlogger.Output(t.Output()))))
}

func eventually(t *testing.T, what string, is func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !is(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("it never happens: %s", what)
		}
	}
}

// link is the only one that the kubelet finds.
func link(t *testing.T, p *Plugin) string {
	t.Helper()
	links, err := p.announcements()
	if err != nil || len(links) != 1 {
		t.Fatalf("the kubelet finds %q, %v", links, err)
	}
	return links[0]
}

// dial connects to a socket as the kubelet does.
func dial(t *testing.T, socket string) *grpc.ClientConn {
	t.Helper()
	connection, err := grpc.NewClient("unix://"+socket, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { connection.Close() })
	return connection
}

func getsInfo(t *testing.T, endpoint string) bool {
	t.Helper()
	_, err := csi.NewNodeClient(dial(t, endpoint)).NodeGetInfo(t.Context(), &csi.NodeGetInfoRequest{})
	return err == nil
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
