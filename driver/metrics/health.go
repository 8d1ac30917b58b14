package metrics

import (
	"context"
	"fmt"
	"net/http"
)

// Checks answer the kubelet's probes. They may be called concurrently.
type Checks struct {
	// Alive fails when only a restart can help, Ready when the kubelet does not reach this
	// process. Neither depends on Vault: a restart does not bring it back.
	Alive, Ready func(ctx context.Context) error
}

// Handler serves /healthz, /readyz and /metrics.
func Handler(checks Checks, recorder *Recorder) http.Handler {
	routes := http.NewServeMux()
	routes.Handle("GET /healthz", probe(checks.Alive))
	routes.Handle("GET /readyz", probe(checks.Ready))
	routes.Handle("GET /metrics", recorder.Handler())
	return routes
}

func probe(check func(context.Context) error) http.HandlerFunc {
	return func(writer http.ResponseWriter, request *http.Request) {
		if err := check(request.Context()); err != nil {
			http.Error(writer, err.Error(), http.StatusServiceUnavailable)
			return
		}
		fmt.Fprintln(writer, "ok")
	}
}
