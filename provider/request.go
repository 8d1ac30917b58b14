package provider

import (
	"context"
	"errors"
	"time"

	render "github.com/vaultmount/vaultmount/provider/template"
	"github.com/vaultmount/vaultmount/provider/vault"
)

// The kinds of failure of Open, for errors.Is.
var (
	// ErrTemplate is a template that no data can make good.
	ErrTemplate = render.ErrInvalid
	// ErrData is a template that does not fit the secrets it names.
	ErrData = render.ErrData
	// ErrRendererUnavailable is a template that may be rendered in a moment.
	ErrRendererUnavailable = render.ErrUnavailable
	// ErrInvalid is a request that no Vault could answer.
	ErrInvalid = vault.ErrInvalid
	// ErrRefused is Vault's refusal with a reason: asking again changes nothing.
	ErrRefused = vault.ErrRefused
	// ErrNotFound is a secret that is not there.
	ErrNotFound = vault.ErrNotFound
	// ErrFull is files that are larger than the volume.
	ErrFull = errors.New("the files do not fit into the volume")
	// ErrTooLarge is more of Vault than a volume may keep.
	ErrTooLarge = vault.ErrTooLarge
	// ErrUnavailable is anything that may be otherwise in a moment.
	ErrUnavailable = vault.ErrUnavailable
)

// Login is what a pod shows to Vault.
type Login = vault.Credentials

// Endpoint is one way to one Vault.
type Endpoint = vault.Endpoint

// ClientOptions are how patient a session is.
type ClientOptions = vault.ClientOptions

// NoRetries is for Options.MaxRetries.
const NoRetries = vault.NoRetries

// Template is the program of one file.
type Template = render.Template

// Pod is what templates may know of the pod besides secrets.
type Pod = render.Pod

// WrittenFile is a file that a template makes beside its own.
type WrittenFile = render.WrittenFile

// RenderedFile is what became of one output.
type RenderedFile struct {
	Content []byte
	// Written are further files of the volume. They come out of a program of the
	// pod's author: their paths are not checked.
	Written []WrittenFile
}

// FileSpec is one file: what a template makes, or the Vault token itself.
type FileSpec struct {
	Template Template
	// Token is true for the token; only the template's name has a meaning then.
	Token bool
}

// FileError says which file cannot be made.
type FileError = render.FileError

// Request is what a volume needs.
type Request struct {
	// VolumeID names the volume until Close.
	VolumeID string
	// Same is for a Republish alone: it stands for all that the one before said, and
	// the rest is empty then.
	Same bool
	// PodUID names the pod. Volumes of one pod that log in the same way share a
	// Vault token; no others do.
	PodUID string
	// Pod is "namespace/name". All that is done for the pod is on the account of its
	// namespace.
	Pod      string
	Endpoint Endpoint
	Options  ClientOptions
	Login    Login
	// Files are rendered in order, one for each file.
	Files []FileSpec
	// Size is how many bytes the files may have together. They are in memory until they
	// are written. 0 is no bound.
	Size    int64
	Refresh RefreshPolicy
}

// RefreshPolicy is how a volume is kept fresh.
type RefreshPolicy struct {
	// Disabled leaves the files as they were written first. Leases are renewed for as
	// long as Vault lets them.
	Disabled bool
	// StaticInterval is the time between two reads of a secret without a lease, less
	// jitter; 0 is DefaultInterval.
	StaticInterval time.Duration
	// LeaseRenewalThreshold is the part of its life after which a secret that cannot be renewed
	// is read again, above 0 and up to 1; 0 is DefaultThreshold.
	LeaseRenewalThreshold float64
	// SkipRevoke leaves the Vault token, and the leases under it, to end by themselves
	// when the volume is closed.
	SkipRevoke bool
}

const (
	// DefaultInterval and DefaultThreshold are the Vault Agent's.
	DefaultInterval  = 5 * time.Minute
	DefaultThreshold = 0.9
	// MinInterval is the least time between two reads of a static secret.
	MinInterval = 10 * time.Second
)

func (r RefreshPolicy) withDefaults() RefreshPolicy {
	if r.StaticInterval <= 0 {
		r.StaticInterval = DefaultInterval
	}
	if r.LeaseRenewalThreshold <= 0 {
		r.LeaseRenewalThreshold = DefaultThreshold
	}
	return r
}

// Renderer runs templates, which are programs of whoever wrote the pod. It may be
// used concurrently.
type Renderer interface {
	// Render executes the templates of one volume with the values at hand, in order. A
	// template that fails ends it with a render.FileError, which is of the kinds of
	// render.Execute or says why the template was not executed to its end.
	Render(ctx context.Context, templates []render.Template, values render.Values) ([]render.Result, error)
}

// Files takes the refreshed content of volumes. It may be used concurrently.
type Files interface {
	// Replace swaps all files of a volume at once, in the order of its outputs. The
	// error is ErrClosed for a volume that is not there any more.
	Replace(volumeID string, contents []RenderedFile) error
}

// Store keeps records for the next process. It must be as safe as the volumes
// themselves: records hold Vault tokens and secret values. It may be used
// concurrently.
type Store interface {
	// Save replaces the record of a key, as a whole or not at all. Keys are letters
	// and digits with hyphens between.
	Save(key string, record []byte) error
	// Delete succeeds when there is no such record.
	Delete(key string) error
	// Load returns the records whose keys start with prefix.
	Load(prefix string) (map[string][]byte, error)
}
