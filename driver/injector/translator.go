// Package injector translates the annotations of the Vault Agent Injector into
// vaultmount volumes, so that manifests written for the injector work unchanged.
//
// It computes a result from a pod and the administrator's settings. It never reads a
// file, the network or a clock, never sees a token or the value of a secret, and never
// parses a template. It never ignores an annotation in silence: each one is supported,
// mapped, ignored with a warning, or rejected. Of this module it imports driver/volume
// and provider/limits.
package injector

import (
	"cmp"
	"maps"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/vaultmount/vaultmount/driver/volume"
	"github.com/vaultmount/vaultmount/provider/limits"
)

// DefaultPrefix and DefaultDriver are the prefix of the annotations and the name of the
// CSIDriver object that a Translator without others uses.
const (
	DefaultPrefix = "vault.hashicorp.com/"
	DefaultDriver = "csi.vaultmount.dev"
)

// statusInjected is the only value of agent-inject-status with a meaning.
const statusInjected = "injected"

// Translator holds the administrator's settings. The zero value is usable. It may be
// used concurrently.
type Translator struct {
	// Prefix of the annotations, with its slash, and the name of the CSIDriver object.
	Prefix, Driver string
	// Fallback decides about a pod that cannot be translated in full.
	Fallback Fallback
	// Address is the URL of the driver's Vault. A pod that names it gets no address.
	Address string
	// AuthPath is for pods that name none; by default "auth/kubernetes".
	AuthPath string
	// DefaultTemplate is for pods that name none; by default volume.Map.
	DefaultTemplate volume.Format
	// Audiences are those of the CSIDriver's tokenRequests. If it is nil, the driver
	// checks the audience when the pod starts.
	Audiences []string
	// AllowUnknownPerms accepts, with a warning, permissions for a file that no
	// annotation asks for, and AllowQuit accepts agent-enable-quit.
	AllowUnknownPerms, AllowQuit bool
	// ForbidToken rejects agent-inject-token, and ForbidSkipVerify tls-skip-verify. They
	// are for a driver with --forbid-token-file and --forbid-tls-skip-verify.
	ForbidToken, ForbidSkipVerify bool
	// NoSecurityContext makes false the default of agent-set-security-context, as the
	// injector has it on OpenShift: files then belong to the pod's own user.
	NoSecurityContext bool
	// CheckTemplate, if set, returns the driver's error for the template of a file. Only
	// the command sets it: templates are untrusted, and in a cluster only sandboxed
	// processes of the driver parse them.
	CheckTemplate func(file volume.File, text, mountPath string) error `json:"-"`
}

// Fallback decides about a pod that cannot be translated in full.
type Fallback string

// The fallbacks. The zero value is FallbackReject.
const (
	FallbackReject Fallback = "reject"            // the pod does not start
	FallbackLeave  Fallback = "leave-to-injector" // the pod is unchanged, for an injector in the same cluster
	FallbackWarn   Fallback = "warn"              // the pod starts without the files of rejected annotations
)

// Decision is what happens to a pod.
type Decision string

// The decisions.
const (
	Skip            Decision = "skip"              // the pod does not ask for secrets, or is translated already
	Translate       Decision = "translate"         // the patch changes the pod
	Reject          Decision = "reject"            // the pod must not start, because of the errors
	LeaveToInjector Decision = "leave-to-injector" // the pod is unchanged, because of the warnings
)

// Result is the outcome for one pod.
type Result struct {
	Decision Decision
	// Volumes and Patch are empty unless the decision is Translate. The patch changes
	// the pod from which the PodInfo was decoded.
	Volumes []Volume
	Patch   []Operation
	// Warnings and Errors are sorted by annotation, together at most
	// limits.Diagnostics. More counts the further annotations with diagnostics.
	Warnings, Errors []Diagnostic
	More             int
}

// Volume is one CSI volume of the pod.
type Volume struct {
	Name      string
	MountPath string
	// Attributes are the volumeAttributes, and Spec is what they mean.
	Attributes map[string]string
	Spec       volume.Spec
	// SecretName is the Secret whose keys the attributes name, empty if they name none.
	SecretName string
	// Sources are the annotations, with their prefix, by the attributes that they set
	// or would change.
	Sources map[string]string
	// pathSource is the annotation that changes the mount path.
	pathSource string
}

// translation is the work on one pod.
type translation struct {
	settings  Translator
	pod       PodInfo
	namespace string
	values    map[string]string // the annotations under the prefix, without it
	names     []string          // their names, sorted
	table     []row
	rows      map[string]match // of the names that the injector knows
	// authConfigs are the first annotations of each setting of a login.
	authConfigs map[string]string
	podVolumes  map[string]*PodVolume
	// format and directory are the defaults of the pod's files.
	format    volume.Format
	directory string
	// attributes are those of every volume, and owner those that a JSON patch sets.
	attributes, owner map[string]attribute
	// needed are the annotations with a Secret that others name a key of.
	needed           map[string]bool
	warnings, errors []Diagnostic
	// more are annotations with diagnostics above the limit.
	more map[string]bool
}

// attribute is a value for a volume, and the annotation that it comes from.
type attribute struct {
	value, source string
}

// Translate returns what the annotations of a pod ask for. The namespace is that of the
// request: in admission a pod need not name its own. It is empty if it is unknown.
func (s Translator) Translate(pod PodInfo, namespace string) Result {
	t := s.start(pod, namespace)
	if !t.wantsInjection() {
		return t.result(Skip, nil)
	}
	if !t.isWithinLimits() {
		return t.result(Translate, nil)
	}
	t.index()
	t.handleAnnotations()
	files := t.files()
	volumes := t.volumes(files)
	patch := t.patch(volumes)
	if len(files) == 0 && len(t.errors) == 0 {
		t.warn(nameInject,
			"no annotation asks for a file, so the pod gets no volume and the others have no effect; add "+
				"agent-inject-secret-FILE or agent-inject-template-FILE")
	}
	result := t.result(Translate, volumes)
	if result.Decision == Translate {
		result.Patch = patch
	}
	return result
}

func (s Translator) withDefaults() Translator {
	s.Prefix = cmp.Or(s.Prefix, DefaultPrefix)
	s.Driver = cmp.Or(s.Driver, DefaultDriver)
	s.Fallback = cmp.Or(s.Fallback, FallbackReject)
	s.AuthPath = cmp.Or(s.AuthPath, volume.Kubernetes.DefaultPath())
	s.DefaultTemplate = cmp.Or(s.DefaultTemplate, volume.Map)
	return s
}

func (s Translator) start(pod PodInfo, namespace string) *translation {
	t := &translation{
		settings: s.withDefaults(), pod: pod, namespace: namespace,
		values: map[string]string{}, attributes: map[string]attribute{}, owner: map[string]attribute{},
		needed: map[string]bool{}, more: map[string]bool{},
	}
	for key, value := range pod.Metadata.Annotations {
		if name, ours := strings.CutPrefix(key, t.settings.Prefix); ours {
			t.values[name] = value
		}
	}
	t.names = slices.Sorted(maps.Keys(t.values))
	return t
}

// index computes once what is looked up for each file, container or annotation. The
// annotations are within the limits.
func (t *translation) index() {
	t.table, t.rows, t.authConfigs = annotationTable(), map[string]match{}, map[string]string{}
	for _, name := range t.names {
		m, ok := findRow(t.table, name)
		if !ok {
			continue
		}
		t.rows[name] = m
		if key := authConfigKey(name); m.family == familyAuthConfig && t.authConfigs[key] == "" {
			t.authConfigs[key] = name
		}
	}
	t.podVolumes = map[string]*PodVolume{}
	for i := range t.pod.Spec.Volumes {
		if v := &t.pod.Spec.Volumes[i]; t.podVolumes[v.Name] == nil {
			t.podVolumes[v.Name] = v
		}
	}
	t.format = t.settings.DefaultTemplate
	if value := t.values[nameDefaultTemplate]; value != "" {
		t.format = volume.Format(strings.ToLower(value))
	}
	t.directory, _ = t.mountPath(nameVolumePath, volume.DefaultMountPath) // volumes reports the error
}

// isWithinLimits rejects annotations that are too many or too long. In admission
// Kubernetes has not checked them yet. Everything after it may iterate over them several
// times, but never over all of them for each one.
func (t *translation) isWithinLimits() bool {
	if err := limits.Annotations.Check(len(t.values)); err != nil {
		t.reject(nameInject, "%v; remove some", err)
		return false
	}
	total, files := 0, map[string]bool{}
	for _, name := range t.names {
		total += len(t.settings.Prefix) + len(name) + len(t.values[name])
		if err := limits.AnnotationNameBytes.Check(len(name)); err != nil {
			t.reject(name, "the name: %v; shorten it, and name the file with %sX", err, familyFile)
			continue
		}
		for _, family := range []string{familySecret, familyTemplateFile, familyTemplate} {
			if suffix, ok := strings.CutPrefix(name, family); ok {
				files[suffix] = true
				break
			}
		}
	}
	if err := limits.AnnotationsBytes.Check(total); err != nil {
		t.reject(nameInject, "all annotations together: %v; shorten or remove some", err)
	}
	if err := limits.Files.Check(len(files)); err != nil {
		t.reject(nameInject, "%v; let a template write several files with writeToFile, or use several pods", err)
	}
	return len(t.errors) == 0
}

// wantsInjection makes the checks of the injector in its order: the switch, the mark,
// the phase, and only then the namespace.
func (t *translation) wantsInjection() bool {
	value, present := t.values[nameInject]
	inject, err := parseBoolean(value)
	phase, os := t.pod.Status.Phase, t.pod.Spec.OS
	switch {
	case !present:
		return false
	case err != nil:
		t.reject(nameInject, "%v", err)
	case inject == "false" || t.alreadyInjected() || phase != "" && phase != corev1.PodPending:
		return false
	case slices.Contains([]string{"kube-system", "kube-public"}, t.namespace):
		t.reject(nameInject, "cannot inject into system namespaces: %s", t.namespace)
	case os != nil && os.Name == corev1.Windows:
		t.reject(nameInject, "the driver runs on Linux nodes only; leave the annotation out of pods for Windows")
	}
	return len(t.errors) == 0
}

// alreadyInjected recognizes a pod that the injector or this package has changed. A
// manifest that was exported from a live pod carries the mark as well.
func (t *translation) alreadyInjected() bool {
	marked := t.values[nameStatus] == statusInjected
	translated := slices.ContainsFunc(t.pod.Spec.Volumes, func(v PodVolume) bool {
		return v.CSI != nil && v.CSI.Driver == t.settings.Driver && (v.Name == volumeName || strings.HasPrefix(v.Name, customVolumeName))
	})
	hasAgent := slices.ContainsFunc(slices.Concat(t.pod.Spec.Containers, t.pod.Spec.InitContainers), func(c PodContainer) bool {
		return c.Name == "vault-agent" || c.Name == "vault-agent-init"
	})
	switch {
	case marked && !translated && !hasAgent:
		t.warn(nameStatus, "the pod is marked as injected but has no secrets volume; leave the annotation out to have one")
	case translated && !marked:
		t.warn(nameInject,
			"the pod has a volume of %s already, so its annotations are not read; leave the volume or the annotations out",
			t.settings.Driver)
	}
	return marked || translated
}

// result applies the fallback to the errors.
func (t *translation) result(decision Decision, volumes []Volume) Result {
	sortDiagnostics(t.warnings)
	sortDiagnostics(t.errors)
	t.truncateWarnings()
	result := Result{Decision: decision, Volumes: volumes, Warnings: t.warnings, Errors: t.errors, More: len(t.more)}
	if len(t.errors) == 0 {
		return result
	}
	switch t.settings.Fallback {
	case FallbackWarn:
		result.Warnings, result.Errors = sortDiagnostics(slices.Concat(t.warnings, t.errors)), nil
	case FallbackLeave:
		warnings := sortDiagnostics(slices.Concat(t.warnings, t.errors))
		return Result{Decision: LeaveToInjector, Warnings: warnings, More: result.More}
	default:
		result.Decision, result.Volumes = Reject, nil
	}
	return result
}
