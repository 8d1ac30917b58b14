package volume

// The attributes of a volume as a whole.
const (
	keyRole            = "role"
	keyAuthType        = "auth-type"
	keyAuthPath        = "auth-path"
	keyAudience        = "audience"
	keyRoleID          = "role-id"
	keySecretID        = "secret-id"
	keyAuthMinBackoff  = "auth-min-backoff"
	keyAuthMaxBackoff  = "auth-max-backoff"
	keyAddress         = "address"
	keyProxy           = "proxy-address"
	keyNamespace       = "namespace"
	keyServerName      = "tls-server-name"
	keySkipVerify      = "tls-skip-verify"
	keyCACert          = "ca-cert"
	keyClientCert      = "client-cert"
	keyClientKey       = "client-key"
	keyClientTimeout   = "client-timeout"
	keyMaxRetries      = "client-max-retries"
	keyDefaultTemplate = "default-template"
	keyUID             = "uid"
	keyGID             = "gid"
	keySize            = "size"
	keyTokenFile       = "token-file"
	keyRefresh         = "refresh"
	keyStaticInterval  = "static-secret-render-interval"
	keyRenewal         = "lease-renewal-threshold"
	keyRevoke          = "revoke-on-unpublish"
	keyMountPath       = "mount-path"
)

// The verbs of attributes that belong to one file: <verb>/<file>. The file is
// all that follows the first slash, so it may hold slashes of its own.
const (
	verbSecret            = "secret"
	verbTemplate          = "template"
	verbTemplateKey       = "template-key"
	verbPerms             = "perms"
	verbErrorOnMissingKey = "error-on-missing-key"
	verbLeftDelim         = "left-delim"
	verbRightDelim        = "right-delim"
)

// DefaultPerms is the mode of a file that asks for none.
const DefaultPerms = 0o644

// driversChoice is the number of retries of a volume that asks for none.
const driversChoice = -1

// DefaultPath is where an auth method is mounted unless a volume says otherwise.
func (t AuthType) DefaultPath() string { return "auth/" + string(t) }

func volumeKeys() []string {
	return []string{
		keyRole, keyAuthType, keyAuthPath, keyAudience, keyRoleID, keySecretID, keyAuthMinBackoff, keyAuthMaxBackoff,
		keyAddress, keyProxy, keyNamespace, keyServerName, keySkipVerify, keyCACert, keyClientCert, keyClientKey, keyClientTimeout, keyMaxRetries,
		keyDefaultTemplate, keyUID, keyGID, keySize, keyMountPath, keyTokenFile, keyRefresh, keyStaticInterval, keyRenewal, keyRevoke,
	}
}

func fileVerbs() []string {
	return []string{verbSecret, verbTemplate, verbTemplateKey, verbPerms, verbErrorOnMissingKey, verbLeftDelim, verbRightDelim}
}
