// Package injector translates the annotations of the Vault Agent Injector into
// vaultmount volumes, so that manifests written for the injector work unchanged.
//
// It computes from a pod and the administrator's settings, and does nothing
// else: no file, no network, no clock, and it never sees a token or a secret
// value. It never changes the pod that it is given, and it never passes over an
// annotation in silence: each one is honoured, warned about or refused.
package injector

import "github.com/vaultmount/vaultmount/driver/volume"

// The annotations' prefix and the driver's name, unless settings say otherwise.
const (
	DefaultPrefix = "vault.hashicorp.com/"
	DefaultDriver = "csi.vaultmount.dev"
)

// Translator holds the administrator's settings. The zero value is usable.
type Translator struct {
	// Prefix of the annotations, with its slash: OpenBao's injector has its own.
	Prefix string
	// Driver is the name of the CSIDriver object.
	Driver string
	// Fallback says what becomes of a pod that cannot be translated.
	Fallback Fallback
	// Address is that of the driver's Vault. Of any other that a pod names, the
	// driver decides by its own list.
	Address string
	// AuthPath is for pods that name none.
	AuthPath string
	// DefaultTemplate is for pods that name none.
	DefaultTemplate volume.Format
	// Audiences are those of the CSIDriver's tokenRequests. Without them the
	// choice is checked by the driver when the pod starts.
	Audiences []string
	// AllowUnknownPerms turns the refusal of permissions that belong to no file
	// into a warning.
	AllowUnknownPerms bool
	// ForbidToken refuses agent-inject-token, and ForbidSkipVerify tls-skip-verify.
	// They are for a driver that refuses such volumes (--forbid-token-file,
	// --forbid-tls-skip-verify), which a pod would meet only when it starts.
	ForbidToken, ForbidSkipVerify bool
	// AllowQuit turns the refusal of agent-enable-quit into a warning.
	AllowQuit bool
	// NoSecurityContext turns agent-set-security-context off for pods that do not
	// name it, so that files belong to the pod's own user. That is how the injector is
	// set up on OpenShift.
	NoSecurityContext bool
	// CheckTemplates parses the templates of a pod and refuses those that the driver
	// would refuse. The text is a tenant's, so only the command does it: the driver
	// parses templates in processes of their own, and the webhook leaves them to it.
	CheckTemplates bool
}

// Fallback says what becomes of a pod that cannot be translated in full.
type Fallback string

// The fallbacks. The zero value is FallbackReject.
const (
	// FallbackReject keeps the pod from starting.
	FallbackReject Fallback = "reject"
	// FallbackLeave leaves the pod as it is, for the injector that runs beside.
	FallbackLeave Fallback = "leave-to-injector"
	// FallbackWarn goes on without what is refused, and without the files whose
	// annotations are refused.
	FallbackWarn Fallback = "warn"
)

// Decision is what should become of a pod.
type Decision string

// The decisions.
const (
	// Skip: the pod does not ask, or has been translated before.
	Skip Decision = "skip"
	// Translate: the pod should be changed by Apply.
	Translate Decision = "translate"
	// Reject: the pod should not start, for what is in Errors.
	Reject Decision = "reject"
	// LeaveToInjector: the pod is the injector's, for what is in Warnings.
	LeaveToInjector Decision = "leave-to-injector"
)

// Result is what the annotations of one pod come to.
type Result struct {
	Decision Decision
	// Volumes and Mounts are empty unless the decision is Translate.
	Volumes []Volume
	Mounts  []Mount
	// ShareProcessNamespace is to be set in the pod.
	ShareProcessNamespace bool
	// Warnings and Errors are in the order of the annotations' names, together at
	// most limits.Diagnostics. More is how many further annotations have some.
	Warnings []Diagnostic
	Errors   []Diagnostic
	More     int
}

// Volume is one CSI volume of the pod.
type Volume struct {
	Name      string
	MountPath string
	Spec      volume.Spec
	// SecretName is the Secret whose keys the Spec names, empty if it names none.
	SecretName string
	// Origins are the annotations, with their prefix, by the attributes of the Spec
	// that they make or would change.
	Origins map[string]string
	// pathOrigin is the annotation to change for another mount path.
	pathOrigin string
}

// Mount puts a volume into a container or an init container.
type Mount struct {
	Container string
	Volume    string
	MountPath string
}
