package volume

import (
	"fmt"
	"strings"

	"github.com/vaultmount/vaultmount/provider/limits"
)

// CheckSize checks how many attributes there are, and the length of each key and value,
// whatever vocabulary they belong to. Call it before anything else reads attributes.
// The error is an *AttributeError that wraps a *limits.ExceededError.
func CheckSize(attributes map[string]string) error {
	return checkEach(attributes, func(string) limits.Limit { return limits.TemplateBytes })
}

// checkEach is CheckSize with a limit for the value of each key.
func checkEach(attributes map[string]string, limitOf func(key string) limits.Limit) error {
	if err := limits.Attributes.Check(len(attributes)); err != nil {
		return blame("volumeAttributes", err)
	}
	first, wrong := "", error(nil)
	for key, value := range attributes {
		err := limits.AttributeKeyBytes.Check(len(key))
		if err == nil {
			err = limitOf(key).Check(len(value))
		}
		// Of several, the error is about the same one each time.
		if err != nil && (wrong == nil || key < first) {
			first, wrong = key, blame(key, err)
		}
	}
	return wrong
}

// checkSize is CheckSize with the limit of each kind of attribute, and of all templates.
func (p *parser) checkSize() error {
	if err := checkEach(p.attributes, valueLimit); err != nil {
		return err
	}
	templates := 0
	for _, key := range p.keys() {
		if !strings.HasPrefix(key, verbTemplate+"/") {
			continue
		}
		templates += len(p.attributes[key])
		if err := limits.VolumeTemplateBytes.Check(templates); err != nil {
			return blame(key, fmt.Errorf("with the templates before it, %w", err))
		}
	}
	return nil
}

// valueLimit is the limit of an attribute's value in bytes.
func valueLimit(key string) limits.Limit {
	verb, _, _ := strings.Cut(key, "/")
	switch verb {
	case verbTemplate:
		return limits.TemplateBytes
	case verbSecret:
		return limits.VaultPathBytes
	case keyAddress, keyProxy:
		return limits.AddressBytes
	case keyServerName:
		return limits.HostBytes
	case verbTemplateKey, keyRoleID, keySecretID, keyCACert, keyClientCert, keyClientKey:
		return limits.SecretKeyBytes
	case keyTokenFile, keyMountPath:
		return limits.FilePathBytes
	}
	return limits.NameBytes
}

// countDirectories adds the directories that a path needs to those of the files
// before it. The path has passed CheckFilePath.
func (p *parser) countDirectories(path string) error {
	for i := range path {
		if path[i] == '/' {
			p.directories[path[:i]] = true
		}
	}
	return limits.Directories.Check(len(p.directories))
}
