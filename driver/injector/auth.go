package injector

import (
	"cmp"
	"fmt"
	"path"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/vaultmount/vaultmount/driver/volume"
)

// The attributes of an AppRole. Their values are keys of the volume's Secret.
const (
	attrRoleID   = "role-id"
	attrSecretID = "secret-id"
)

// tokenPath is where Kubernetes mounts the pod's own service-account token.
const tokenPath = "/var/run/secrets/kubernetes.io/serviceaccount/token"

// setLogin sets the attributes of the login. It returns false if the role is unknown.
func (t *translation) setLogin() bool {
	authPath, present := t.values[nameAuthPath]
	if !present {
		authPath = t.settings.AuthPath
	}
	if strings.Trim(authPath, "/") != t.authType().DefaultPath() {
		t.setAttribute("auth-path", authPath, nameAuthPath)
	}
	if t.authType() == volume.AppRole {
		return t.checkAppRole()
	}
	if audience, chosen := t.audience(); chosen {
		t.attributes["audience"] = audience
	}
	role := t.role()
	if role.value != "" {
		t.attributes["role"] = role
	}
	return role.value != "" || t.authType() == volume.JWT
}

func (t *translation) authType() volume.AuthType {
	return volume.AuthType(cmp.Or(t.values[nameAuthType], string(volume.Kubernetes)))
}

// checkAppRole: the credentials are in the Secret. The injector checks the volume of the
// token all the same.
func (t *translation) checkAppRole() bool {
	t.warnUnread(nameRole, "has no effect with auth-type approle, whose role is in the role id; remove it")
	if value := t.values[nameTokenVolume]; value != "" {
		if _, err := t.tokenIn(value); err != nil {
			t.reject(nameTokenVolume, "%v", err)
		} else {
			t.warn(nameTokenVolume, "has no effect with auth-type approle, which shows Vault no token; remove it")
		}
	}
	_, ok := t.attributes[attrRoleID]
	if !ok {
		t.reject(nameAuthType,
			"auth-type approle needs %srole-id-file-path with a key of %s; write both or use kubernetes",
			familyAuthConfig, nameExtraSecret)
	}
	return ok
}

// role may be missing where the injector does not look for it.
func (t *translation) role() attribute {
	if role := t.values[nameRole]; role != "" {
		return attribute{role, nameRole}
	}
	if name := t.authConfigs["role"]; t.values[name] != "" {
		t.warnUnread(nameRole, "is empty, so "+name+" is the role; remove it")
		return attribute{t.values[name], name}
	}
	if t.authType() == volume.Kubernetes && t.values[nameConfigMap] == "" {
		t.reject(nameRole, "no Vault role found; name the role to log in with")
		return attribute{}
	}
	t.warnUnread(nameRole, "is empty, so Vault takes the default role of the auth method; remove it")
	return attribute{}
}

func authType(t *translation, name, value string) {
	switch volume.AuthType(value) {
	case volume.JWT, volume.AppRole:
		t.setAttribute("auth-type", value, name)
	default:
		t.reject(name, "auth-type %s is not available without an agent in the pod; use kubernetes", quote(value))
	}
}

// authConfig handles the settings of the agent's login one by one: each of them could
// change who logs in.
func authConfig(t *translation, name, value string) {
	key := authConfigKey(name)
	if first := t.authConfigs[key]; first != name {
		t.reject(name, "is the same setting as %s%s; remove one of them", t.settings.Prefix, first)
		return
	}
	switch kind := t.authType(); {
	case key == "role" && kind == volume.AppRole:
		t.warn(name, "has no effect with auth-type approle, whose role is in the role id; remove it")
	case key == "role":
		if value == "" || t.values[nameRole] != "" {
			t.warn(name, "has no effect beside %s or when empty; remove it", nameRole)
		}
	case key == tokenSetting(kind) && key != "":
		// Read by audience.
	case key == "token_path":
		t.warn(name, "has no effect with auth-type %s; remove it", quote(string(kind)))
	case key == "remove_jwt_after_reading" || key == "remove_secret_id_file_after_reading":
		t.warn(name, "has no effect: the kubelet gives tokens and Secrets to the driver without a file; remove it")
	case key == "role_id_file_path" && kind == volume.AppRole:
		t.setSecretKey(attrRoleID, name, extraSecret())
	case key == "secret_id_file_path" && kind == volume.AppRole:
		t.setSecretKey(attrSecretID, name, extraSecret())
	default:
		t.reject(name,
			"the setting %s of a login has no counterpart in vaultmount; remove it, or use auth-type kubernetes with "+
				"role and auth-path", quote(key))
	}
}

// tokenSetting is where an auth method of the agent reads the path of its token.
func tokenSetting(kind volume.AuthType) string {
	switch kind {
	case volume.Kubernetes:
		return "token_path"
	case volume.JWT:
		return "path"
	}
	return ""
}

// authConfigKey is the same for dashes and underscores, as in the injector.
func authConfigKey(name string) string {
	return strings.ReplaceAll(strings.TrimPrefix(name, familyAuthConfig), "-", "_")
}

// audience is that of the token that the agent would read. The driver never reads a
// token from the pod; it asks the kubelet for one with the same audience.
func (t *translation) audience() (attribute, bool) {
	if name, present := t.authConfigs[tokenSetting(t.authType())]; present {
		if value := t.values[name]; value != "" {
			t.warnUnread(nameTokenVolume, "is not read beside "+name+"; remove it")
			return t.audienceAt(name, value)
		}
		t.warn(name, "is empty; remove it")
	}
	value := t.values[nameTokenVolume]
	if value == "" {
		return attribute{}, false
	}
	token, err := t.tokenIn(value)
	if err != nil {
		t.reject(nameTokenVolume, "%v", err)
		return attribute{}, false
	}
	return t.checkAudience(nameTokenVolume, token.Audience)
}

// audienceAt finds the projected token that is mounted at a path.
func (t *translation) audienceAt(name, file string) (attribute, bool) {
	if file == tokenPath {
		// A jwt mount compares the audience with that of its role, so the driver's usual
		// one would not do.
		if t.authType() == volume.JWT {
			return t.checkAudience(name, "")
		}
		return attribute{}, false
	}
	wanted := path.Clean(file)
	for _, container := range t.pod.Spec.Containers {
		for _, mount := range container.VolumeMounts {
			token := t.podVolumes[mount.Name].token()
			if token != nil && path.Join(mount.MountPath, token.Path) == wanted {
				return t.checkAudience(name, token.Audience)
			}
		}
	}
	t.reject(name, "%s is not a projected service-account token that a container mounts; remove it for the pod's own token", quote(file))
	return attribute{}, false
}

// tokenIn returns the token of a volume, or the error of the injector.
func (t *translation) tokenIn(name string) (*corev1.ServiceAccountTokenProjection, error) {
	source := t.podVolumes[name]
	if token := source.token(); token != nil {
		return token, nil
	}
	isMounted := func(c PodContainer) bool {
		return slices.ContainsFunc(c.VolumeMounts, func(m PodMount) bool { return m.Name == name })
	}
	switch {
	case source != nil:
		return nil, fmt.Errorf("failed to find tokenPath for projected volume %s", quote(name))
	case slices.ContainsFunc(t.pod.Spec.Containers, isMounted):
		return nil, fmt.Errorf("failed to find volume %s in Pod %s volumes", quote(name), quote(t.pod.Metadata.Name))
	}
	return nil, fmt.Errorf("failed to find service account volume %s", quote(name))
}

func (t *translation) checkAudience(name, audience string) (attribute, bool) {
	if t.settings.Audiences != nil && !slices.Contains(t.settings.Audiences, audience) {
		t.reject(name,
			"the token's audience %s is not in the CSIDriver's tokenRequests; use one of %q",
			quote(audience), t.settings.Audiences)
		return attribute{}, false
	}
	return attribute{audience, name}, true
}
