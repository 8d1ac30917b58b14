package chart

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/yaml"
)

// An upgrade may change the webhook's own certificate for one of cert-manager, and
// back: Helm refuses a Secret that cert-manager has made, and the one that it has made
// itself it deletes at the end.
func TestCertificatesShareNoSecret(t *testing.T) {
	own := mustTemplate(t, oldest, address, "--set=webhook.enabled=true")
	object[corev1.Secret](t, own, "Secret", "vaultmount-webhook-tls")
	managed := mustTemplate(t, oldest, address, "--set=webhook.enabled=true,webhook.certManager.enabled=true")
	secrets := certificateSecrets(t, managed)
	if len(secrets) != 2 {
		t.Fatalf("cert-manager makes the Secrets %q, want one for the CA and one for the webhook", secrets)
	}
	for certificate, secret := range secrets {
		if secret == "vaultmount-webhook-tls" {
			t.Errorf("the Certificate %s is kept in the Secret of the webhook's own", certificate)
		}
	}
	volume := object[appsv1.Deployment](t, managed, "Deployment", "vaultmount-webhook").Spec.Template.Spec.Volumes[0]
	if want := secrets["vaultmount-webhook"]; volume.Secret.SecretName != want {
		t.Errorf("the webhook mounts the Secret %s, want %s of its Certificate", volume.Secret.SecretName, want)
	}
}

// certificateSecrets are the Secrets of cert-manager's Certificates, by their names.
func certificateSecrets(t *testing.T, rendered string) map[string]string {
	t.Helper()
	secrets := map[string]string{}
	for _, document := range documents(rendered) {
		if !strings.Contains(document, "\nkind: Certificate\n") {
			continue
		}
		var certificate struct {
			Metadata struct{ Name string }
			Spec     struct{ SecretName string }
		}
		require.NoError(t, yaml.Unmarshal([]byte(document), &certificate))
		secrets[certificate.Metadata.Name] = certificate.Spec.SecretName
	}
	return secrets
}
