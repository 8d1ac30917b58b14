package driver

import (
	"strings"

	"github.com/container-storage-interface/spec/lib/go/csi"

	"github.com/vaultmount/vaultmount/driver/volume"
	"github.com/vaultmount/vaultmount/provider"
)

// The keys that the kubelet adds to a volume context (podInfoOnMount) and to the
// secrets or the context (tokenRequests).
const (
	kubeletPrefix     = "csi.storage.k8s.io/"
	keyEphemeral      = kubeletPrefix + "ephemeral"
	keyPodName        = kubeletPrefix + "pod.name"
	keyPodNamespace   = kubeletPrefix + "pod.namespace"
	keyPodUID         = kubeletPrefix + "pod.uid"
	keyServiceAccount = kubeletPrefix + "serviceAccount.name"
	keyTokens         = kubeletPrefix + "serviceAccount.tokens"
)

// volumeContext is what comes with a publish, the kubelet's part and the user's
// part taken asunder.
type volumeContext struct {
	namespace, name, uid, serviceAccount string
	ephemeral                            bool
	attributes                           map[string]string
}

func splitContext(raw map[string]string) volumeContext {
	c := volumeContext{
		namespace:      raw[keyPodNamespace],
		name:           raw[keyPodName],
		uid:            raw[keyPodUID],
		serviceAccount: raw[keyServiceAccount],
		ephemeral:      raw[keyEphemeral] == "true",
		attributes:     map[string]string{},
	}
	for key, value := range raw {
		if !strings.HasPrefix(key, kubeletPrefix) {
			c.attributes[key] = value
		}
	}
	return c
}

// login is what the volume shows to Vault: the pod's token, or an AppRole's two
// halves from its Secret.
func login(request *csi.NodePublishVolumeRequest, pod volumeContext, auth volume.Auth, secret secretKeys) (provider.Login, error) {
	l := provider.Login{Mount: auth.Path, Role: auth.Role, ServiceAccount: pod.namespace + "/" + pod.serviceAccount}
	var err error
	if auth.Type != volume.AppRole {
		l.JWT, err = chooseToken(request, pod, auth.Audience)
		return l, err
	}
	if l.RoleID, err = secret.get("role-id", auth.RoleID); err != nil {
		return l, err
	}
	l.SecretID, err = secret.get("secret-id", auth.SecretID)
	return l, err
}

// notYet refuses what the provider does not do so far: to pass over it would start
// the pod with something else than what it asks for.
func notYet(spec volume.Spec) error {
	const problem = "is not available in this version of vaultmount; leave it out"
	switch life := spec.Lifecycle; {
	case spec.HasToken():
		return refuse("token-file", problem)
	case life.StaticInterval != 0:
		return refuse("static-secret-render-interval", problem)
	case life.RenewalThreshold != 0:
		return refuse("lease-renewal-threshold", problem)
	case life.Revocation == volume.Keep:
		return refuse("revoke-on-unpublish", problem)
	}
	return nil
}

// templates are those of the files, in order.
func templates(spec volume.Spec, secret secretKeys) ([]provider.Template, error) {
	all := make([]provider.Template, 0, len(spec.Files))
	for _, file := range spec.Files {
		text := spec.Text(file)
		if file.TemplateKey != "" {
			var err error
			if text, err = secret.get("template-key/"+file.Path, file.TemplateKey); err != nil {
				return nil, err
			}
		}
		all = append(all, provider.Template{
			Name:              file.Path,
			Text:              text,
			LeftDelim:         file.LeftDelim,
			RightDelim:        file.RightDelim,
			ErrorOnMissingKey: file.ErrorOnMissingKey,
		})
	}
	return all, nil
}
