package provider

import (
	"context"
	"errors"
	"strings"
	"time"

	"github.com/vaultmount/vaultmount/provider/template"
	"github.com/vaultmount/vaultmount/provider/vault"
)

// The kinds of errors, for errors.Is.
var (
	// ErrTemplate is for a template that fails with any secrets.
	ErrTemplate = template.ErrInvalid
	// ErrData is for a template that does not fit the secrets it reads.
	ErrData = template.ErrData
	// ErrRendererUnavailable is for templates that another attempt may render.
	ErrRendererUnavailable = template.ErrUnavailable
	// ErrInvalid is for a request that no Vault can answer.
	ErrInvalid = vault.ErrInvalid
	// ErrRefused is for Vault's refusal with a reason: another attempt has the same result.
	ErrRefused = vault.ErrRefused
	// ErrNotFound is for a secret that does not exist.
	ErrNotFound = vault.ErrNotFound
	// ErrFull is for files that are larger than the volume.
	ErrFull = errors.New("the files do not fit into the volume")
	// ErrTooLarge is for responses of Vault that exceed the limits of a volume.
	ErrTooLarge = vault.ErrTooLarge
	// ErrUnavailable is for anything that another attempt may bring.
	ErrUnavailable = vault.ErrUnavailable
	// ErrClosed is for a volume that is not mounted.
	ErrClosed = errors.New("the volume is closed")
)

// The types that come from the packages below.
type (
	// Credentials are what a pod logs in to Vault with.
	Credentials = vault.Credentials
	// Endpoint is the address of a Vault, with its proxy and certificates.
	Endpoint = vault.Endpoint
	// ClientOptions are the timeouts and retries of requests to Vault.
	ClientOptions = vault.ClientOptions
	// Template is the program of one file.
	Template = template.Template
	// Pod is what templates may know of the pod besides secrets.
	Pod = template.Pod
	// WrittenFile is a file that a template makes beside its own.
	WrittenFile = template.WrittenFile
	// FileError names the file that cannot be made.
	FileError = template.FileError
)

// NoRetries is for ClientOptions.MaxRetries.
const NoRetries = vault.NoRetries

// FileSpec is one file of a volume: the output of a template, or the Vault token itself.
type FileSpec struct {
	Template Template
	// Token is true for the token. Of Template, only the name has a meaning then.
	Token bool
}

// RenderedFile is the content of one file.
type RenderedFile struct {
	Content []byte
	// Written are further files of the volume. The template of a pod's author made them:
	// nobody has checked their paths.
	Written []WrittenFile
}

// Request is what a volume needs.
type Request struct {
	// VolumeID names the volume in logs.
	VolumeID string
	// Pod is "namespace/name". Limits and queues count the work for its namespace.
	Pod      string
	Endpoint Endpoint
	Options  ClientOptions
	Login    Credentials
	// Files are rendered together, in order.
	Files []FileSpec
	// Size is how many bytes the files may have together; 0 for no limit.
	Size    int64
	Refresh RefreshPolicy
}

// namespaceOf takes a pod as Request.Pod has it.
func namespaceOf(pod string) string {
	namespace, _, _ := strings.Cut(pod, "/")
	return namespace
}

// RefreshPolicy says how the files of a volume are kept up to date.
type RefreshPolicy struct {
	// Disabled leaves the files as they were first written. Leases and the token are
	// renewed for as long as Vault allows.
	Disabled bool
	// StaticInterval is the time between two reads of a secret without a lease, less
	// jitter. Default DefaultInterval.
	StaticInterval time.Duration
	// LeaseRenewalThreshold is the part of its lifetime after which a secret that cannot be
	// renewed is fetched again, above 0 and up to 1. Default DefaultThreshold.
	LeaseRenewalThreshold float64
	// SkipRevoke leaves the Vault token, and the leases under it, to expire when the volume
	// is closed.
	SkipRevoke bool
}

const (
	// DefaultInterval is the Vault Agent's.
	DefaultInterval = 5 * time.Minute
	// DefaultThreshold is the Vault Agent's.
	DefaultThreshold = 0.9
	// MinInterval is the shortest StaticInterval.
	MinInterval = 10 * time.Second
)

func (p RefreshPolicy) withDefaults() RefreshPolicy {
	if p.StaticInterval <= 0 {
		p.StaticInterval = DefaultInterval
	}
	if p.LeaseRenewalThreshold <= 0 {
		p.LeaseRenewalThreshold = DefaultThreshold
	}
	return p
}

// Renderer executes templates, which are programs of a pod's author. It may be used
// concurrently.
type Renderer interface {
	// Render executes the templates of one volume with the values at hand, in order. A
	// template that fails ends it with a FileError, of a kind of template.Execute or
	// ErrRendererUnavailable.
	Render(ctx context.Context, templates []template.Template, values template.Values) ([]template.Result, error)
}

// Store keeps records for the next process. It must be as safe as the volumes themselves:
// records hold Vault tokens. It may be used concurrently.
type Store interface {
	// Save replaces the record of a key, as a whole or not at all. Keys are letters and
	// digits with hyphens between.
	Save(key string, record []byte) error
	// Delete succeeds if there is no such record.
	Delete(key string) error
	// Load returns the records whose keys start with prefix.
	Load(prefix string) (map[string][]byte, error)
}

// Sink is the driver's side of one volume. The volume calls one method at a time. No
// method may call Volume.Close or Manager.Shutdown.
type Sink interface {
	// Replace swaps all files of the volume at once, in the order of Request.Files.
	// ErrClosed says that the volume is not mounted, which is no failure.
	Replace(files []RenderedFile) error
	// Save keeps the provider's half of the volume's record, as a whole or not at all. It
	// holds Vault tokens and secret values. The first call comes before Publish returns, so
	// that the next process can revoke the token. The driver limits the size.
	Save(record []byte) error
	// Refreshed is told the result of each refresh: why the files may have been older than
	// Vault's content before, and why they may be now; nil for no reason. See SameKind.
	Refreshed(before, now error)
}

// Status is a snapshot of one volume. It holds no token and no secret value.
type Status struct {
	VolumeID string
	Pod      string
	// Session is the volume's own. Of a volume that only needs a shared one, it has no
	// token.
	Session SessionStatus
	// Shared is the session that the volume shares with others; nil for none.
	Shared *SessionStatus
	// Refreshed is the time of the last refresh without an error. Next is when the next one
	// is due: never if it is zero, and in progress if it is not in the future.
	Refreshed, Next time.Time
	// Err is why the files may be older than Vault's content, nil if they are not.
	Err error
	// Leases counts the leases that the volume keeps.
	Leases int
	// Secrets are the dependencies of the templates, in the order of their paths.
	Secrets []SecretStatus
	// Unsaved is true if the last record could not be saved.
	Unsaved bool

	since       bootTime // of Refreshed, or when this process got to know the volume
	next        bootTime
	queuedSince bootTime // its refresh waits; 0 if it does not
}

// SessionStatus is the login of one volume, or of several if it is a shared one.
type SessionStatus struct {
	Address, Namespace, Mount, Role string
	// Since is when Vault issued the token, and Expires when it ends unless it is renewed,
	// zero for never. Both are zero without a token.
	Since, Expires time.Time
	// Logins counts the tokens so far.
	Logins int
	// Pods counts those that share it.
	Pods int
	// Err is why there is no token, or why it is not renewed.
	Err error
}

func (s SessionStatus) isUsed() bool { return s.Logins > 0 || s.Err != nil }

// SecretStatus is one dependency of a volume.
type SecretStatus struct {
	// Path is hidden if it may hold the value of a secret.
	Path string
	Verb template.Verb
	// At is when it is renewed or fetched next; zero for never.
	At time.Time
	// Expires is when its lease ends unless it is renewed; zero for no lease.
	Expires   time.Time
	Renewable bool
	// Err is why the last attempt failed, or why the files cannot be made of the value.
	Err error
}

// Stats sum a node up.
type Stats struct {
	// Volumes are all, and Failing those whose files may be older than Vault's content.
	Volumes, Failing int
	// Sessions have logged in or tried to, SessionsFailing cannot get or renew a token, and
	// SessionsShared are those of several pods. VolumesSharing use one of these.
	Sessions, SessionsFailing, SessionsShared int
	VolumesSharing                            int
	Leases                                    int
	// PendingRevocations are tokens that wait to be revoked.
	PendingRevocations int
	// Unsaved counts the namespaces with a record that could not be saved.
	Unsaved int
	// QueueLag is how long the most overdue refresh has waited. OldestFailure is the longest
	// time since a failing volume had no error.
	QueueLag, OldestFailure time.Duration
	// BreakerOpen tells for the address of each Vault whether its circuit breaker is open.
	BreakerOpen map[string]bool
}

// Sharing says which pods share a Vault token.
type Sharing string

const (
	// ShareNothing gives each volume a token of its own. It is the default.
	ShareNothing Sharing = "none"
	// ShareServiceAccount gives one token to the pods of a service account that log in to
	// the same Vault in the same way, and reads KV secrets once for all of them. A volume
	// logs in by itself besides if it needs what Vault makes for it alone, or shows the
	// token in a file.
	ShareServiceAccount Sharing = "serviceaccount"
)
