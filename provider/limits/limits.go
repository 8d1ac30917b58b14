// Package limits is the one table of how much vaultmount takes from those it does
// not trust: the author of a pod, a Vault server, and a record on disk. The first
// function that sees an input checks it against this table. The package holds
// numbers and the error that names them. It never looks at an input itself.
package limits

import "fmt"

// Limit is one row of the table.
type Limit int

// The limits. README.md says what each applies to.
const (
	AttributeKeyBytes Limit = iota
	Attributes
	Annotations
	AnnotationNameBytes
	AnnotationsBytes
	PodVolumes
	PodItems
	PodMounts
	NameBytes
	HostBytes
	SecretKeyBytes
	AddressBytes
	CABundleBytes
	FilePathBytes
	FileNameBytes
	Files
	Directories
	DirectoryDepth
	TemplateBytes
	VolumeTemplateBytes
	CredentialBytes
	TargetPathBytes
	VaultPathBytes
	Dependencies
	ResponseBytes
	ResponseDepth
	AuthResponseBytes
	AuthResponseValues
	VolumeResponseBytes
	VolumeResponseValues
	NodeResponseBytes
	ReviewBytes
	ReviewValues
	CheckpointBytes
	NamespaceCheckpointBytes
	NamespaceMountBytes
	NamespaceTokenBytes
	Revocations
	ManifestBytes
	Diagnostics
	SuggestionBytes
	SuggestionCandidates
	ErrorBytes
	LogLineBytes
	end
)

type row struct {
	name, unit string
	max        int
}

func (l Limit) row() row {
	return [end]row{
		AttributeKeyBytes:        {"attribute-key-bytes", "bytes", 1100}, // a verb and a file path
		Attributes:               {"attributes", "attributes", 4096},
		Annotations:              {"annotations", "annotations", 4000},
		AnnotationNameBytes:      {"annotation-name-bytes", "bytes", 63},    // as in Kubernetes, which checks it after admission
		AnnotationsBytes:         {"annotations-bytes", "bytes", 256 << 10}, // the same
		PodVolumes:               {"pod-volumes", "volumes", 100},
		PodItems:                 {"pod-items", "containers and volumes", 4096},
		PodMounts:                {"pod-mounts", "mounts", 4096}, // each container gets each volume
		NameBytes:                {"name-bytes", "bytes", 256},
		HostBytes:                {"host-bytes", "bytes", 253}, // RFC 1035, section 2.3.4
		SecretKeyBytes:           {"secret-key-bytes", "bytes", 253},
		AddressBytes:             {"address-bytes", "bytes", 2 << 10},
		CABundleBytes:            {"ca-bundle-bytes", "bytes", 256 << 10},
		FilePathBytes:            {"file-path-bytes", "bytes", 1024},
		FileNameBytes:            {"file-name-bytes", "bytes", 255}, // NAME_MAX of Linux
		Files:                    {"files", "files", 500},
		Directories:              {"directories", "directories", 500},
		DirectoryDepth:           {"directory-depth", "levels", 16},
		TemplateBytes:            {"template-bytes", "bytes", 256 << 10},
		VolumeTemplateBytes:      {"volume-template-bytes", "bytes", 512 << 10},
		CredentialBytes:          {"credential-bytes", "bytes", 64 << 10},
		TargetPathBytes:          {"target-path-bytes", "bytes", 4 << 10}, // PATH_MAX of Linux
		VaultPathBytes:           {"vault-path-bytes", "bytes", 2 << 10},  // errors repeat it
		Dependencies:             {"dependencies", "dependencies", 1000},
		ResponseBytes:            {"response-bytes", "bytes", 4 << 20},
		ResponseDepth:            {"response-depth", "levels", 100},
		AuthResponseBytes:        {"auth-response-bytes", "bytes", 256 << 10},
		AuthResponseValues:       {"auth-response-values", "JSON values", 5000},
		VolumeResponseBytes:      {"volume-response-bytes", "bytes", 8 << 20},
		VolumeResponseValues:     {"volume-response-values", "JSON values", 500_000}, // a value of two bytes takes a hundred bytes of memory
		NodeResponseBytes:        {"node-response-bytes", "bytes", 64 << 20},         // decoded values included
		ReviewBytes:              {"review-bytes", "bytes", 3 << 20},                 // the API server sends no more
		ReviewValues:             {"review-values", "JSON values", 50_000},           // a value of two bytes may take a hundred bytes of memory
		CheckpointBytes:          {"checkpoint-bytes", "bytes", 16 << 20},
		NamespaceCheckpointBytes: {"namespace-checkpoint-bytes", "bytes", 18 << 20}, // with the next, half of the memory for records
		NamespaceMountBytes:      {"namespace-mount-bytes", "bytes", 2 << 20},
		NamespaceTokenBytes:      {"namespace-token-bytes", "bytes", 4 << 20},
		Revocations:              {"revocations", "Vault tokens", 1024},
		ManifestBytes:            {"manifest-bytes", "bytes", 16 << 20},
		Diagnostics:              {"diagnostics", "diagnostics", 20},
		SuggestionBytes:          {"suggestion-bytes", "bytes", 64}, // the edit distance takes quadratic time
		SuggestionCandidates:     {"suggestion-candidates", "words", 100},
		ErrorBytes:               {"error-bytes", "bytes", 400},
		LogLineBytes:             {"log-line-bytes", "bytes", 2 << 10},
	}[l]
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
