package driver

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"k8s.io/klog/v2/textlogger"

	"github.com/vaultmount/vaultmount/provider"
)

// panicking panics on the volumes of one pod. Its words are no part of the answer.
type panicking struct{ nothing }

func (panicking) Publish(_ context.Context, request provider.Request, _ provider.Sink) (*provider.Volume, []provider.RenderedFile, error) {
	if request.Pod == "shop/web" {
		panic("canary " + request.VolumeID)
	}
	return nil, []provider.RenderedFile{{Content: []byte("x")}}, nil
}

// counted remembers the codes of calls.
type counted struct {
	mutex sync.Mutex
	codes []string
}

func (c *counted) ObserveCall(method, code string, _ time.Duration, _ bool) {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	c.codes = append(c.codes, method+" "+code)
}

// lines are log lines.
type lines struct {
	mutex sync.Mutex
	text  bytes.Buffer
}

func (l *lines) Write(line []byte) (int, error) {
	l.mutex.Lock()
	defer l.mutex.Unlock()
	return l.text.Write(line)
}

func (l *lines) String() string {
	l.mutex.Lock()
	defer l.mutex.Unlock()
	return l.text.String()
}

// A panic is the error of the call that panicked, with one log line. The server serves
// the next calls, of that volume as well, and nothing of the volume is left. The test
// mounts, so it needs root.
func TestPanicIsTheErrorOfItsCall(t *testing.T) {
	config := newNode(t)
	config.VolumeSize, config.MaxVolumeSize = 1<<20, 1<<20
	d, request := newNodeServer(t, config, panicking{})
	observer, log := &counted{}, &lines{}
	_, connection := serve(t, textlogger.NewLogger(textlogger.NewConfig(textlogger.Output(log))), d, observer)
	node := csi.NewNodeClient(connection)
	must(t, os.MkdirAll(filepath.Dir(request.GetTargetPath()), 0o755))

	for range 2 { // were the volume still in progress, the second were Aborted
		_, err := node.NodePublishVolume(t.Context(), request)
		if status.Code(err) != codes.Internal || strings.Contains(err.Error(), "canary") {
			t.Errorf("got %v", err)
		}
		if _, err := os.Lstat(request.GetTargetPath()); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("the target path is left: %v", err)
		}
	}
	request.VolumeContext[keyPodName] = "db"
	request.Secrets[keyTokens] = strings.ReplaceAll(bothTokens(), podToken("vault"), tokenOf("db", "vault"))
	request.Secrets[keyTokens] = strings.ReplaceAll(request.Secrets[keyTokens], podToken("api-server"), tokenOf("db", "api-server"))
	if _, err := node.NodePublishVolume(t.Context(), request); err != nil {
		t.Errorf("the next pod is refused: %v", err)
	}
	if _, err := node.NodeUnpublishVolume(t.Context(), &csi.NodeUnpublishVolumeRequest{VolumeId: request.GetVolumeId(), TargetPath: request.GetTargetPath()}); err != nil {
		t.Error(err)
	}

	if want := "NodePublishVolume Internal,NodePublishVolume Internal,NodePublishVolume OK,NodeUnpublishVolume OK"; strings.Join(observer.codes, ",") != want {
		t.Errorf("calls were counted as %q", observer.codes)
	}
	text := log.String()
	if strings.Contains(text, "canary") || strings.Count(text, "panicking.Publish") != 2 || strings.Count(text, `stack="`) != 2 {
		t.Errorf("the log does not hold the two stacks, or a secret:\n%s", text)
	}
	for line := range strings.Lines(text) {
		if strings.Contains(line, "stack=") && (!strings.Contains(line, `"Call failed"`) || !strings.Contains(line, `pod="shop/web"`)) {
			t.Errorf("not one line with all: %s", line)
		}
	}
}

func tokenOf(pod, audience string) string {
	return tokenWith(`{"aud":["` + audience + `"],"kubernetes.io":{"namespace":"shop","pod":{"name":"` + pod + `","uid":"1-2-3"},"serviceaccount":{"name":"app","uid":"4"}}}`)
}
