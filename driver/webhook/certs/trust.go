package certs

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/klog/v2"
)

// trustPatch is a strategic merge patch: a webhook is found by its name, and what
// others have set of it stays.
type trustPatch struct {
	Metadata struct {
		// ResourceVersion makes the API server refuse the patch if the configuration
		// is no longer what was read.
		ResourceVersion string `json:"resourceVersion"`
	} `json:"metadata"`
	Webhooks []trustedWebhook `json:"webhooks"`
}

type trustedWebhook struct {
	Name         string `json:"name"`
	ClientConfig struct {
		CABundle []byte `json:"caBundle"`
	} `json:"clientConfig"`
}

// trust makes the API server trust the bundle for every webhook of the
// configuration, as it was read before the Secret. If it has changed since, so may
// the Secret, and the patch is refused.
func (m *Managed) trust(ctx context.Context, configuration *admissionregistrationv1.MutatingWebhookConfiguration, bundle []byte) error {
	var patch trustPatch
	for _, webhook := range configuration.Webhooks {
		if bytes.Equal(webhook.ClientConfig.CABundle, bundle) {
			continue
		}
		trusted := trustedWebhook{Name: webhook.Name}
		trusted.ClientConfig.CABundle = bundle
		patch.Webhooks = append(patch.Webhooks, trusted)
	}
	if len(patch.Webhooks) == 0 {
		return nil
	}
	patch.Metadata.ResourceVersion = configuration.ResourceVersion
	text, err := json.Marshal(patch)
	if err != nil {
		return fmt.Errorf("write the trust in the certificate: %w", err)
	}
	_, err = m.options.Configurations.Patch(quiet(ctx), configuration.Name, types.StrategicMergePatchType, text, metav1.PatchOptions{})
	if apierrors.IsConflict(err) {
		return fmt.Errorf("patch the webhook configuration: %w: %w", errStale, err)
	}
	if err != nil {
		return fmt.Errorf("patch the webhook configuration: %w", err)
	}
	klog.FromContext(ctx).Info("Trust of the API server set", "configuration", configuration.Name, "webhooks", len(patch.Webhooks))
	return nil
}
