package driver

import (
	"fmt"
	"strings"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"k8s.io/klog/v2"

	"github.com/vaultmount/vaultmount/driver/volume"
	"github.com/vaultmount/vaultmount/provider"
	"github.com/vaultmount/vaultmount/provider/limits"
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

// field is a part of a request, with its limit.
type field struct {
	name, value string
	limit       limits.Limit
}

// checkFields checks the length of fields. It comes before anything else that reads them.
func checkFields(fields ...field) error {
	for _, f := range fields {
		if err := f.limit.Check(len(f.value)); err != nil {
			return &argumentError{field: f.name, problem: err.Error(), cause: err}
		}
	}
	return nil
}

func checkPublishFields(request *csi.NodePublishVolumeRequest) error {
	mount, context := request.GetVolumeCapability().GetMount(), request.GetVolumeContext()
	return checkFields(
		field{"volume_id", request.GetVolumeId(), limits.NameBytes},
		field{"target_path", request.GetTargetPath(), limits.TargetPathBytes},
		field{"fsType", mount.GetFsType(), limits.NameBytes},
		field{"volume_mount_group", mount.GetVolumeMountGroup(), limits.NameBytes},
		field{keyPodName, context[keyPodName], limits.NameBytes},
		field{keyPodNamespace, context[keyPodNamespace], limits.NameBytes},
		field{keyPodUID, context[keyPodUID], limits.NameBytes},
		field{keyServiceAccount, context[keyServiceAccount], limits.NameBytes},
		field{keyTokens, context[keyTokens], limits.CredentialBytes},
		field{keyTokens, request.GetSecrets()[keyTokens], limits.CredentialBytes},
	)
}

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

// login is what the volume shows to Vault: the pod's tokens, or an AppRole's two
// halves from its Secret.
// address is empty for the driver's own Vault.
func login(request *csi.NodePublishVolumeRequest, pod volumeContext, auth volume.Auth, secret secretKeys, address string) (provider.Login, error) {
	l := provider.Login{Mount: auth.Path, Role: auth.Role, ServiceAccount: pod.namespace + "/" + pod.serviceAccount}
	if auth.Audience.Chosen {
		l.Audience = "audience " + auth.Audience.Name // not empty for the API server's
	}
	if auth.Type != volume.AppRole {
		tokens, err := chooseTokens(request, pod, auth.Audience, address)
		l.JWT, l.FallbackJWT = tokens.first, tokens.other
		return l, err
	}
	var err error
	if l.RoleID, err = secret.get("role-id", auth.RoleID, limits.CredentialBytes); err != nil {
		return l, err
	}
	l.SecretID, err = secret.get("secret-id", auth.SecretID, limits.CredentialBytes)
	return l, err
}

// outputs are what makes the files, in their order. The templates in the Secret count as
// those in the attributes do, which volume.Parse has counted alone.
func outputs(spec volume.Spec, secret secretKeys) ([]provider.FileSpec, error) {
	all := make([]provider.FileSpec, 0, len(spec.Files))
	templates := 0
	for _, file := range spec.Files {
		text, key := spec.Text(file), "template/"+file.Path
		if file.TemplateKey != "" {
			var err error
			key = "template-key/" + file.Path
			if text, err = secret.get(key, file.TemplateKey, limits.TemplateBytes); err != nil {
				return nil, err
			}
		}
		if file.Secret == "" {
			templates += len(text)
			if err := limits.VolumeTemplateBytes.Check(templates); err != nil {
				return nil, refuseBy(key, fmt.Errorf("with the templates before it, %w", err))
			}
		}
		all = append(all, provider.FileSpec{Token: file.Token, Template: provider.Template{
			Name:              file.Path,
			Text:              text,
			LeftDelim:         file.LeftDelim,
			RightDelim:        file.RightDelim,
			ErrorOnMissingKey: file.ErrorOnMissingKey,
		}})
	}
	return all, nil
}

// refresh fits what a volume asks for into the limits, and logs where it had to.
func (c Config) refresh(logger klog.Logger, life volume.Lifecycle) provider.RefreshPolicy {
	wanted := provider.RefreshPolicy{Disabled: !life.Refresh, StaticInterval: life.StaticInterval, LeaseRenewalThreshold: life.RenewalThreshold}
	if wanted.StaticInterval == 0 {
		wanted.StaticInterval = c.StaticInterval
	} else if wanted.StaticInterval < provider.MinInterval {
		logger.Info("Attribute is out of bounds; the nearest bound is used", "attribute", "static-secret-render-interval", "asked", wanted.StaticInterval.String(), "used", provider.MinInterval.String())
		wanted.StaticInterval = provider.MinInterval
	}
	wanted.SkipRevoke = life.Revoke == volume.Keep || life.Revoke == volume.RevokeDefault && c.KeepTokens
	return wanted
}
