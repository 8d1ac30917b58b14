package injector

import (
	"cmp"
	"strings"

	"github.com/vaultmount/vaultmount/driver/volume"
	"github.com/vaultmount/vaultmount/provider/limits"
)

// defaultAuthPath is the injector's, for pods that name none.
const defaultAuthPath = "auth/kubernetes"

// The attributes of an approle, whose values are keys of the volume's Secret.
const (
	keyRoleID   = "role-id"
	keySecretID = "secret-id"
)

// login makes the attributes that say how to log in. It says no if who logs in is
// not known.
func (r *reading) login() bool {
	r.attributes["auth-path"] = r.authPath()
	if r.authType() == volume.AppRole {
		return r.appRole()
	}
	if audience, chosen := r.audience(); chosen {
		r.attributes["audience"] = audience
	}
	role := r.role()
	if role.value != "" {
		r.attributes["role"] = role
	}
	return role.value != "" || r.authType() == volume.JWT
}

func (r *reading) authType() volume.AuthType {
	return volume.AuthType(cmp.Or(r.values[nameAuthType], string(volume.Kubernetes)))
}

// appRole has what it needs in the Secret. The injector checks the volume of the
// token all the same.
func (r *reading) appRole() bool {
	r.reportUnread(nameRole, "has no effect with auth-type approle, whose role is in the role id; remove it")
	if value := r.values[nameTokenVolume]; value != "" {
		if _, err := r.tokenIn(value); err != nil {
			r.refuse(nameTokenVolume, "%v", err)
		} else {
			r.warn(nameTokenVolume, "has no effect with auth-type approle, which shows Vault no token; remove it")
		}
	}
	_, ok := r.attributes[keyRoleID]
	if !ok {
		r.refuse(nameAuthType, "auth-type approle is not available without an agent in the pod, but for %srole-id-file-path with a key of %s; write both or use kubernetes", familyAuthConfig, nameExtraSecret)
	}
	return ok
}

// role is missing without a fault where the injector does not look for it.
func (r *reading) role() attribute {
	if role := r.values[nameRole]; role != "" {
		return attribute{role, nameRole}
	}
	if name, present := r.authConfig("role"); present && r.values[name] != "" {
		r.reportUnread(nameRole, "is empty, so "+name+" is the role; remove it")
		return attribute{r.values[name], name}
	}
	if r.authType() == volume.Kubernetes && r.values[nameConfigMap] == "" {
		r.refuse(nameRole, "no Vault role found; name the role to log in with")
		return attribute{}
	}
	r.reportUnread(nameRole, "is empty, so Vault takes the default role of the auth method; remove it")
	return attribute{}
}

func (r *reading) authPath() attribute {
	value, present := r.values[nameAuthPath]
	if !present {
		return attribute{r.settings.AuthPath, nameAuthPath}
	}
	if value == "" {
		r.refuse(nameAuthPath, "no Vault Auth Path found; remove it for %q", r.settings.AuthPath)
		return attribute{r.settings.AuthPath, nameAuthPath}
	}
	return attribute{value, nameAuthPath}
}

func checkAuthType(r *reading, name, value string) {
	switch volume.AuthType(value) {
	case volume.Kubernetes:
	case volume.JWT, volume.AppRole:
		emit("auth-type")(r, name, value)
	case "":
		r.refuse(name, "no Vault Auth Type found; remove it for kubernetes")
	default:
		r.refuse(name, "auth-type %s is not available without an agent in the pod; use kubernetes", limits.Truncate(value, 40))
	}
}

// checkAuthConfig treats the settings of the agent's login one by one: none may
// be passed over, since each could change who logs in.
func checkAuthConfig(r *reading, name, value string) {
	key := authConfigKey(name)
	if first, _ := r.authConfig(key); first != name {
		r.refuse(name, "is the same setting as %s%s; remove one of them", r.settings.Prefix, first)
		return
	}
	switch kind := r.authType(); {
	case key == "role":
		if kind == volume.AppRole {
			r.warn(name, "has no effect with auth-type approle, whose role is in the role id; remove it")
		} else if value == "" || r.values[nameRole] != "" {
			r.warn(name, "has no effect beside %s or when empty; remove it", nameRole)
		}
	case key == tokenSetting(kind) && key != "":
		// Read by audience.
	case key == "token_path":
		r.warn(name, "has no effect with auth-type %s; remove it", limits.Truncate(string(kind), 40))
	case key == "remove_jwt_after_reading" || key == "remove_secret_id_file_after_reading":
		r.warn(name, "has no effect: the kubelet hands tokens and Secrets to the driver without a file; remove it")
	case key == "role_id_file_path" && kind == volume.AppRole:
		emitKey(keyRoleID, extraSecret())(r, name, value)
	case key == "secret_id_file_path" && kind == volume.AppRole:
		emitKey(keySecretID, extraSecret())(r, name, value)
	default:
		r.refuse(name, "the setting %s of a login has no counterpart in vaultmount; remove it, or use auth-type kubernetes with role and auth-path", quote(key))
	}
}

// tokenSetting is where an auth method of the agent reads its token from.
func tokenSetting(kind volume.AuthType) string {
	switch kind {
	case volume.Kubernetes:
		return "token_path"
	case volume.JWT:
		return "path"
	}
	return ""
}

// authConfig returns the first annotation that holds a setting: dashes and
// underscores are the same to the injector.
func (r *reading) authConfig(key string) (name string, present bool) {
	name, present = r.authConfigs[key]
	return name, present
}

func authConfigKey(name string) string {
	return strings.ReplaceAll(strings.TrimPrefix(name, familyAuthConfig), "-", "_")
}
