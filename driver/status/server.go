package status

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"time"

	"k8s.io/klog/v2"

	"github.com/vaultmount/vaultmount/provider/fairqueue"
	"github.com/vaultmount/vaultmount/provider/limits"
)

// The paths of the API.
const (
	volumesPath = "/volumes"
	refreshPath = "/refresh"
)

// Bounds of refreshes on request. A node runs at most maxRefreshes at a time, and half of
// them for one namespace, however many requests there are.
const (
	maxRefreshes   = 8
	refreshTimeout = time.Minute      // for one volume
	requestTimeout = 10 * time.Minute // for one request
)

// Source knows the volumes of the node. It may be called concurrently.
type Source interface {
	// Volumes returns a new list of all volumes, in the order of their pods.
	Volumes() []Volume
	// Refresh brings the files of a volume up to date with Vault, and waits for the result
	// or for ctx. A volume has one refresh at a time.
	Refresh(ctx context.Context, volumeID string) error
}

// Result is the outcome of the refresh of one volume.
type Result struct {
	Namespace string `json:"namespace"`
	Pod       string `json:"pod"`
	Volume    string `json:"volume"`
	// Error is empty after a success.
	Error string `json:"error,omitempty"`
}

// Handler serves the volumes, and refreshes them on request. It belongs on a socket that
// only root can reach.
func Handler(source Source) http.Handler {
	h := newHandler(source)
	routes := http.NewServeMux()
	routes.HandleFunc("GET "+volumesPath, h.volumes)
	routes.HandleFunc("POST "+refreshPath, h.refresh)
	return routes
}

type handler struct {
	source  Source
	running *fairqueue.Limiter
}

func newHandler(source Source) *handler {
	return &handler{source: source, running: fairqueue.New(maxRefreshes)}
}

func (h *handler) volumes(writer http.ResponseWriter, request *http.Request) {
	writer.Header().Set("Content-Type", "application/json")
	if err := json.NewEncoder(writer).Encode(h.source.Volumes()); err != nil {
		klog.FromContext(request.Context()).V(4).Info("List of volumes not sent", "err", err.Error())
	}
}

// refresh sends one Result a volume as soon as it is known, in JSON lines. Without a name
// it refreshes all volumes that can be refreshed.
func (h *handler) refresh(writer http.ResponseWriter, request *http.Request) {
	volumes, err := h.source.Volumes(), error(nil)
	if name := request.URL.Query().Get("name"); name != "" {
		volumes, err = Find(volumes, name)
	} else {
		volumes = slices.DeleteFunc(volumes, func(v Volume) bool { return v.State != Fresh && v.State != Stale })
		if len(volumes) == 0 {
			err = errors.New("this node has no volumes that can be refreshed")
		}
	}
	if err != nil {
		http.Error(writer, err.Error(), http.StatusNotFound)
		return
	}
	control := http.NewResponseController(writer)
	deadline := time.Now().Add(requestTimeout)
	if err := errors.Join(control.SetReadDeadline(deadline), control.SetWriteDeadline(deadline)); err != nil {
		http.Error(writer, err.Error(), http.StatusInternalServerError)
		return
	}
	results := make(chan Result)
	for _, volume := range volumes {
		go func() { results <- h.refreshOne(request.Context(), volume) }()
	}
	encoder := json.NewEncoder(writer)
	for range volumes {
		// A client that is gone ends the request's context, and with it the refreshes.
		_ = encoder.Encode(<-results)
		_ = control.Flush()
	}
}

func (h *handler) refreshOne(ctx context.Context, v Volume) Result {
	result := Result{Namespace: v.Namespace, Pod: v.Pod, Volume: v.Name}
	if err := h.await(ctx, v); err != nil {
		result.Error = limits.Shorten(err.Error(), limits.ErrorBytes.Max())
	}
	return result
}

func (h *handler) await(ctx context.Context, v Volume) error {
	switch v.State {
	case Static:
		return errors.New("the volume is static: its attributes exclude a refresh")
	case Unrecorded:
		return errors.New("the driver has no record of the volume; it takes the volume over at the kubelet's next call, within 90 seconds")
	}
	if err := h.running.Acquire(ctx, v.Namespace, fairqueue.Foreground, 1); err != nil {
		return fmt.Errorf("wait for other refreshes: %w", err)
	}
	defer h.running.Release(v.Namespace, 1)
	ctx, cancel := context.WithTimeout(ctx, refreshTimeout)
	defer cancel()
	return h.source.Refresh(ctx, v.ID)
}
