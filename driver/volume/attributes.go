package volume

import (
	"errors"
	"strconv"

	"github.com/vaultmount/vaultmount/provider/limits"
)

// Keys that other code than the table names.
const (
	keyRole       = "role"
	keyAuthType   = "auth-type"
	keyAudience   = "audience"
	keyRoleID     = "role-id"
	keySecretID   = "secret-id"
	keyMinBackoff = "auth-min-backoff"
	keySkipVerify = "tls-skip-verify"
	keyClientCert = "client-cert"
	keyClientKey  = "client-key"
	keyTokenFile  = "token-file"

	fileSecret      = "secret"
	fileTemplate    = "template"
	fileTemplateKey = "template-key"
	filePerms       = "perms"
	fileLeftDelim   = "left-delim"
	fileRightDelim  = "right-delim"
)

// Reference texts of values. After a semicolon comes what to write instead.
const (
	textName      = `a name; write it without spaces around it and without control characters`
	textAuthType  = `an auth method; write "kubernetes", "jwt" or "approle"`
	textAuthPath  = `the path of an auth method; write it as "vault auth list" shows it, for example "auth/kubernetes"`
	textKey       = `the name of a key in the volume's Secret; write for example "ca.crt"`
	textDuration  = `a duration; write for example "5s"`
	textURL       = `a URL of scheme, host and port; write for example "https://vault.example.com:8200"`
	textNamespace = `a Vault namespace; write it as a path, for example "team/app"`
	textHostName  = `a host name or an IP address; write a name of Vault's certificate, for example "vault.example.com"`
	textBoolean   = `a boolean; write "true" or "false"`
	textRetries   = `a number of retries from 0 to 100`
	textFormat    = `a built-in template; write "map" or "json"`
	textID        = `a numeric id from 0 to 4294967294`
	textSize      = `a quantity of bytes; write for example "1Mi"`
	textMountPath = `a directory in containers; write the mountPath of the volume, for example "/vault/secrets"`
	textFraction  = `a fraction above 0 and up to 1; write for example "0.9"`
	textVaultPath = `a path in Vault; a path has no quote, backslash or control character. To pass arguments to Vault, write template/<file>`
	textPerms     = `an octal file mode; write for example "0640"`
	textDelimiter = `a delimiter; write characters without white space, or leave it out for {{ or }}`
)

// attribute is one row of the vocabulary. README.md is tested against it.
type attribute struct {
	// key is the whole key of an attribute of the volume. An attribute of one file is
	// <key>/<file>, and the path of the file may have slashes.
	key   string
	limit limits.Limit // of the value
	text  string       // an error says that a value is not that
	set   func(value string) error
}

// errMismatch is for a value that is not what the text of its attribute says.
var errMismatch = errors.New("is not of this type")

// into returns a function that parses a value and stores it.
func into[T any](field *T, parse func(string) (T, error)) func(string) error {
	return func(value string) (err error) {
		*field, err = parse(value)
		return err
	}
}

// attributes are those of the volume.
func (s *Spec) attributes() []attribute {
	auth, server, life := &s.Auth, &s.Server, &s.Lifecycle
	return []attribute{
		{keyRole, limits.NameBytes, textName, into(&auth.Role, parseName)},
		{keyAuthType, limits.NameBytes, textAuthType, into(&auth.Type, parseAuthType)},
		{"auth-path", limits.NameBytes, textAuthPath, into(&auth.Path, parseAuthPath)},
		{keyAudience, limits.NameBytes, "an audience", into(&auth.Audience, parseAudience)},
		{keyRoleID, limits.SecretKeyBytes, textKey, into(&auth.RoleID, parseSecretKey)},
		{keySecretID, limits.SecretKeyBytes, textKey, into(&auth.SecretID, parseSecretKey)},
		{keyMinBackoff, limits.NameBytes, textDuration, into(&auth.MinBackoff, parseDuration)},
		{"auth-max-backoff", limits.NameBytes, textDuration, into(&auth.MaxBackoff, parseDuration)},

		{"address", limits.AddressBytes, textURL, into(&server.Address, parseURL)},
		{"proxy-address", limits.AddressBytes, textURL, into(&server.Proxy, parseURL)},
		{"namespace", limits.NameBytes, textNamespace, into(&server.Namespace, parseNamespace)},
		{"tls-server-name", limits.HostBytes, textHostName, into(&server.ServerName, parseHostName)},
		{keySkipVerify, limits.NameBytes, textBoolean, into(&server.SkipVerify, strconv.ParseBool)},
		{"ca-cert", limits.SecretKeyBytes, textKey, into(&server.CACert, parseCACert)},
		{keyClientCert, limits.SecretKeyBytes, textKey, into(&server.ClientCert, parseSecretKey)},
		{keyClientKey, limits.SecretKeyBytes, textKey, into(&server.ClientKey, parseSecretKey)},
		{"client-timeout", limits.NameBytes, textDuration, into(&server.Timeout, parseDurationOrSeconds)},
		{"client-max-retries", limits.NameBytes, textRetries, into(&server.MaxRetries, parseRetries)},

		{"default-template", limits.NameBytes, textFormat, into(&s.DefaultTemplate, parseFormat)},
		{"uid", limits.NameBytes, textID, into(&s.Owner.UID, parseID)},
		{"gid", limits.NameBytes, textID, into(&s.Owner.GID, parseID)},
		{"size", limits.NameBytes, textSize, into(&s.Size, parseSize)},
		{"mount-path", limits.FilePathBytes, textMountPath, into(&s.MountPath, parseMountPath)},

		{"refresh", limits.NameBytes, textBoolean, into(&life.Refresh, strconv.ParseBool)},
		{"static-secret-render-interval", limits.NameBytes, textDuration, into(&life.StaticInterval, parseDurationOrSeconds)},
		{"lease-renewal-threshold", limits.NameBytes, textFraction, into(&life.RenewalThreshold, parseFraction)},
		{"revoke-on-unpublish", limits.NameBytes, textBoolean, into(&life.Revoke, parseRevokePolicy)},
		// parseFiles makes this file.
		{keyTokenFile, limits.FilePathBytes, "the path of a file", func(string) error { return nil }},
	}
}

// attributes are those of the file.
func (f *File) attributes() []attribute {
	return []attribute{
		{fileSecret, limits.VaultPathBytes, textVaultPath, into(&f.Secret, parseVaultPath)},
		{fileTemplate, limits.TemplateBytes, "a template", into(&f.Template, func(value string) (string, error) { return value, nil })},
		{fileTemplateKey, limits.SecretKeyBytes, textKey, into(&f.TemplateKey, parseSecretKey)},
		{filePerms, limits.NameBytes, textPerms, into(&f.Perms, parsePerms)},
		{"error-on-missing-key", limits.NameBytes, textBoolean, into(&f.ErrorOnMissingKey, strconv.ParseBool)},
		{fileLeftDelim, limits.NameBytes, textDelimiter, into(&f.LeftDelim, parseDelimiter)},
		{fileRightDelim, limits.NameBytes, textDelimiter, into(&f.RightDelim, parseDelimiter)},
	}
}
