package volume

import (
	"errors"
	"fmt"
	"math"
	"net"
	"net/url"
	"path"
	"regexp"
	"strconv"
	"strings"
	"time"
	"unicode"

	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/vaultmount/vaultmount/provider/limits"
)

func parseName(value string) (string, error) {
	if value == "" || value != strings.TrimSpace(value) || strings.ContainsFunc(value, unicode.IsControl) {
		return "", errMismatch
	}
	return value, nil
}

func parseAuthType(value string) (AuthType, error) {
	switch authType := AuthType(value); authType {
	case Kubernetes, JWT, AppRole:
		return authType, nil
	}
	return "", errMismatch
}

func parseAudience(value string) (Audience, error) {
	return Audience{Name: value, Chosen: true}, nil
}

func parseAuthPath(value string) (string, error) {
	trimmed := strings.Trim(value, "/")
	if trimmed == "" || trimmed == "auth" || !isVaultPath(trimmed) {
		return "", errMismatch
	}
	if !strings.HasPrefix(trimmed, "auth/") && !strings.Contains(trimmed, "/auth/") {
		return "", fmt.Errorf("%s does not begin with auth/; write %s", quote(value), quote("auth/"+trimmed))
	}
	return trimmed, nil
}

// parseNamespace accepts an empty value for the driver's default, as the injector does.
func parseNamespace(value string) (string, error) {
	trimmed := strings.Trim(value, "/")
	if trimmed != "" && !isVaultPath(trimmed) {
		return "", errMismatch
	}
	return trimmed, nil
}

func isVaultPath(value string) bool {
	return !strings.ContainsAny(value, "?#%\\") && !strings.ContainsFunc(value, isSpaceOrControl) &&
		path.Clean(value) == value && !strings.HasPrefix(value, "..")
}

func isSpaceOrControl(r rune) bool { return unicode.IsSpace(r) || unicode.IsControl(r) }

// parseVaultPath rejects what would end the quotes of a built-in template: the rest of the path
// would become template text.
func parseVaultPath(value string) (string, error) {
	isForbidden := func(r rune) bool { return r < ' ' || r == 0x7f || r == '"' || r == '\\' }
	if strings.Trim(value, "/ ") == "" || strings.ContainsFunc(value, isForbidden) {
		return "", errMismatch
	}
	return value, nil
}

func parseSecretKey(value string) (string, error) {
	isForbidden := func(r rune) bool { return !isAlphanumeric(r) && r != '-' && r != '_' && r != '.' }
	if value == "" || strings.ContainsFunc(value, isForbidden) {
		return "", errMismatch
	}
	return value, nil
}

func isAlphanumeric(r rune) bool {
	return r >= '0' && r <= '9' || r >= 'A' && r <= 'Z' || r >= 'a' && r <= 'z'
}

// parseCACert accepts a key, or the path at which containers have a CA certificate of the
// cluster.
func parseCACert(value string) (string, error) {
	if clean := path.Clean(value); IsClusterCA(clean) {
		return clean, nil
	}
	return parseSecretKey(value)
}

// parseHostName accepts the names that crypto/x509 does, also those with underscores.
func parseHostName(value string) (string, error) {
	const maxLabelBytes = 63 // RFC 1035, section 2.3.4
	isForbidden := func(r rune) bool { return !isAlphanumeric(r) && r != '-' && r != '_' }
	for label := range strings.SplitSeq(strings.TrimSuffix(value, "."), ".") {
		isLabel := label != "" && len(label) <= maxLabelBytes && !strings.ContainsFunc(label, isForbidden)
		if !isLabel && net.ParseIP(value) == nil {
			return "", errMismatch
		}
	}
	return value, nil
}

// parseURL does not show a value with more than scheme, host and port: it may hold a password.
func parseURL(value string) (string, error) {
	address, err := url.Parse(value)
	if err != nil || address.Scheme != "https" && address.Scheme != "http" || address.Hostname() == "" {
		return "", errMismatch
	}
	if address.User != nil || strings.Trim(address.Path, "/") != "" || address.RawQuery != "" || address.Fragment != "" {
		return "", errors.New(`has more than scheme, host and port; write for example "https://vault.example.com:8200"`)
	}
	if err := limits.HostBytes.Check(len(address.Hostname())); err != nil {
		return "", fmt.Errorf("the host: %w", err)
	}
	return address.Scheme + "://" + strings.ToLower(address.Host), nil
}

// parseDuration requires a unit, as the injector does for backoffs.
func parseDuration(value string) (time.Duration, error) {
	duration, err := time.ParseDuration(value)
	if err != nil || duration <= 0 {
		return 0, errMismatch
	}
	return duration, nil
}

// parseDurationOrSeconds accepts a number of seconds too, as Vault's programs do.
func parseDurationOrSeconds(value string) (time.Duration, error) {
	if seconds, err := strconv.ParseUint(value, 10, 32); err == nil {
		value = strconv.FormatUint(seconds, 10) + "s"
	}
	return parseDuration(value)
}

func parseRetries(value string) (int, error) {
	retries, err := strconv.ParseUint(value, 10, 31)
	if err != nil || retries > 100 {
		return 0, errMismatch
	}
	return int(retries), nil
}

func parseFraction(value string) (float64, error) {
	fraction, err := strconv.ParseFloat(value, 64)
	if err != nil || !(fraction > 0 && fraction <= 1) { // also rejects NaN
		return 0, errMismatch
	}
	return fraction, nil
}

func parseRevokePolicy(value string) (RevokePolicy, error) {
	if revoke, err := strconv.ParseBool(value); revoke || err != nil {
		return Revoke, err
	}
	return Keep, nil
}

func parseFormat(value string) (Format, error) {
	format := Format(strings.ToLower(value))
	if format != Map && format != JSON {
		return "", errMismatch
	}
	return format, nil
}

// parseID rejects 2^32-1, which chown(2) reads as "leave unchanged".
func parseID(value string) (int64, error) {
	id, err := strconv.ParseUint(value, 10, 32)
	if err != nil || id == math.MaxUint32 {
		return 0, errMismatch
	}
	return int64(id), nil
}

// parsePerms drops the set-id and sticky bits, as the Vault Agent does. They would have an
// effect: a container runtime may bind the volume without nosuid.
func parsePerms(value string) (uint32, error) {
	perms, err := strconv.ParseUint(value, 8, 12)
	return uint32(perms) & 0o777, err
}

func parseDelimiter(value string) (string, error) {
	if value == "" || strings.ContainsFunc(value, isSpaceOrControl) {
		return "", errMismatch
	}
	return value, nil
}

func parseMountPath(value string) (string, error) {
	clean := path.Clean(value)
	if !path.IsAbs(value) || clean == "/" || strings.Contains(value, ":") || strings.ContainsFunc(value, unicode.IsControl) {
		return "", errMismatch
	}
	if clean == DefaultMountPath {
		return "", nil
	}
	return clean, nil
}

func parseSize(value string) (int64, error) {
	const page = 4 << 10 // a tmpfs has whole pages
	quantity, err := ParseQuantity(value)
	switch {
	case err != nil:
		return 0, errMismatch
	case quantity.CmpInt64(page) < 0:
		return 0, fmt.Errorf("%s is less than one page, 4Ki; write for example \"1Mi\"", quote(value))
	case quantity.CmpInt64(math.MaxInt64) >= 0: // Value overflows
		return 0, fmt.Errorf("%s is more than any volume has; write for example \"1Mi\"", quote(value))
	}
	return quantity.Value(), nil
}

// ParseQuantity parses a Kubernetes quantity, but rejects long texts and exponents of three
// digits: the parser of Kubernetes takes ten seconds for 1e-10000000.
func ParseQuantity(value string) (resource.Quantity, error) {
	if len(value) > 64 || regexp.MustCompile(`[eE][-+]?[0-9]{3}`).MatchString(value) {
		return resource.Quantity{}, fmt.Errorf("%s has too many digits", quote(value))
	}
	return resource.ParseQuantity(value)
}

// CheckFilePath rejects a path out of the volume, and names that start with "..", which the
// atomic swap uses, as in the kubelet's volumes.
func CheckFilePath(name string) error {
	if err := limits.FilePathBytes.Check(len(name)); err != nil {
		return fmt.Errorf("the path of the file: %w", err)
	}
	switch {
	case name == "":
		return errors.New("the file name is missing")
	case strings.ContainsFunc(name, unicode.IsControl):
		return errors.New("the file name has a control character")
	case strings.HasPrefix(name, "/"):
		return fmt.Errorf("the file name must be relative to the volume; write %s", quote(strings.TrimLeft(name, "/")))
	}
	for part := range strings.SplitSeq(name, "/") {
		if strings.HasPrefix(part, "..") {
			return errors.New(`no part of a file name may start with ".."`)
		}
		if err := limits.FileNameBytes.Check(len(part)); err != nil {
			return fmt.Errorf("a part of the path of the file: %w", err)
		}
	}
	if err := limits.DirectoryDepth.Check(strings.Count(name, "/")); err != nil {
		return fmt.Errorf("the path of the file: %w", err)
	}
	if clean := path.Clean(name); clean != name || clean == "." {
		return errors.New(`the file name has an empty or "." part; write the path without it`)
	}
	return nil
}
