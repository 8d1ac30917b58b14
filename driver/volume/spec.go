// Package volume is the vocabulary of a vaultmount volume: the attributes that
// a pod's spec.volumes[].csi.volumeAttributes may hold, checked and typed.
//
// It translates text into a Spec and back and does nothing else: no file, no
// network, no clock, and it never sees a token or a secret value.
package volume

import (
	"slices"
	"time"
)

// AuthType is one of Vault's auth methods.
type AuthType string

// The values of the attribute auth-type.
const (
	// Kubernetes has Vault ask the API server about the pod's token.
	Kubernetes AuthType = "kubernetes"
	// JWT has Vault check the signature of the pod's token by itself.
	JWT AuthType = "jwt"
	// AppRole takes a role id and a secret id from the volume's Secret.
	AppRole AuthType = "approle"
)

// Audience chooses among the service-account tokens that the kubelet offers.
// The zero value leaves the choice to the driver; Chosen with an empty Name
// means the API server's own audience.
type Audience struct {
	Name   string
	Chosen bool
}

// Owner says who owns the files of a volume. A negative id means "not set".
type Owner struct {
	UID, GID int64
}

// File is one file of a volume. Exactly one of Secret, Template, TemplateKey and
// Token is set.
type File struct {
	// Path is relative to the volume, clean, and never starts with "..".
	Path string
	// Secret is a Vault path, written with the volume's default template.
	Secret string
	// Template is the text of a consul-template template.
	Template string
	// TemplateKey names the key of the volume's Secret that holds the template.
	TemplateKey string
	// Token means that the file holds the volume's Vault token and nothing else. At
	// most one file does.
	Token bool
	// Perms are the permission bits, 0 to 0777.
	Perms uint32
	// ErrorOnMissingKey refuses a template that names a key the secret lacks,
	// instead of writing "<no value>".
	ErrorOnMissingKey bool
	// LeftDelim and RightDelim are empty for "{{" and "}}".
	LeftDelim, RightDelim string
}

// Auth is how a volume enters Vault.
type Auth struct {
	Type AuthType
	// Path is the path of the auth method with its leading "auth/".
	Path string
	// Role is the Vault role; a jwt mount may have a default one.
	Role     string
	Audience Audience
	// RoleID and SecretID name the keys of the volume's Secret that hold an
	// AppRole's two halves.
	RoleID, SecretID string
	// MinBackoff and MaxBackoff bound the waits between attempts to log in; 0
	// leaves them to the driver.
	MinBackoff, MaxBackoff time.Duration
}

// The authorities of the cluster itself, as ca-cert names them: the API server's,
// and OpenShift's for Services.
const (
	ClusterCA = "/var/run/secrets/kubernetes.io/serviceaccount/ca.crt"
	ServiceCA = "/var/run/secrets/kubernetes.io/serviceaccount/service-ca.crt"
)

// Server is which Vault a volume talks to, and how. The zero value is the
// driver's own choice.
type Server struct {
	// Address and Proxy are URLs, and must be on the driver's allow-lists.
	Address, Proxy string
	Namespace      string
	// ServerName is the name that the server's certificate must have, if it is not
	// the address's.
	ServerName string
	SkipVerify bool
	// CACert, ClientCert and ClientKey name keys of the volume's Secret. CACert may
	// be ClusterCA or ServiceCA in place of a key.
	CACert, ClientCert, ClientKey string
	// Timeout bounds a request with its retries; 0 leaves it to the driver.
	Timeout time.Duration
	// MaxRetries is negative where the driver decides.
	MaxRetries int
}

// Lifecycle is how long what the files show may stay as it is, and what becomes
// of it when the volume is gone.
type Lifecycle struct {
	// Refresh is false for files that are written once and not again.
	Refresh bool
	// StaticInterval is the time between two reads of a secret without a lease; 0
	// leaves it to the driver.
	StaticInterval time.Duration
	// RenewalThreshold is the part of a lease that cannot be renewed, above 0 and
	// up to 1, after which the secret is read again; 0 leaves it to the driver.
	RenewalThreshold float64
	Revocation       Revocation
}

// Revocation says what becomes of the volume's Vault token, and of the leases
// under it, when the volume is unpublished.
type Revocation string

// The values of the attribute revoke-on-unpublish.
const (
	// DriversRevocation is that of a volume that does not say.
	DriversRevocation Revocation = ""
	// Revoke gives the token back to Vault.
	Revoke Revocation = "true"
	// Keep leaves the token and its leases to expire.
	Keep Revocation = "false"
)

// Spec is what one volume should hold. Parse makes it, nothing changes it
// afterwards, so it may be shared between goroutines.
type Spec struct {
	Auth   Auth
	Server Server
	// DefaultTemplate is the format of files that name a Secret: Map or JSON.
	DefaultTemplate Format
	Owner           Owner
	// Size limits the tmpfs in bytes; 0 leaves it to the driver.
	Size int64
	// MountPath is where containers see the volume, for templates that write files
	// by an absolute path; clean, and empty for DefaultMountPath.
	MountPath string
	Lifecycle Lifecycle
	// Files are sorted by Path; there is at least one.
	Files []File
}

// HasToken says whether a file holds the Vault token.
func (s Spec) HasToken() bool {
	return slices.ContainsFunc(s.Files, func(f File) bool { return f.Token })
}

// Text returns the template that renders the file; it is empty for one whose
// content is not in the attributes: of a TemplateKey or a Token.
func (s Spec) Text(file File) string {
	if file.Secret == "" {
		return file.Template
	}
	return s.DefaultTemplate.Text(file.Secret)
}
