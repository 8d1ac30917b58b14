package driver

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
	"k8s.io/klog/v2"

	"github.com/vaultmount/vaultmount/driver/injector"
	"github.com/vaultmount/vaultmount/driver/tmpfs"
	"github.com/vaultmount/vaultmount/driver/volume"
	"github.com/vaultmount/vaultmount/driver/volumes"
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
			return &fieldError{field: f.name, problem: err.Error(), cause: err}
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

// decoded is what a publish asks for.
type decoded struct {
	resolvedVolume

	volume  volumes.Volume
	request provider.Request
}

// decode reads a publish once, for whichever of its uses. Values that are out of bounds are
// logged.
func (s *NodeServer) decode(logger klog.Logger, request *csi.NodePublishVolumeRequest) (decoded, error) {
	pod := splitContext(request.GetVolumeContext())
	resolvedVolume, err := s.describe(pod)
	d := decoded{resolvedVolume: resolvedVolume}
	if err != nil {
		return d, err
	}
	size, err := s.volumeSize(d.spec)
	if err == nil {
		d.volume, err = newVolume(request, pod, d.spec, size)
	}
	if err == nil && !pod.ephemeral {
		err = errNoPodInfo
	}
	if err == nil {
		d.request, err = s.providerRequest(logger, request, pod, d.spec, size)
	}
	return d, d.sourceError(err)
}

func newVolume(request *csi.NodePublishVolumeRequest, pod volumeContext, spec volume.Spec, size int64) (volumes.Volume, error) {
	v := volumes.Volume{
		ID: request.GetVolumeId(), Target: request.GetTargetPath(), UID: int(max(spec.Owner.UID, 0)), GID: int(max(spec.Owner.GID, 0)),
		Pod: volumes.Pod{Namespace: pod.namespace, Name: pod.name, UID: pod.uid}, Size: size, IsStatic: !spec.Lifecycle.Refresh,
	}
	// The pod's fsGroup wins over the attribute gid: all containers of the pod are members
	// of it, whatever else they run as.
	if fsGroup := request.GetVolumeCapability().GetMount().GetVolumeMountGroup(); fsGroup != "" {
		gid, err := strconv.ParseUint(fsGroup, 10, 31)
		if err != nil {
			return v, invalidField("volume_mount_group", "is not a numeric group id")
		}
		v.GID = int(gid)
	}
	var paths []string
	for _, file := range spec.Files {
		v.Files = append(v.Files, volumes.File{Path: file.Path, Perms: file.Perms})
		paths = append(paths, file.Path)
	}
	v.Inodes = tmpfs.Inodes(paths)
	return v, nil
}

func (s *NodeServer) volumeSize(spec volume.Spec) (int64, error) {
	if spec.Size > s.config.MaxVolumeSize {
		return 0, &volume.AttributeError{Key: "size", Problem: fmt.Sprintf("%d bytes is more than the %d that this cluster allows for a volume (the driver's --max-volume-size)", spec.Size, s.config.MaxVolumeSize)}
	}
	return cmp.Or(spec.Size, s.config.VolumeSize), nil
}

func (s *NodeServer) providerRequest(logger klog.Logger, request *csi.NodePublishVolumeRequest, pod volumeContext, spec volume.Spec, size int64) (provider.Request, error) {
	wanted := provider.Request{VolumeID: request.GetVolumeId(), Pod: pod.namespace + "/" + pod.name, Size: size}
	secret := newSecretKeys(request.GetSecrets())
	if spec.HasToken() && s.config.Vault.ForbidTokenFile {
		return wanted, invalidAttribute("token-file", "is forbidden in this cluster (--forbid-token-file); let a template write the secrets themselves")
	}
	var err error
	if wanted.Files, err = fileSpecs(spec, secret); err != nil {
		return wanted, err
	}
	for i := range wanted.Files {
		template := &wanted.Files[i].Template
		if template.Pod, err = s.templatePod(template.Text, pod, spec, secret); err != nil {
			return wanted, err
		}
	}
	if wanted.Endpoint, err = s.config.Vault.resolveEndpoint(spec.Server, secret); err != nil {
		return wanted, err
	}
	if wanted.Login, err = login(request, pod, spec.Auth, secret, s.config.Vault.foreign(wanted.Endpoint.Address)); err != nil {
		return wanted, err
	}
	wanted.Options = sessionOptions(logger, spec)
	wanted.Refresh = s.config.refreshPolicy(logger, spec.Lifecycle)
	return wanted, nil
}

// templatePod is what a template may know of the pod. The node's own address is the only
// thing in it that a pod could not say by itself. The cluster's CA certificate is there only
// for a template that may name it.
func (s *NodeServer) templatePod(text string, pod volumeContext, spec volume.Spec, secret secretKeys) (provider.Pod, error) {
	known := provider.Pod{
		MountPath:   spec.MountPath,
		Environment: map[string]string{"NAMESPACE": pod.namespace, "POD_NAME": pod.name, "HOST_IP": s.config.HostIP},
		SecretKeys:  secret,
	}
	if !strings.Contains(text, path.Base(volume.ClusterCA)) {
		return known, nil
	}
	var err error
	known.ClusterCA, err = s.config.Vault.clusterCA(volume.ClusterCA)
	return known, err
}

// login is what the volume shows to Vault: the pod's tokens, or an AppRole's two
// halves from its Secret.
// address is empty for the driver's own Vault.
func login(request *csi.NodePublishVolumeRequest, pod volumeContext, auth volume.Auth, secret secretKeys, address string) (provider.Credentials, error) {
	l := provider.Credentials{Mount: auth.Path, Role: auth.Role, ServiceAccount: pod.namespace + "/" + pod.serviceAccount}
	if auth.Audience.Chosen {
		l.Audience = "audience " + auth.Audience.Name // not empty for the API server's
	}
	if auth.Type != volume.AppRole {
		tokens, err := chooseTokens(request, pod, auth.Audience, address)
		l.JWT, l.FallbackJWT = tokens.primary, tokens.fallback
		return l, err
	}
	var err error
	if l.RoleID, err = secret.get("role-id", auth.RoleID, limits.CredentialBytes); err != nil {
		return l, err
	}
	l.SecretID, err = secret.get("secret-id", auth.SecretID, limits.CredentialBytes)
	return l, err
}

// fileSpecs are what makes the files, in their order. The templates in the Secret count as
// those in the attributes do, which volume.Parse has counted alone.
func fileSpecs(spec volume.Spec, secret secretKeys) ([]provider.FileSpec, error) {
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
				return nil, invalidAttributeBecause(key, fmt.Errorf("with the templates before it, %w", err))
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

// refreshPolicy fits what a volume asks for into the limits, and logs where it had to.
func (c Config) refreshPolicy(logger klog.Logger, life volume.Lifecycle) provider.RefreshPolicy {
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

// sessionOptions clamps what a volume asks for, and logs where it did.
func sessionOptions(logger klog.Logger, spec volume.Spec) provider.ClientOptions {
	clamp := func(key string, value time.Duration, allowed volume.Range) time.Duration {
		if value == 0 {
			return 0
		}
		clamped := allowed.Clamp(value)
		if clamped != value {
			logger.Info("Attribute is out of range; the nearest value is used", "attribute", key, "asked", value.String(), "used", clamped.String())
		}
		return clamped
	}
	retries := min(spec.Server.MaxRetries, volume.MaxRetries)
	if retries != spec.Server.MaxRetries {
		logger.Info("Attribute is out of range; the nearest value is used", "attribute", "client-max-retries", "asked", spec.Server.MaxRetries, "used", retries)
	}
	switch {
	case retries == 0:
		retries = provider.NoRetries
	case retries < 0:
		retries = 0 // the default
	}
	return provider.ClientOptions{
		Namespace:  spec.Server.Namespace,
		Timeout:    clamp("client-timeout", spec.Server.Timeout, volume.ClientTimeouts()),
		MaxRetries: retries,
		MinBackoff: clamp("auth-min-backoff", spec.Auth.MinBackoff, volume.Backoffs()),
		MaxBackoff: clamp("auth-max-backoff", spec.Auth.MaxBackoff, volume.Backoffs()),
	}
}

// resolvedVolume is what a volume's attributes come to, in whichever of the two
// vocabularies they are: the driver's own, or the annotations of a pod.
type resolvedVolume struct {
	spec volume.Spec
	// sourceAnnotations are the annotations by the attributes that they stand for.
	sourceAnnotations map[string]string
	warnings          []injector.Diagnostic
}

func (s *NodeServer) describe(pod volumeContext) (resolvedVolume, error) {
	if !s.config.Annotations.IsPassthrough(pod.attributes) {
		spec, err := volume.Parse(pod.attributes)
		return resolvedVolume{spec: spec}, err
	}
	v, warnings, err := s.config.Annotations.TranslateVolume(pod.attributes, pod.namespace)
	return resolvedVolume{spec: v.Spec, sourceAnnotations: v.Sources, warnings: warnings}, err
}

// sourceError makes an error about an attribute one about the annotation that the user
// wrote. The files of a volume are known by their names.
func (v resolvedVolume) sourceError(err error) error {
	var attribute *volume.AttributeError
	if errors.As(err, &attribute) && v.sourceAnnotations[attribute.Key] != "" {
		return &volume.AttributeError{Key: v.sourceAnnotations[attribute.Key], Problem: attribute.Problem, Err: attribute.Err}
	}
	var file *provider.FileError
	if !errors.As(err, &file) || !errors.Is(err, provider.ErrTemplate) {
		return err
	}
	for _, verb := range []string{"template/", "secret/"} {
		if source := v.sourceAnnotations[verb+file.Name]; source != "" {
			return &volume.AttributeError{Key: source, Problem: err.Error()}
		}
	}
	return err
}

// logWarnings names annotations and shows no values: those may be templates.
func (v resolvedVolume) logWarnings(logger klog.Logger) {
	var names []string
	for _, warning := range v.warnings {
		names = append(names, warning.Annotation)
	}
	if len(names) > 0 {
		logger.Info("Annotations without an effect, or with another one than under the injector; see driver/injector/README.md", "annotations", slices.Compact(names))
	}
}

// vaultAudience is preferred where the CSIDriver offers it: a token for Vault is
// of no use to whoever steals it for the API server.
const vaultAudience = "vault"

// podTokens are what a volume shows Vault: the token that fits best, and the one to
// show if Vault does not take that for its audience, empty for none.
type podTokens struct{ primary, fallback string }

// chooseTokens takes the pod's tokens out of a request. Kubernetes 1.36 sends them
// among the secrets, where no user can plant one; older ones send them in the
// volume context, and replace what a user planted there.
//
// address is empty for the driver's own Vault. Any other is shown the API server's token
// only if the volume chooses it: who answers there could use it on the API server.
func chooseTokens(request *csi.NodePublishVolumeRequest, pod volumeContext, audience volume.Audience, address string) (podTokens, error) {
	text, inSecrets := request.GetSecrets()[keyTokens]
	inContext, planted := request.GetVolumeContext()[keyTokens]
	if inSecrets && planted {
		return podTokens{}, invalidAttribute(keyTokens, "is the kubelet's own and is not read from the attributes in this cluster; leave it out")
	}
	if !inSecrets {
		text = inContext
	}
	if text == "" {
		return podTokens{}, fmt.Errorf("%w: the CSIDriver object must have tokenRequests", errNoToken)
	}
	tokens, err := pickTokens(text, audience, address)
	if err != nil {
		return podTokens{}, err
	}
	if err := checkClaims(tokens.primary, pod); err != nil {
		return podTokens{}, err
	}
	if tokens.fallback == "" {
		return tokens, nil
	}
	return tokens, checkClaims(tokens.fallback, pod)
}

// pickTokens picks the one that the volume has chosen, or Vault's. A role may know
// nothing of that: the Agent shows the API server's, and where Vault has the API
// server review tokens with the very token that it was shown, no other will do.
func pickTokens(text string, audience volume.Audience, address string) (podTokens, error) {
	var tokens map[string]struct {
		Token string `json:"token"`
	}
	// The error of json may quote the token.
	if json.Unmarshal([]byte(text), &tokens) != nil {
		return podTokens{}, fmt.Errorf("%w: what came is not a JSON object of tokens", errNoToken)
	}
	switch forVault, forServer := tokens[vaultAudience].Token, tokens[""].Token; {
	case audience.Chosen && tokens[audience.Name].Token != "":
		return podTokens{primary: tokens[audience.Name].Token}, nil
	case audience.Chosen:
		return podTokens{}, invalidAttribute("audience", "%s is not among the audiences that the CSIDriver's tokenRequests offer: %s", quote(audience.Name), quoteList(slices.Sorted(maps.Keys(tokens))))
	case forVault != "" && address != "":
		return podTokens{primary: forVault}, nil
	case forVault != "":
		return podTokens{primary: forVault, fallback: forServer}, nil
	case forServer != "" && address != "":
		return podTokens{}, invalidAttribute("audience", "is missing: of the tokens that the CSIDriver's tokenRequests offer, the only one for Vault is the API server's own, and %s is not the driver's own Vault; set audience to \"\" to show it that token", limits.Truncate(address, quotedBytes))
	case forServer != "":
		return podTokens{primary: forServer}, nil
	}
	return podTokens{}, fmt.Errorf("%w: the CSIDriver's tokenRequests offer neither the audience %q nor the API server's own; choose one of %s with the attribute audience", errNoToken, vaultAudience, quoteList(slices.Sorted(maps.Keys(tokens))))
}

// podClaims are what the API server writes into the token of a pod.
type podClaims struct {
	Kubernetes struct {
		Namespace string `json:"namespace"`
		Pod       struct {
			Name string `json:"name"`
			UID  string `json:"uid"`
		} `json:"pod"`
		ServiceAccount struct {
			Name string `json:"name"`
		} `json:"serviceaccount"`
	} `json:"kubernetes.io"`
}

// checkClaims holds a token against the pod that the kubelet names. Whether the
// token is genuine is for Vault to say; this keeps one pod's token from opening
// another pod's volume, should the two ever be mixed up on the way.
func checkClaims(token string, pod volumeContext) error {
	// Every algorithm that an API server may sign with.
	parsed, err := jwt.ParseSigned(token, []jose.SignatureAlgorithm{jose.RS256, jose.RS384, jose.RS512, jose.ES256, jose.ES384, jose.ES512, jose.PS256, jose.PS384, jose.PS512, jose.EdDSA})
	if err != nil {
		// The error may quote the token.
		return fmt.Errorf("%w: what came is not a signed JWT", errNoToken)
	}
	var claims podClaims
	if parsed.UnsafeClaimsWithoutVerification(&claims) != nil {
		return fmt.Errorf("%w: the claims of what came are no JSON", errNoToken)
	}
	got := claims.Kubernetes
	for _, claim := range []struct{ name, token, pod string }{
		{"namespace", got.Namespace, pod.namespace},
		{"pod", got.Pod.Name, pod.name},
		{"pod uid", got.Pod.UID, pod.uid},
		{"service account", got.ServiceAccount.Name, pod.serviceAccount},
	} {
		if claim.token != claim.pod {
			return fmt.Errorf("%w: the token is for the %s %s and the volume for %s", errNoToken, claim.name, quote(claim.token), quote(claim.pod))
		}
	}
	return nil
}
