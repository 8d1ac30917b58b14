package vault

import (
	"context"
	"errors"
	"fmt"
	"strings"
)

// mountOf is the mount of a path, which it asks Vault for unless it is known. The
// pods of a node that starts all ask at once: one asks Vault, and the others wait.
// If that one learns nothing, since its token may not ask or Vault does not answer,
// each asks for itself. The mount has no path if the token may not ask about it; the
// error is ErrUnavailable, or ErrTokenGone.
func (s *Client) mountOf(ctx context.Context, full string) (mount, error) {
	known := s.server.mounts
	if found, ok := known.find(s.client.Namespace(), full); ok {
		return found, nil
	}
	first, _, _ := strings.Cut(full, "/")
	probed, end := known.begin(place{s.client.Namespace(), first})
	if end != nil {
		defer end()
		return s.probe(ctx, full)
	}
	select {
	case <-probed:
	case <-ctx.Done():
		return mount{}, fmt.Errorf("wait for another pod to ask for the mount of %s: %w: %w", full, ErrUnavailable, ctx.Err())
	}
	if found, ok := known.find(s.client.Namespace(), full); ok {
		return found, nil
	}
	return s.probe(ctx, full)
}

// learnAnew asks for the mount of a path that is known. It stays as it is known if
// Vault does not say: a token may not ask whose policy has nothing in the mount.
func (s *Client) learnAnew(ctx context.Context, full string, known mount) (mount, error) {
	found, err := s.probe(ctx, full)
	if err != nil || found.path == "" {
		return known, err
	}
	if found != known {
		s.server.mounts.forget(known)
	}
	return found, nil
}

// begin returns what to wait for if somebody asks for a mount at a place, and
// otherwise what to call when the caller has asked.
func (m *mounts) begin(at place) (probed <-chan struct{}, end func()) {
	m.mutex.Lock()
	defer m.mutex.Unlock()
	if others := m.probing[at]; others != nil {
		return others, nil
	}
	own := make(chan struct{})
	m.probing[at] = own
	return nil, func() {
		m.mutex.Lock()
		defer m.mutex.Unlock()
		delete(m.probing, at)
		close(own)
	}
}

// probe asks Vault which mount a path is in. The mount has no path if the answer
// does not say.
func (s *Client) probe(ctx context.Context, full string) (mount, error) {
	secret, err := s.client.Logical().ReadWithContext(during(WithQuota(ctx, nil), MountProbe), "sys/internal/ui/mounts/"+full)
	if err != nil {
		return mount{}, s.probeFailure(full, err)
	}
	if secret == nil {
		return mount{}, nil
	}
	if isUnnumbered(secret) {
		return mount{}, s.unnumbered("ask for the mount of", full)
	}
	found := mount{namespace: s.client.Namespace()}
	found.path, _ = secret.Data["path"].(string)
	found.engine, _ = secret.Data["type"].(string)
	if options, ok := secret.Data["options"].(map[string]any); ok {
		found.version, _ = options["version"].(string)
	}
	if !strings.HasSuffix(found.path, "/") || !strings.HasPrefix(full+"/", found.path) {
		return mount{}, nil
	}
	s.server.mounts.remember(found)
	return found, nil
}

// probeFailure leaves out what does not pass: policies often withhold the mount, and
// gateways that keep sys/ to themselves say so with a page. What is wrong, if anything
// is, shows at the read that follows.
func (s *Client) probeFailure(full string, err error) error {
	failure := s.failure("ask for the mount of", full, err)
	if isPage(err) || !errors.Is(failure, ErrUnavailable) && !errors.Is(failure, ErrTokenGone) {
		return nil
	}
	return failure
}
