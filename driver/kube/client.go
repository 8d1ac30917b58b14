// Package kube is what the driver may ask of the Kubernetes API server, if it
// is told to: to take Events about its volumes, and to remove its start-up taint
// from the node.
//
// Volumes never depend on it. It reads no pod and no Secret, and keeps no watch.
package kube

import (
	"fmt"

	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/client-go/rest"
)

// NewClient returns a client of one group of the API, "/api" or "/apis", that knows
// the kinds of a scheme: client-go's usual clients know all, which would double the
// size of the program.
func NewClient(config *rest.Config, scheme *runtime.Scheme, path string, version schema.GroupVersion) (rest.Interface, error) {
	config = rest.CopyConfig(config)
	config.APIPath = path
	config.GroupVersion = &version
	config.NegotiatedSerializer = serializer.NewCodecFactory(scheme).WithoutConversion()
	client, err := rest.RESTClientFor(config)
	if err != nil {
		return nil, fmt.Errorf("make a client of the API server: %w", err)
	}
	return client, nil
}
