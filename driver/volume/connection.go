package volume

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"path"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/vaultmount/vaultmount/provider/limits"
)

// connectionKeys are the attributes that say which Vault and how to enter it.
func (p *parser) connectionKeys() map[string]func(string) error {
	auth, server := &p.spec.Auth, &p.spec.Server
	return map[string]func(string) error{
		keyRole:           into(&auth.Role, parseName),
		keyAuthType:       into(&auth.Type, parseAuthType),
		keyAuthPath:       into(&auth.Path, parseAuthPath),
		keyAudience:       into(&auth.Audience, parseAudience),
		keyRoleID:         into(&auth.RoleID, parseSecretKey),
		keySecretID:       into(&auth.SecretID, parseSecretKey),
		keyAuthMinBackoff: into(&auth.MinBackoff, parseDuration),
		keyAuthMaxBackoff: into(&auth.MaxBackoff, parseDuration),
		keyAddress:        into(&server.Address, parseURL),
		keyProxy:          into(&server.Proxy, parseURL),
		keyNamespace:      into(&server.Namespace, parseNamespace),
		keyServerName:     into(&server.ServerName, parseHostName),
		keySkipVerify:     into(&server.SkipVerify, parseBool),
		keyCACert:         into(&server.CACert, parseAuthority),
		keyClientCert:     into(&server.ClientCert, parseSecretKey),
		keyClientKey:      into(&server.ClientKey, parseSecretKey),
		keyClientTimeout:  into(&server.Timeout, parseDurationOrSeconds),
		keyMaxRetries:     into(&server.MaxRetries, parseRetries),
	}
}

// into returns a function that parses a value and stores it.
func into[T any](field *T, parse func(string) (T, error)) func(string) error {
	return func(value string) (err error) {
		*field, err = parse(value)
		return err
	}
}

func (p *parser) checkAuth() error {
	auth := &p.spec.Auth
	if auth.Path == "" {
		auth.Path = auth.Type.DefaultPath()
	}
	if auth.Type != AppRole {
		for _, half := range [][2]string{{keyRoleID, auth.RoleID}, {keySecretID, auth.SecretID}} {
			if half[1] != "" {
				return wrong(half[0], "belongs to auth-type \"approle\", and the auth-type is %q", auth.Type)
			}
		}
	}
	switch {
	case auth.Type == Kubernetes && auth.Role == "":
		return wrong(keyRole, "is missing; name the Vault role to log in with")
	case auth.Type == AppRole && auth.Role != "":
		return wrong(keyRole, "does not belong to auth-type \"approle\", whose role is in the role id; leave it out")
	case auth.Type == AppRole && auth.Audience.Chosen:
		return wrong(keyAudience, "does not belong to auth-type \"approle\", which shows Vault no service-account token; leave it out")
	case auth.Type == AppRole && auth.RoleID == "":
		return wrong(keyRoleID, "is missing; name the key of the nodePublishSecretRef's Secret that holds the role id")
	case auth.MaxBackoff > 0 && auth.MinBackoff > auth.MaxBackoff:
		return wrong(keyAuthMinBackoff, "%s is more than auth-max-backoff, %s", auth.MinBackoff, auth.MaxBackoff)
	}
	return nil
}

func (p *parser) checkServer() error {
	server := p.spec.Server
	switch {
	case server.ClientCert != "" && server.ClientKey == "":
		return wrong(keyClientKey, "is missing; a client-cert needs its key")
	case server.ClientKey != "" && server.ClientCert == "":
		return wrong(keyClientCert, "is missing; a client-key needs its certificate")
	case server.SkipVerify && server.CACert != "":
		return wrong(keySkipVerify, "contradicts ca-cert: without verification the certificate authority means nothing; leave one of the two out")
	}
	return nil
}

func parseAuthType(value string) (AuthType, error) {
	switch t := AuthType(value); t {
	case Kubernetes, JWT, AppRole:
		return t, nil
	}
	return "", fmt.Errorf("%s is not available; use %q, %q or %q", quote(value), Kubernetes, JWT, AppRole)
}

func parseName(value string) (string, error) {
	if value == "" || value != strings.TrimSpace(value) || strings.ContainsFunc(value, unicode.IsControl) {
		return "", errors.New("must not be empty, and must not start or end with white space or hold control characters")
	}
	return value, nil
}

// parseHostName takes what a certificate can be held against: as crypto/x509 does,
// also underscores, which the names of containers have.
func parseHostName(value string) (string, error) {
	isLetter := func(r rune) bool {
		return r == '-' || r == '_' || r >= '0' && r <= '9' || r >= 'A' && r <= 'Z' || r >= 'a' && r <= 'z'
	}
	valid := true
	for label := range strings.SplitSeq(strings.TrimSuffix(value, "."), ".") {
		valid = valid && label != "" && len(label) <= maxLabelBytes && !strings.ContainsFunc(label, func(r rune) bool { return !isLetter(r) })
	}
	if !valid && net.ParseIP(value) == nil {
		return "", fmt.Errorf("%s is neither the name of a host nor an IP address; write a name of Vault's certificate, for example \"vault.example.com\"", quote(value))
	}
	return value, nil
}

// maxLabelBytes is the length of a part of a host name (RFC 1035, section 2.3.4).
const maxLabelBytes = 63

func parseAudience(value string) (Audience, error) {
	return Audience{Name: value, Chosen: true}, nil
}

func parseAuthPath(value string) (string, error) {
	trimmed := strings.Trim(value, "/")
	if trimmed == "" {
		return "", fmt.Errorf("is empty; leave it out for the usual one, such as %q", Kubernetes.DefaultPath())
	}
	if !isVaultPath(trimmed) || trimmed == "auth" {
		return "", fmt.Errorf("%s is not a path in Vault; write it as Vault lists it, for example %q", quote(value), Kubernetes.DefaultPath())
	}
	if !strings.HasPrefix(trimmed, "auth/") && !strings.Contains(trimmed, "/auth/") {
		return "", fmt.Errorf("%s does not begin with auth/; write %s", quote(value), quote("auth/"+trimmed))
	}
	return trimmed, nil
}

// parseNamespace takes an empty one for the namespace of the driver's default,
// as the injector does.
func parseNamespace(value string) (string, error) {
	trimmed := strings.Trim(value, "/")
	if trimmed != "" && !isVaultPath(trimmed) {
		return "", fmt.Errorf("%s is not a Vault namespace; write it as a path, for example \"team/app\"", quote(value))
	}
	return trimmed, nil
}

func isVaultPath(value string) bool {
	return !strings.ContainsAny(value, "?#%\\") && !strings.ContainsFunc(value, isSpaceOrControl) &&
		path.Clean(value) == value && !strings.HasPrefix(value, "..")
}

func isSpaceOrControl(r rune) bool {
	return unicode.IsSpace(r) || unicode.IsControl(r)
}

func parseURL(value string) (string, error) {
	address, err := url.Parse(value)
	if err != nil || address.Scheme != "https" && address.Scheme != "http" || address.Hostname() == "" {
		return "", fmt.Errorf("%s is not a URL; write it like \"https://vault.example.com:8200\"", quote(value))
	}
	if address.User != nil || strings.Trim(address.Path, "/") != "" || address.RawQuery != "" || address.Fragment != "" {
		return "", errors.New("holds more than scheme, host and port; write it like \"https://vault.example.com:8200\"")
	}
	if err := limits.HostBytes.Check(len(address.Hostname())); err != nil {
		return "", fmt.Errorf("the host: %w", err)
	}
	return address.Scheme + "://" + strings.ToLower(address.Host), nil
}

// parseDuration insists on a unit, as the injector does for its back-offs.
func parseDuration(value string) (time.Duration, error) {
	duration, err := time.ParseDuration(value)
	if err != nil || duration <= 0 {
		return 0, fmt.Errorf("%s is not a length of time; write for example \"5s\"", quote(value))
	}
	return duration, nil
}

// parseDurationOrSeconds takes plain seconds as well, as Vault's own programs do.
func parseDurationOrSeconds(value string) (time.Duration, error) {
	if seconds, err := strconv.ParseUint(value, 10, 32); err == nil {
		value = strconv.FormatUint(seconds, 10) + "s"
	}
	return parseDuration(value)
}

func parseRetries(value string) (int, error) {
	const most = 100
	retries, err := strconv.ParseUint(value, 10, 31)
	if err != nil || retries > most {
		return 0, fmt.Errorf("%s is not a number of retries from 0 to %d", quote(value), most)
	}
	return int(retries), nil
}
