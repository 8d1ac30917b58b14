package injector

import (
	"path"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/vaultmount/vaultmount/provider/limits"
)

// secretSource is a Secret that the injector mounts into the agent.
type secretSource struct {
	annotation, directory string
}

func tlsSecret() secretSource   { return secretSource{nameTLSSecret, "/vault/tls"} }
func extraSecret() secretSource { return secretSource{nameExtraSecret, "/vault/custom"} }

// holds says whether a path is that of a key. A Secret has no directories.
func (s secretSource) holds(file string) bool {
	return path.Dir(path.Clean(file)) == s.directory
}

// emitKey makes the attribute that names the key of the Secret which the agent
// would find at a path. Other paths are of the agent's image and volumes: to go
// on without such a file would trust something else than what the pod says.
func emitKey(key string, sources ...secretSource) treatment {
	return func(r *reading, name, value string) {
		for _, source := range sources {
			if !source.holds(value) {
				continue
			}
			if r.values[source.annotation] == "" {
				r.refuse(name, "%s is a key of a Secret that no annotation names; write its name into %s%s", quote(value), r.settings.Prefix, source.annotation)
				return
			}
			// A wrong name is told by its own row.
			if !isSecretName(r.values[source.annotation]) {
				return
			}
			r.attributes[key] = attribute{path.Base(path.Clean(value)), name}
			return
		}
		r.refuse(name, "%s is a file of the injector's agent, which the pod no longer has; put it into the Secret of %s", quote(value), sources[0].annotation)
	}
}

func checkSecretName(r *reading, name, value string) {
	if !isSecretName(value) {
		r.refuse(name, "%s is not the name of a Secret; write it as kubectl lists it", quote(value))
	}
}

// isSecretName looks at the length first: it is asked for each file.
func isSecretName(value string) bool {
	return limits.HostBytes.Check(len(value)) == nil && len(validation.IsDNS1123Subdomain(value)) == 0
}

// volumeSecret is the Secret of all volumes: a CSI volume has one. Where both
// are needed, the keys of tls-secret are left out, and the files whose templates
// read them.
func (r *reading) volumeSecret(files []*file) string {
	readSecretFiles(files)
	r.refuseUnnamed(files)
	tls, extra := r.values[nameTLSSecret], r.values[nameExtraSecret]
	keys := r.keysIn(tlsSecret())
	hasTemplates := slices.ContainsFunc(files, func(f *file) bool { return f.attributes[verbTemplateKey].value != "" })
	needsTLS := len(keys) > 0 || isRead(files, tlsSecret())
	needsExtra := hasTemplates || len(r.keysIn(extraSecret())) > 0 || isRead(files, extraSecret())
	if needsTLS && needsExtra && tls != extra {
		r.refuse(nameTLSSecret, "a volume has one Secret, and that of %s%s is needed as well; put all keys into one", r.settings.Prefix, nameExtraSecret)
		r.drop(keys...)
		for _, f := range files {
			f.refused = f.refused || f.reads(tlsSecret())
		}
	}
	r.dropHalves()
	if !isRead(files, tlsSecret()) {
		r.reportUnused(tlsSecret())
	}
	if !hasTemplates && !isRead(files, extraSecret()) {
		r.reportUnused(extraSecret())
	}
	switch {
	case needsExtra:
		return extra
	case needsTLS:
		return tls
	}
	return ""
}

// keysIn are the attributes that name keys of a Secret.
func (r *reading) keysIn(source secretSource) []string {
	keys := []string{nameCACert, nameClientCert, nameClientKey, keyRoleID, keySecretID}
	return slices.DeleteFunc(keys, func(key string) bool {
		a, present := r.attributes[key]
		return !present || !source.holds(r.values[a.origin])
	})
}

func (r *reading) drop(keys ...string) {
	for _, key := range keys {
		delete(r.attributes, key)
	}
}

// dropHalves is for a certificate whose key has been refused, and the reverse.
func (r *reading) dropHalves() {
	_, cert := r.attributes[nameClientCert]
	_, key := r.attributes[nameClientKey]
	if cert != key {
		r.drop(nameClientCert, nameClientKey)
	}
}

// reportUnused leaves a Secret alone that what is refused would need.
func (r *reading) reportUnused(source secretSource) {
	needsIt := func(n Diagnostic) bool {
		name := strings.TrimPrefix(n.Annotation, r.settings.Prefix)
		file := path.Clean(r.values[name])
		return name == source.annotation || file == source.directory || isBelow(file, source.directory)
	}
	if r.values[source.annotation] == "" || len(r.keysIn(source)) > 0 || slices.ContainsFunc(r.refusals, needsIt) {
		return
	}
	r.warn(source.annotation, "has no effect: no key of it is needed; name one below %s in another annotation, or remove it", source.directory)
}
