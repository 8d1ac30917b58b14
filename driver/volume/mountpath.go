package volume

import (
	"fmt"
	"path"
	"strings"
	"unicode"
)

// DefaultMountPath is where the Vault Agent Injector puts files.
const DefaultMountPath = "/vault/secrets"

// parseMountPath takes what may stand as a mountPath in a pod.
func parseMountPath(value string) (string, error) {
	clean := path.Clean(value)
	if !path.IsAbs(value) || clean == "/" || strings.Contains(value, ":") || strings.ContainsFunc(value, unicode.IsControl) {
		return "", fmt.Errorf("%s is not a directory to mount at; write the mountPath of the volume, for example %q", quote(value), DefaultMountPath)
	}
	if clean == DefaultMountPath {
		return "", nil
	}
	return clean, nil
}
