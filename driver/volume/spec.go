// Package volume parses the attributes of a volume, which a pod has in
// spec.volumes[].csi.volumeAttributes, into a Spec. It checks each attribute within its limit.
//
// It does no I/O, reads no clock, and never sees a token or a secret value. It imports
// provider/limits of this module.
package volume

import (
	"slices"
	"time"
)

// Spec is the content and the settings of one volume. Parse returns it. Nothing changes it
// afterwards, so goroutines may share it.
type Spec struct {
	Auth   Auth
	Server Server
	// DefaultTemplate is the format of files that name a Secret: Map or JSON.
	DefaultTemplate Format
	Owner           Owner
	// Size is the limit of the tmpfs in bytes; 0 for the driver's default.
	Size int64
	// MountPath is the mountPath of the volume in containers, for templates that write files
	// by an absolute path. It is clean, and empty for DefaultMountPath.
	MountPath string
	Lifecycle Lifecycle
	// Files are sorted by Path; there is at least one.
	Files []File
}

// HasToken reports whether a file holds the Vault token.
func (s Spec) HasToken() bool {
	return slices.ContainsFunc(s.Files, func(f File) bool { return f.Token })
}

// Text returns the template of the file. It is empty for a TemplateKey or a Token, whose
// content is not in the attributes.
func (s Spec) Text(file File) string {
	if file.Secret == "" {
		return file.Template
	}
	return s.DefaultTemplate.Text(file.Secret)
}

// File is one file of a volume. Exactly one of Secret, Template, TemplateKey and Token is set.
type File struct {
	// Path is relative to the volume and clean, and no part of it starts with "..".
	Path string
	// Secret is a Vault path, written with the volume's default template.
	Secret string
	// Template is the text of a consul-template template.
	Template string
	// TemplateKey names the key of the volume's Secret that holds the template.
	TemplateKey string
	// Token is true for the file that holds the Vault token. At most one file does.
	Token bool
	// Perms are the permission bits, 0 to 0777.
	Perms uint32
	// ErrorOnMissingKey rejects a key that the secret lacks. Otherwise the template writes
	// "<no value>".
	ErrorOnMissingKey bool
	// LeftDelim and RightDelim are empty for "{{" and "}}".
	LeftDelim, RightDelim string
}

// DefaultPerms is the mode of a file without the attribute perms.
const DefaultPerms = 0o644

// DefaultMountPath is the directory in which the Vault Agent Injector writes files.
const DefaultMountPath = "/vault/secrets"

// Owner is the owner and the group of the files; -1 if not set.
type Owner struct {
	UID, GID int64
}

// Auth is how a volume logs in to Vault.
type Auth struct {
	Type AuthType
	// Path is the path of the auth method with its leading "auth/".
	Path string
	// Role is the Vault role. It may be empty for a jwt mount with a default role.
	Role     string
	Audience Audience
	// RoleID and SecretID name the keys of the volume's Secret that hold the two parts of an
	// AppRole.
	RoleID, SecretID string
	// MinBackoff and MaxBackoff bound the time between two logins; 0 for the driver's default.
	MinBackoff, MaxBackoff time.Duration
}

// AuthType is one of Vault's auth methods.
type AuthType string

// The values of the attribute auth-type.
const (
	// Kubernetes makes Vault verify the pod's token with the API server.
	Kubernetes AuthType = "kubernetes"
	// JWT makes Vault verify the signature of the pod's token.
	JWT AuthType = "jwt"
	// AppRole takes a role id and a secret id from the volume's Secret.
	AppRole AuthType = "approle"
)

// DefaultPath is the path of the auth method unless the volume names another.
func (t AuthType) DefaultPath() string { return "auth/" + string(t) }

// Audience chooses one of the service-account tokens that the kubelet offers. The zero value
// leaves the choice to the driver. Chosen with an empty Name is the API server's audience.
type Audience struct {
	Name   string
	Chosen bool
}

// Server is the Vault server of a volume. The zero value of a field is the driver's default.
type Server struct {
	// Address and Proxy are URLs on the driver's allow-lists.
	Address, Proxy string
	Namespace      string
	// ServerName is the name in the server's certificate; empty for the host of the address.
	ServerName string
	SkipVerify bool
	// CACert, ClientCert and ClientKey name keys of the volume's Secret. CACert may be
	// ClusterCA or ServiceCA instead.
	CACert, ClientCert, ClientKey string
	// Timeout bounds a request with its retries.
	Timeout time.Duration
	// MaxRetries is negative for the driver's default.
	MaxRetries int
}

// The CA certificates of the cluster, as ca-cert names them: those of the API server, and of
// OpenShift for Services.
const (
	ClusterCA = "/var/run/secrets/kubernetes.io/serviceaccount/ca.crt"
	ServiceCA = "/var/run/secrets/kubernetes.io/serviceaccount/service-ca.crt"
)

// IsClusterCA distinguishes the clean path of a CA certificate of the cluster from the name of
// a key, which has no slash.
func IsClusterCA(value string) bool { return value == ClusterCA || value == ServiceCA }

// Lifecycle is when files are refreshed, and whether the Vault token is revoked.
type Lifecycle struct {
	// Refresh is false for files that are written once.
	Refresh bool
	// StaticInterval is the time between two reads of a secret without a lease; 0 for the
	// driver's default.
	StaticInterval time.Duration
	// RenewalThreshold is the fraction of a lease, above 0 and up to 1, after which a secret
	// that cannot be renewed is read again; 0 for the driver's default.
	RenewalThreshold float64
	Revoke           RevokePolicy
}

// RevokePolicy says whether an unpublish revokes the volume's Vault token and its leases.
type RevokePolicy string

// The values of the attribute revoke-on-unpublish.
const (
	// RevokeDefault is the driver's default.
	RevokeDefault RevokePolicy = ""
	// Revoke revokes the token.
	Revoke RevokePolicy = "true"
	// Keep lets the token and its leases expire.
	Keep RevokePolicy = "false"
)

// Format is a built-in template.
type Format string

// The values of the attribute default-template.
const (
	// Map writes a line "key: value" for each key, in order.
	Map Format = "map"
	// JSON writes one line of JSON.
	JSON Format = "json"
)

// Text returns the built-in template for a Vault path. Its output is, byte for byte, that of
// the Vault Agent Injector, which users' programs parse.
func (f Format) Text(path string) string {
	open := `{{ with secret "` + path + `" }}`
	if f == JSON {
		return open + "{{ .Data | toJSON }}\n{{ end }}"
	}
	return open + "{{ range $k, $v := .Data }}{{ $k }}: {{ $v }}\n{{ end }}{{ end }}"
}
