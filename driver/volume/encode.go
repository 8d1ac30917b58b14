package volume

import "strconv"

// Encode writes a Spec as attributes, leaving defaults out: for every spec that
// Parse returns, Parse(Encode(spec)) is the same spec.
func Encode(spec Spec) map[string]string {
	attributes := map[string]string{}
	set := func(key, value string, isDefault bool) {
		if !isDefault {
			attributes[key] = value
		}
	}
	encodeAuth(spec.Auth, set)
	encodeServer(spec.Server, set)
	set(keyDefaultTemplate, string(spec.DefaultTemplate), spec.DefaultTemplate == Map)
	set(keyUID, strconv.FormatInt(spec.Owner.UID, 10), spec.Owner.UID < 0)
	set(keyGID, strconv.FormatInt(spec.Owner.GID, 10), spec.Owner.GID < 0)
	set(keySize, strconv.FormatInt(spec.Size, 10), spec.Size == 0)
	encodeLifecycle(spec.Lifecycle, set)
	set(keyMountPath, spec.MountPath, spec.MountPath == "")
	for _, file := range spec.Files {
		set(keyTokenFile, file.Path, !file.Token)
		set(verbSecret+"/"+file.Path, file.Secret, file.Secret == "")
		set(verbTemplate+"/"+file.Path, file.Template, file.Template == "")
		set(verbTemplateKey+"/"+file.Path, file.TemplateKey, file.TemplateKey == "")
		set(verbPerms+"/"+file.Path, formatPerms(file.Perms), file.Perms == DefaultPerms)
		set(verbErrorOnMissingKey+"/"+file.Path, "true", !file.ErrorOnMissingKey)
		set(verbLeftDelim+"/"+file.Path, file.LeftDelim, file.LeftDelim == "")
		set(verbRightDelim+"/"+file.Path, file.RightDelim, file.RightDelim == "")
	}
	return attributes
}

func encodeAuth(auth Auth, set func(key, value string, isDefault bool)) {
	set(keyRole, auth.Role, auth.Role == "")
	set(keyAuthType, string(auth.Type), auth.Type == Kubernetes)
	set(keyAuthPath, auth.Path, auth.Path == auth.Type.DefaultPath())
	set(keyAudience, auth.Audience.Name, !auth.Audience.Chosen)
	set(keyRoleID, auth.RoleID, auth.RoleID == "")
	set(keySecretID, auth.SecretID, auth.SecretID == "")
	set(keyAuthMinBackoff, auth.MinBackoff.String(), auth.MinBackoff == 0)
	set(keyAuthMaxBackoff, auth.MaxBackoff.String(), auth.MaxBackoff == 0)
}

func encodeServer(server Server, set func(key, value string, isDefault bool)) {
	set(keyAddress, server.Address, server.Address == "")
	set(keyProxy, server.Proxy, server.Proxy == "")
	set(keyNamespace, server.Namespace, server.Namespace == "")
	set(keyServerName, server.ServerName, server.ServerName == "")
	set(keySkipVerify, "true", !server.SkipVerify)
	set(keyCACert, server.CACert, server.CACert == "")
	set(keyClientCert, server.ClientCert, server.ClientCert == "")
	set(keyClientKey, server.ClientKey, server.ClientKey == "")
	set(keyClientTimeout, server.Timeout.String(), server.Timeout == 0)
	set(keyMaxRetries, strconv.Itoa(server.MaxRetries), server.MaxRetries < 0)
}

func encodeLifecycle(life Lifecycle, set func(key, value string, isDefault bool)) {
	set(keyRefresh, "false", life.Refresh)
	set(keyStaticInterval, life.StaticInterval.String(), life.StaticInterval == 0)
	set(keyRenewal, strconv.FormatFloat(life.RenewalThreshold, 'g', -1, 64), life.RenewalThreshold == 0)
	set(keyRevoke, string(life.Revocation), life.Revocation == DriversRevocation)
}

func formatPerms(perms uint32) string {
	return "0" + strconv.FormatUint(uint64(perms), 8)
}
