package component

import (
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"github.com/stretchr/testify/require"

	"github.com/vaultmount/vaultmount/test/rig"
)

// door is a proxy in front of a Vault and lets logins in when it is opened.
type door struct {
	*httptest.Server

	waiting chan struct{} // receives one for each login that waits
	opened  chan struct{}
	open    func()
}

func newDoor(t *testing.T, vault string) *door {
	t.Helper()
	target, err := url.Parse(vault)
	require.NoError(t, err)
	d := &door{waiting: make(chan struct{}, 16), opened: make(chan struct{})}
	d.open = sync.OnceFunc(func() { close(d.opened) })
	behind := httputil.NewSingleHostReverseProxy(target)
	d.Server = httptest.NewServer(http.HandlerFunc(func(writer http.ResponseWriter, request *http.Request) {
		if strings.HasSuffix(request.URL.Path, "/login") {
			d.waiting <- struct{}{}
			<-d.opened
		}
		behind.ServeHTTP(writer, request)
	}))
	t.Cleanup(func() {
		d.open()
		d.Close()
	})
	return d
}

// A publish that has begun is finished, whether a standby takes over or not: the pod has
// its files, and nothing is made twice.
func TestPublishInProgressIsFinished(t *testing.T) {
	for name, standby := range map[string]bool{"when nobody takes over": false, "when a standby takes over": true} {
		t.Run(name, func(t *testing.T) {
			u := newUpgrade(t)
			d := newDoor(t, u.vault.Server.Address)
			u.arguments = []string{"--allow-address=" + d.URL}
			process := u.begin(t)
			request := u.kubelet.Request(t, u.vault, "pod", map[string]string{"template/db": connectionTemplate, "address": d.URL})
			outcome := make(chan error, 1)
			go func() {
				outcome <- u.call(func(node csi.NodeClient) error {
					_, err := node.NodePublishVolume(t.Context(), request)
					return err
				})
			}()
			<-d.waiting
			if standby {
				u.kubelet.Register(t)
				u.standBy(t)
			}
			require.NoError(t, process.Process.Signal(syscall.SIGTERM))
			if standby {
				awaitLog(t, process, "Handing the node off to the standby instance", 1)
			} else {
				rig.Eventually(t, "the process takes itself off the node", func() bool {
					links, err := filepath.Glob(filepath.Join(u.kubelet.Root, "plugins_registry", "*"))
					return err == nil && len(links) == 0
				})
			}
			d.open()
			if err := <-outcome; err != nil {
				t.Errorf("the publish in progress: %v", err)
			}
			if got := mustRead(t, rig.VolumeFile(request, "db")); got != connection {
				t.Errorf("the file holds %q", got)
			}
			if tokens := u.vault.PodTokens(t); tokens != 1 {
				t.Errorf("there are %d tokens, want 1", tokens)
			}
		})
	}
}
