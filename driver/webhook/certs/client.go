package certs

import (
	"fmt"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/gentype"
	"k8s.io/client-go/rest"

	apiserver "github.com/vaultmount/vaultmount/driver/kube"
)

// NewClients returns what a Managed certificate asks of the API server. They know
// two kinds of objects: client-go's usual clients know all, which would double
// the size of the program, also on the nodes.
func NewClients(config *rest.Config, namespace string) (Secrets, Configurations, error) {
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{corev1.AddToScheme, admissionregistrationv1.AddToScheme} {
		if err := add(scheme); err != nil {
			return nil, nil, fmt.Errorf("register kinds: %w", err)
		}
	}
	metav1.AddToGroupVersion(scheme, schema.GroupVersion{Version: "v1"})
	core, err := apiserver.NewClient(config, scheme, "/api", corev1.SchemeGroupVersion)
	if err != nil {
		return nil, nil, err
	}
	registration, err := apiserver.NewClient(config, scheme, "/apis", admissionregistrationv1.SchemeGroupVersion)
	if err != nil {
		return nil, nil, err
	}
	parameters := runtime.NewParameterCodec(scheme)
	secrets := gentype.NewClient("secrets", core, parameters, namespace, func() *corev1.Secret { return new(corev1.Secret) })
	configurations := gentype.NewClient("mutatingwebhookconfigurations", registration, parameters, "", func() *admissionregistrationv1.MutatingWebhookConfiguration {
		return new(admissionregistrationv1.MutatingWebhookConfiguration)
	})
	return secrets, configurations, nil
}
