package vault

import (
	"context"
	"strings"
)

// mountOf is the mount of a path, which it asks Vault for unless it is known. The
// pods of a node that starts all ask at once: one asks Vault, and the others wait.
// If that one learns nothing, since its token may not ask or Vault does not answer,
// each asks for itself.
func (s *Session) mountOf(ctx context.Context, full string) (mount, error) {
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
		return mount{}, ctx.Err()
	}
	if found, ok := known.find(s.client.Namespace(), full); ok {
		return found, nil
	}
	return s.probe(ctx, full)
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
func (s *Session) probe(ctx context.Context, full string) (mount, error) {
	secret, err := s.client.Logical().ReadWithContext(during(ctx, MountProbe), "sys/internal/ui/mounts/"+full)
	if err != nil {
		return mount{}, s.failure("ask for the mount of", full, err)
	}
	if secret == nil {
		return mount{}, nil
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
