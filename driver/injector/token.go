package injector

// tokenName is the injector's.
const tokenName = "token"

// checkToken leaves the choice to the administrator: who holds the Vault token can
// do all that the role may, not only read what the pod asks for.
func checkToken(r *reading, name, _ string) {
	if r.settings.ForbidToken {
		r.refuse(name, "is forbidden in this cluster; remove it, and let agent-inject-secret-FILE write the secrets themselves")
	}
}

// tokenFile is what agent-inject-token asks for, in the default volume, or nil.
// No other option of a file applies to it.
func (r *reading) tokenFile() *file {
	if !r.isOn(nameToken, false) || r.settings.ForbidToken {
		return nil
	}
	mount := r.defaultPath()
	return &file{
		origin:      nameToken,
		mount:       mount,
		destination: mount + "/" + tokenName,
		attributes:  map[string]attribute{"perms": {"0640", nameToken}},
		token:       true,
	}
}
