package vault

import (
	"context"
	"errors"

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
func (s *Client) look(ctx context.Context, path string, area kvArea, ask func(fullPath string) (*api.Secret, error)) (finding, error) {
	fullPath, mount, err := s.resolve(ctx, path, area)
	if err != nil {
		return finding{}, err
	}
	secret, err := ask(fullPath)
	if secret != nil && mount.isKV() && isUnnumbered(secret) {
		return finding{}, s.unnumbered("ask for", fullPath)
	}
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
