package volume

import (
	"fmt"
	"path"
	"strings"
)

// parseAuthority takes a key of the Secret, or one of the cluster's own
// authorities by the path at which containers have it.
func parseAuthority(value string) (string, error) {
	if IsClusterCA(path.Clean(value)) {
		return path.Clean(value), nil
	}
	return parseSecretKey(value)
}

// IsClusterCA tells a clean path of one of the cluster's authorities from the name
// of a key, which has no slash.
func IsClusterCA(authority string) bool { return authority == ClusterCA || authority == ServiceCA }

// parseSecretKey takes the name of a key as a Secret may have it.
func parseSecretKey(value string) (string, error) {
	valid := func(r rune) bool {
		return r == '-' || r == '_' || r == '.' || r >= '0' && r <= '9' || r >= 'A' && r <= 'Z' || r >= 'a' && r <= 'z'
	}
	if value == "" || strings.ContainsFunc(value, func(r rune) bool { return !valid(r) }) {
		return "", fmt.Errorf("%s is not the name of a key in a Secret; name a key of the nodePublishSecretRef's Secret, for example \"ca.crt\"", quote(value))
	}
	return value, nil
}
