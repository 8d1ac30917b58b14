package volume

import (
	"fmt"
	"regexp"
	"strconv"

	"k8s.io/apimachinery/pkg/api/resource"
)

const (
	maxPerms = 0o7777
	// maxID leaves out 2^32-1, which chown(2) reads as "leave unchanged".
	maxID = 1<<32 - 2
	// minSize is one page; a tmpfs rounds up to whole ones.
	minSize = 4096
)

// parsePerms drops the set-id and sticky bits, as the Vault Agent does. A container
// would heed them: its runtime may bind the volume without the mount's nosuid.
func parsePerms(value string) (uint32, error) {
	perms, err := strconv.ParseUint(value, 8, 32)
	if err != nil || perms > maxPerms {
		return 0, fmt.Errorf("%s is not an octal file mode; write for example \"0640\"", quote(value))
	}
	return uint32(perms) & 0o777, nil
}

func parseBool(value string) (bool, error) {
	b, err := strconv.ParseBool(value)
	if err != nil {
		return false, fmt.Errorf("%s is neither \"true\" nor \"false\"", quote(value))
	}
	return b, nil
}

func parseID(value string) (int64, error) {
	id, err := strconv.ParseUint(value, 10, 32)
	if err != nil || id > maxID {
		return 0, fmt.Errorf("%s is not a numeric id from 0 to %d", quote(value), maxID)
	}
	return int64(id), nil
}

// ParseQuantity parses a quantity of Kubernetes, but takes neither long texts nor
// exponents of three digits: for 1e-10000000 the parser of Kubernetes works for ten
// seconds.
func ParseQuantity(value string) (resource.Quantity, error) {
	if len(value) > 64 || regexp.MustCompile(`[eE][-+]?[0-9]{3}`).MatchString(value) {
		return resource.Quantity{}, fmt.Errorf("%s has too many digits", quote(value))
	}
	return resource.ParseQuantity(value)
}

func parseSize(value string) (int64, error) {
	quantity, err := ParseQuantity(value)
	if err != nil {
		return 0, fmt.Errorf("%s is not a quantity of bytes; write for example \"1Mi\"", quote(value))
	}
	if quantity.Value() < minSize {
		return 0, fmt.Errorf("%s is less than one page of %d bytes", quote(value), minSize)
	}
	return quantity.Value(), nil
}
