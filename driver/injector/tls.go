package injector

import (
	"path"
	"regexp"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/vaultmount/vaultmount/driver/volume"
	"github.com/vaultmount/vaultmount/provider/limits"
)

// secretSource is a Secret that the injector mounts into the agent.
type secretSource struct {
	annotation, directory string
}

func tlsSecret() secretSource   { return secretSource{nameTLSSecret, "/vault/tls"} }
func extraSecret() secretSource { return secretSource{nameExtraSecret, "/vault/custom"} }

// holds is true for the path of a key. A Secret has no directories.
func (s secretSource) holds(file string) bool {
	return path.Dir(path.Clean(file)) == s.directory
}

// secretKey returns the key that the agent would read at the path in an annotation. It
// rejects other paths, which are in the agent's image and volumes: without such a file
// the driver would trust something else than what the pod says.
func (t *translation) secretKey(name string, sources ...secretSource) (key string, ok bool) {
	value := t.values[name]
	for _, source := range sources {
		if !source.holds(value) {
			continue
		}
		t.needed[source.annotation] = true
		secret := t.values[source.annotation]
		if secret == "" {
			t.reject(name,
				"%s is a key of a Secret that no annotation names; write its name into %s%s",
				quote(value), t.settings.Prefix, source.annotation)
			return "", false
		}
		// An invalid name is reported by its own row.
		return path.Base(path.Clean(value)), isSecretName(secret)
	}
	t.reject(name, "vaultmount has no agent that could read the file %s; put it into the Secret of %s", quote(value), sources[0].annotation)
	return "", false
}

func (t *translation) setSecretKey(key, name string, sources ...secretSource) {
	if value, ok := t.secretKey(name, sources...); ok {
		t.setAttribute(key, value, name)
	}
}

func secretName(t *translation, name, value string) {
	if !isSecretName(value) {
		t.reject(name, "%s is not the name of a Secret; write it as kubectl lists it", quote(value))
	}
}

// isSecretName checks the length first: it is called for each file.
func isSecretName(value string) bool {
	return limits.HostBytes.Check(len(value)) == nil && len(validation.IsDNS1123Subdomain(value)) == 0
}

func skipVerify(t *translation, name, _ string) {
	if t.settings.ForbidSkipVerify {
		t.reject(name, "is forbidden in this cluster; remove it, and name Vault's CA certificate with ca-cert")
		return
	}
	t.setAttribute(name, "true", name)
	t.warn(name, "any server can pose as Vault and receive the pod's token; remove it, and name Vault's CA certificate with ca-cert")
}

// caCert: without verification the agent does not read the certificate, and the driver
// rejects the contradiction.
func caCert(t *translation, name, value string) {
	switch clean := path.Clean(value); {
	case t.isOn(nameSkipVerify, false):
		t.warn(name, "has no effect beside %s; remove one of the two", nameSkipVerify)
	case volume.IsClusterCA(clean):
		t.setAttribute(name, clean, name)
	default:
		t.setSecretKey(name, name, tlsSecret(), extraSecret())
	}
}

// caDirectory: a volume takes one CA bundle. The agent reads no directory either where
// there is a file.
func caDirectory(t *translation, name, value string) {
	directory := tlsSecret().directory
	t.needed[nameTLSSecret] = true
	switch clean := path.Clean(value); {
	case clean != directory && !isBelow(clean, directory):
		t.reject(name,
			"vaultmount has no agent that could read the directory %s; put its certificates into one key of the Secret "+
				"of tls-secret, and name it with ca-cert", quote(value))
	case t.values[nameCACert] == "":
		t.reject(name,
			"a volume takes one CA bundle and no directory; write %s%s: %s/KEY instead", t.settings.Prefix, nameCACert, directory)
	default:
		t.warn(name, "has no effect beside ca-cert; remove it")
	}
}

// clientCert is for the certificate and for its key: both or neither.
func clientCert(t *translation, name, _ string) {
	other := nameClientCert
	if name == nameClientCert {
		other = nameClientKey
	}
	if t.values[other] == "" {
		t.reject(name, "needs %s%s beside it", t.settings.Prefix, other)
		return
	}
	t.setSecretKey(name, name, tlsSecret(), extraSecret())
}

// volumeSecret is the Secret of all volumes: a CSI volume has one. Where both Secrets
// are needed, it drops the keys of tls-secret and the files whose templates read them.
func (t *translation) volumeSecret(files []*file) string {
	t.findSecretFiles(files)
	tls, extra := t.values[nameTLSSecret], t.values[nameExtraSecret]
	tlsKeys, tlsFiles := t.keysIn(tlsSecret()), filesReading(files, tlsSecret())
	hasTLS := len(tlsKeys)+len(tlsFiles) > 0
	hasExtra := len(t.keysIn(extraSecret()))+len(filesReading(files, extraSecret())) > 0
	if hasTLS && hasExtra && tls != extra {
		t.reject(nameTLSSecret,
			"a volume has one Secret, and that of %s%s is needed as well; put all keys into one",
			t.settings.Prefix, nameExtraSecret)
		t.drop(tlsKeys...)
		for _, f := range tlsFiles {
			f.rejected = true
		}
	}
	// A certificate or key alone is left of a pair of which one was rejected.
	if len(t.keysIn(tlsSecret(), nameClientCert, nameClientKey))+len(t.keysIn(extraSecret(), nameClientCert, nameClientKey)) == 1 {
		t.drop(nameClientCert, nameClientKey)
	}
	for _, source := range []secretSource{tlsSecret(), extraSecret()} {
		if t.values[source.annotation] != "" && isSecretName(t.values[source.annotation]) && !t.needed[source.annotation] {
			t.warn(source.annotation,
				"has no effect: no key of it is needed; name one below %s in another annotation, or remove it", source.directory)
		}
	}
	switch {
	case hasExtra:
		return extra
	case hasTLS:
		return tls
	}
	return ""
}

// keysIn are the attributes that name keys of a Secret, of all or of some.
func (t *translation) keysIn(source secretSource, some ...string) []string {
	if len(some) == 0 {
		some = []string{nameCACert, nameClientCert, nameClientKey, attrRoleID, attrSecretID}
	}
	return slices.DeleteFunc(some, func(key string) bool {
		a, present := t.attributes[key]
		return !present || !source.holds(t.values[a.source])
	})
}

func (t *translation) drop(keys ...string) {
	for _, key := range keys {
		delete(t.attributes, key)
	}
}

// findSecretFiles finds the keys of Secrets that templates read with the function file,
// as paths of the agent. It searches for what a call looks like, as the admission policy
// does, and parses no template, since it is untrusted.
func (t *translation) findSecretFiles(files []*file) {
	call := regexp.MustCompile("file\\s+[\"`](/[^\"`]*)[\"`]|[\"`](/[^\"`]*)[\"`]\\s*[|]\\s*file")
	for _, f := range files {
		text := f.attributes[attrTemplate].value
		if !strings.Contains(text, "file") {
			continue
		}
		for _, match := range call.FindAllStringSubmatch(text, -1) {
			name := match[1] + match[2]
			f.secretFiles = append(f.secretFiles, name)
			for _, source := range []secretSource{tlsSecret(), extraSecret()} {
				if !source.holds(name) {
					continue
				}
				t.needed[source.annotation] = true
				if t.values[source.annotation] == "" {
					t.rejectFile(f, f.source,
						"the template reads the key %s of a Secret that no annotation names; write its name into %s%s",
						quote(path.Base(name)), t.settings.Prefix, source.annotation)
				}
			}
		}
	}
}

// filesReading are the files whose content needs a key of the Secret.
func filesReading(files []*file, source secretSource) []*file {
	var readers []*file
	for _, f := range files {
		_, isKey := f.attributes[attrTemplateKey]
		if isKey && source == extraSecret() || slices.ContainsFunc(f.secretFiles, source.holds) {
			readers = append(readers, f)
		}
	}
	return readers
}
