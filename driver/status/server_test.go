package status

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
)

// fakeSource has volumes in memory; refresh is called for each refresh.
type fakeSource struct {
	volumes []Volume
	refresh func(ctx context.Context, id string) error
}

func (s *fakeSource) Volumes() []Volume { return slices.Clone(s.volumes) }

func (s *fakeSource) Refresh(ctx context.Context, id string) error { return s.refresh(ctx, id) }

// serve returns a client of a handler on a unix socket.
func serve(t *testing.T, source Source) Client {
	t.Helper()
	socket := filepath.Join(t.TempDir(), "s")
	listener, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: Handler(source)}
	go func() { _ = server.Serve(listener) }()
	t.Cleanup(func() { _ = server.Close() })
	return Client{Socket: socket}
}

func volumeOf(namespace, pod string, state State) Volume {
	return Volume{ID: "csi-" + namespace + "-" + pod, Namespace: namespace, Pod: pod, Name: "secrets", State: state}
}

func refresh(t *testing.T, client Client, name string) (lines []string, err error) {
	t.Helper()
	err = client.Refresh(t.Context(), name, func(r Result) {
		lines = append(lines, fmt.Sprintf("%s/%s %s %s", r.Namespace, r.Pod, r.Volume, r.Error))
	})
	slices.Sort(lines)
	return lines, err
}

func TestRefreshReportsEachVolume(t *testing.T) {
	t.Parallel()
	source := &fakeSource{
		volumes: []Volume{volumeOf("shop", "a", Fresh), volumeOf("shop", "b", Stale), volumeOf("shop", "c", Static), volumeOf("bank", "d", Unrecorded)},
		refresh: func(_ context.Context, id string) error {
			if id == "csi-shop-b" {
				return errors.New("permission denied")
			}
			return nil
		},
	}
	client := serve(t, source)
	tests := map[string]string{
		"":       "shop/a secrets ,shop/b secrets permission denied",
		"shop/a": "shop/a secrets ",
		"b":      "shop/b secrets permission denied",
		"shop/c": "shop/c secrets the volume is static: its attributes exclude a refresh",
		"bank/d": "bank/d secrets the driver has no record of the volume; it takes the volume over at the kubelet's next call, within 90 seconds",
	}
	for name, want := range tests {
		if lines, err := refresh(t, client, name); err != nil || strings.Join(lines, ",") != want {
			t.Errorf("%q: got %q, %v", name, lines, err)
		}
	}
	if _, err := refresh(t, client, "nobody"); err == nil || !strings.HasPrefix(err.Error(), `no volume "nobody" on this node; write a pod`) {
		t.Errorf("no match: got %v", err)
	}
	source.volumes = source.volumes[2:]
	if _, err := refresh(t, client, ""); err == nil || err.Error() != "this node has no volumes that can be refreshed" {
		t.Errorf("nothing to refresh: got %v", err)
	}
}

// However often it is asked for, a namespace has no more than half of the refreshes of the
// node, so those of a small one do not wait.
func TestRefreshesAreFair(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var mutex sync.Mutex
		running := map[string]int{}
		end := make(chan struct{})
		h := newHandler(&fakeSource{refresh: func(_ context.Context, id string) error {
			mutex.Lock()
			running[strings.Split(id, "-")[1]]++
			mutex.Unlock()
			<-end
			return nil
		}})
		var asked sync.WaitGroup
		for i := range 3 * maxRefreshes {
			asked.Go(func() { _ = h.refreshOne(t.Context(), volumeOf("large", fmt.Sprint(i), Fresh)) })
		}
		synctest.Wait()
		asked.Go(func() { _ = h.refreshOne(t.Context(), volumeOf("small", "x", Fresh)) })
		synctest.Wait()
		mutex.Lock()
		if running["small"] != 1 || running["large"] != maxRefreshes/2 {
			t.Errorf("running: %v", running)
		}
		mutex.Unlock()
		close(end)
		asked.Wait()
	})
}

func TestRefreshEndsInBoundedTime(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		h := newHandler(&fakeSource{refresh: func(ctx context.Context, _ string) error {
			<-ctx.Done()
			return fmt.Errorf("wait for Vault: %w", ctx.Err())
		}})
		if r := h.refreshOne(t.Context(), volumeOf("shop", "a", Fresh)); r.Error != "wait for Vault: context deadline exceeded" {
			t.Errorf("got %q", r.Error)
		}
	})
}
