// Package limits is the one table of how much vaultmount takes from those it does
// not trust: the author of a pod, a Vault server, and a record on disk. The first
// function that sees an input checks it against this table. The package holds
// numbers and the error that names them. It never looks at an input itself.
package limits

import "fmt"

// Limit is one row of the table.
type Limit int

// The limits. String returns the name that errors and the reference use, and Max
// the value.
const (
	// AttributeKeyBytes: a key holds a verb and a file path.
	AttributeKeyBytes Limit = iota
	// Attributes is how many attributes a volume has.
	Attributes
	// Annotations is how many annotations under the prefix a pod has.
	Annotations
	// AnnotationNameBytes is for the name of an annotation behind the prefix. It is
	// the limit of Kubernetes, which checks it after admission.
	AnnotationNameBytes
	// AnnotationsBytes is for all names and values of these annotations. It is the
	// limit of Kubernetes for all annotations of an object, which it checks after
	// admission.
	AnnotationsBytes
	// PodVolumes is how many volumes a pod gets: one for each mount path.
	PodVolumes
	// PodItems is how many containers and volumes of its own a pod has.
	PodItems
	// PodMounts is how many volume mounts the containers of a pod have, those of the
	// translation included: each container gets each volume.
	PodMounts
	// NameBytes is for a role, an auth path, a Vault namespace, an audience, and each
	// value that has no other limit.
	NameBytes
	// HostBytes is for a host name (RFC 1035, section 2.3.4).
	HostBytes
	// SecretKeyBytes is for a key of a Kubernetes Secret.
	SecretKeyBytes
	// AddressBytes is for the URL of a Vault server or a proxy.
	AddressBytes
	// CABundleBytes is for CA certificates, client certificates and keys.
	CABundleBytes
	// FilePathBytes is for the path of a file in its volume.
	FilePathBytes
	// FileNameBytes is for one part of that path (NAME_MAX of Linux).
	FileNameBytes
	// Files is how many files a volume has, those of writeToFile among them.
	Files
	// Directories is how many directories these files need.
	Directories
	// DirectoryDepth is how deep they may be nested.
	DirectoryDepth
	// TemplateBytes is for one template.
	TemplateBytes
	// VolumeTemplateBytes is for all templates of a volume.
	VolumeTemplateBytes
	// CredentialBytes is for the service-account tokens that the kubelet sends, for a role
	// id and for a secret id.
	CredentialBytes
	// TargetPathBytes is for the path where a volume is mounted (PATH_MAX of Linux).
	TargetPathBytes
	// VaultPathBytes is for a path in Vault: it is repeated in errors.
	VaultPathBytes
	// Dependencies is how many reads, writes and lists a volume asks of Vault.
	Dependencies
	// ResponseBytes is for one response of Vault.
	ResponseBytes
	// ResponseDepth is how deep the lists and objects of a response are nested.
	ResponseDepth
	// AuthResponseBytes is for a response that holds no secret: to a login, a renewal,
	// a revocation or a look-up of a mount.
	AuthResponseBytes
	// AuthResponseValues is how many JSON values such a response holds.
	AuthResponseValues
	// VolumeResponseBytes is for all responses that a volume keeps.
	VolumeResponseBytes
	// VolumeResponseValues is how many JSON values these hold: a value of two bytes
	// takes some hundred bytes of memory.
	VolumeResponseValues
	// NodeResponseBytes is for the memory of the responses that a node reads at one
	// time, decoded values included. One namespace has at most half of what the others
	// leave.
	NodeResponseBytes
	// ReviewBytes is for the body of an admission review. A request to the API server
	// has at most as much.
	ReviewBytes
	// ReviewValues is how many JSON values a review holds: the two bytes of a value
	// may take a hundred bytes of memory.
	ReviewValues
	// CheckpointBytes is for the record of one volume, session or revocation.
	CheckpointBytes
	// NamespaceCheckpointBytes and NamespaceMountBytes are for all records of the pods of
	// one namespace: together half of the memory for the records of a node.
	NamespaceCheckpointBytes
	NamespaceMountBytes
	// Revocations is how many Vault tokens of pods that are gone wait to be revoked, for
	// the pods of one namespace.
	Revocations
	// ManifestBytes is for one input of "vaultmount translate".
	ManifestBytes
	// Diagnostics is how many warnings and errors a pod gets.
	Diagnostics
	// SuggestionBytes is the longest word that a suggestion is computed for: the
	// edit distance takes quadratic time.
	SuggestionBytes
	// SuggestionCandidates is how many words a suggestion is chosen from.
	SuggestionCandidates
	// ErrorBytes is for an error that a call returns.
	ErrorBytes
	// LogLineBytes is for a log line.
	LogLineBytes
	end
)

type row struct {
	name, unit string
	max        int
}

func (l Limit) row() row {
	switch l {
	case AttributeKeyBytes:
		return row{"attribute-key-bytes", "bytes", 1100}
	case Attributes:
		return row{"attributes", "attributes", 4096}
	case Annotations:
		return row{"annotations", "annotations", 4000}
	case AnnotationNameBytes:
		return row{"annotation-name-bytes", "bytes", 63}
	case AnnotationsBytes:
		return row{"annotations-bytes", "bytes", 256 << 10}
	case PodVolumes:
		return row{"pod-volumes", "volumes", 100}
	case PodItems:
		return row{"pod-items", "containers and volumes", 4096}
	case PodMounts:
		return row{"pod-mounts", "mounts", 4096}
	case NameBytes:
		return row{"name-bytes", "bytes", 256}
	case HostBytes:
		return row{"host-bytes", "bytes", 253}
	case SecretKeyBytes:
		return row{"secret-key-bytes", "bytes", 253}
	case AddressBytes:
		return row{"address-bytes", "bytes", 2 << 10}
	case CABundleBytes:
		return row{"ca-bundle-bytes", "bytes", 256 << 10}
	case FilePathBytes:
		return row{"file-path-bytes", "bytes", 1024}
	case FileNameBytes:
		return row{"file-name-bytes", "bytes", 255}
	case Files:
		return row{"files", "files", 500}
	case Directories:
		return row{"directories", "directories", 500}
	case DirectoryDepth:
		return row{"directory-depth", "levels", 16}
	case TemplateBytes:
		return row{"template-bytes", "bytes", 256 << 10}
	case VolumeTemplateBytes:
		return row{"volume-template-bytes", "bytes", 512 << 10}
	case CredentialBytes:
		return row{"credential-bytes", "bytes", 64 << 10}
	case TargetPathBytes:
		return row{"target-path-bytes", "bytes", 4 << 10}
	case VaultPathBytes:
		return row{"vault-path-bytes", "bytes", 2 << 10}
	case Dependencies:
		return row{"dependencies", "dependencies", 1000}
	case ResponseBytes:
		return row{"response-bytes", "bytes", 4 << 20}
	case ResponseDepth:
		return row{"response-depth", "levels", 100}
	case AuthResponseBytes:
		return row{"auth-response-bytes", "bytes", 256 << 10}
	case AuthResponseValues:
		return row{"auth-response-values", "JSON values", 5000}
	case VolumeResponseBytes:
		return row{"volume-response-bytes", "bytes", 8 << 20}
	case VolumeResponseValues:
		return row{"volume-response-values", "JSON values", 500_000}
	case NodeResponseBytes:
		return row{"node-response-bytes", "bytes", 64 << 20}
	case ReviewBytes:
		return row{"review-bytes", "bytes", 3 << 20}
	case ReviewValues:
		return row{"review-values", "JSON values", 50_000}
	case CheckpointBytes:
		return row{"checkpoint-bytes", "bytes", 16 << 20}
	case NamespaceCheckpointBytes:
		return row{"namespace-checkpoint-bytes", "bytes", 18 << 20}
	case NamespaceMountBytes:
		return row{"namespace-mount-bytes", "bytes", 2 << 20}
	case Revocations:
		return row{"revocations", "Vault tokens", 1024}
	case ManifestBytes:
		return row{"manifest-bytes", "bytes", 16 << 20}
	case Diagnostics:
		return row{"diagnostics", "diagnostics", 20}
	case SuggestionBytes:
		return row{"suggestion-bytes", "bytes", 64}
	case SuggestionCandidates:
		return row{"suggestion-candidates", "words", 100}
	case ErrorBytes:
		return row{"error-bytes", "bytes", 400}
	case LogLineBytes:
		return row{"log-line-bytes", "bytes", 2 << 10}
	}
	panic(fmt.Sprintf("limit %d has no row", int(l)))
}

// All returns the limits in the order of the reference.
func All() []Limit {
	all := make([]Limit, end)
	for i := range all {
		all[i] = Limit(i)
	}
	return all
}

// String implements fmt.Stringer.
func (l Limit) String() string { return l.row().name }

// Max is the largest amount that is allowed, in the unit of the limit.
func (l Limit) Max() int { return l.row().max }

// Unit is what Max counts.
func (l Limit) Unit() string { return l.row().unit }

// Check returns an *ExceededError if n is over the limit.
func (l Limit) Check(n int) error {
	if n <= l.Max() {
		return nil
	}
	return &ExceededError{Limit: l, Got: n}
}

// ExceededError is an input that is over its limit. The caller says in front of it
// which input that is.
type ExceededError struct {
	Limit Limit
	Got   int
}

// Error implements error.
func (e *ExceededError) Error() string {
	return fmt.Sprintf("%d %s exceed the limit of %d (%s)", e.Got, e.Limit.Unit(), e.Limit.Max(), e.Limit)
}

// Shorten cuts the middle out of text, so that at most max bytes are left. An error begins
// with what failed, and ends with the cause and the remedy: two thirds of what is left
// are the end.
func Shorten(text string, max int) string {
	const ellipsis = " ... "
	if len(text) <= max {
		return text
	}
	head := (max - len(ellipsis)) / 3
	tail := len(text) - (max - len(ellipsis) - head)
	for head > 0 && isWithinRune(text[head]) {
		head--
	}
	for tail < len(text) && isWithinRune(text[tail]) {
		tail++
	}
	return text[:head] + ellipsis + text[tail:]
}

// isWithinRune is true of all bytes of a rune in UTF-8 but the first.
func isWithinRune(b byte) bool { return b&0xC0 == 0x80 }

// Truncate shortens text to at most max bytes, with "..." in place of what it cuts
// off. It cuts between two runes.
func Truncate(text string, max int) string {
	const ellipsis = "..."
	if len(text) <= max {
		return text
	}
	cut := max - len(ellipsis)
	for cut > 0 && isWithinRune(text[cut]) {
		cut--
	}
	return text[:cut] + ellipsis
}
