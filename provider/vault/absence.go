package vault

import (
	"fmt"
	"strings"

	"github.com/hashicorp/vault/api"
)

// isNothing tells an answer that holds no secret. Taken for one, it would overwrite
// the files with nothing. The client returns a secret even for status 404 if that
// comes with a warning, as of a KV mount of version 2 for a path without "data/".
func (f finding) isNothing() bool {
	return f.secret == nil || isDeleted(f.secret) || isEmpty(f.secret)
}

func isEmpty(secret *api.Secret) bool {
	return secret.Data == nil && secret.Auth == nil && secret.WrapInfo == nil && secret.LeaseID == ""
}

// isDeleted recognises a deleted or destroyed version of a KV version 2 secret,
// which Vault answers with metadata and without data. The mount does not matter: the
// token may not be allowed to ask about it.
func isDeleted(secret *api.Secret) bool {
	data, isVersion := secret.Data["data"]
	metadata, _ := secret.Data["metadata"].(map[string]any)
	return isVersion && data == nil && metadata["version"] != nil
}

// isUnnumbered recognises JSON of another program, which the client returns as the
// data of a secret: Vault's answers about mounts, and those of KV, have an id each.
// Those of some other engines have not, such as the public keys of identity tokens.
func isUnnumbered(secret *api.Secret) bool { return secret.RequestID == "" }

func (s *Client) unnumbered(verb, path string) error {
	return fmt.Errorf("%s %s in Vault at %s: %w: the answer has no request_id, so it is not Vault's; check the address, and what stands between", verb, path, s.client.Address(), ErrUnavailable)
}

// absence says that nothing was found, in Vault's own words if it has some.
func (s *Client) absence(verb, path string, found finding) error {
	hint := notFoundHint(path, found.path)
	if found.secret != nil && len(found.secret.Warnings) > 0 {
		hint = warningHint(oneLine(strings.Join(found.secret.Warnings, "; ")))
	}
	return fmt.Errorf("%s %s: %w", verb, found.path, redact(fmt.Errorf("%w: %s", ErrNotFound, hint), s.client.Token()))
}

// warningHint adds what to do about a path that Vault would not take, where the
// token may not ask about the mount.
func warningHint(words string) string {
	if strings.Contains(words, "versioned K/V") {
		return words + "; write data/ after the mount's path, or metadata/ to list"
	}
	return words
}

func notFoundHint(path, fullPath string) string {
	if path == fullPath {
		return "nothing is stored there, or it is deleted"
	}
	return fmt.Sprintf("nothing is stored at %s, or it is deleted", path)
}
