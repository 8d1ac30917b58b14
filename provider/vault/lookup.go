package vault

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/hashicorp/vault/api"
)

// finding is what Vault answered, and at which path.
type finding struct {
	path   string
	secret *api.Secret
}

// look asks at the path where its mount keeps what a verb wants. If that is not there,
// or is refused, the mount may be another by now: one of KV version 1 is upgraded in
// place, or a new one made in its stead. Vault is asked for the mount again then, and
// once more for what is wanted if that leads elsewhere.
func (s *Session) look(ctx context.Context, path string, area kvArea, ask func(fullPath string) (*api.Secret, error)) (finding, error) {
	fullPath, mount, err := s.resolve(ctx, path, area)
	if err != nil {
		return finding{}, err
	}
	secret, err := ask(fullPath)
	first := finding{fullPath, secret}
	settled := err == nil && !first.isNothing() || err != nil && !mayBeElsewhere(err)
	if settled || mount.path == "" {
		return first, err
	}
	now, probed := s.learnAnew(ctx, path, mount)
	if probed != nil {
		return finding{}, probed
	}
	if elsewhere := now.locate(path, area); elsewhere != fullPath {
		secret, err = ask(elsewhere)
		return finding{elsewhere, secret}, err
	}
	return first, err
}

// mayBeElsewhere tells a failure that a mount of another version than was thought
// would explain: its policies are for other paths, and it serves others.
func mayBeElsewhere(err error) bool {
	return errors.Is(err, ErrNotFound) || errors.Is(err, ErrRefused) && !errors.Is(err, ErrTokenGone)
}

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

// absence says that nothing was found, in Vault's own words if it has some.
func (s *Session) absence(verb, path string, found finding) error {
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
