package vault

import "context"

// KnownKV reports whether a path is in a KV mount, version 1 or 2, as far as that
// was learnt before; otherwise known is false. It asks Vault nothing.
func (s *ClientPool) KnownKV(endpoint Endpoint, namespace, rawPath string) (isKV, known bool) {
	path, _, err := splitPath(rawPath)
	if err != nil {
		return false, false
	}
	s.mutex.Lock()
	server := s.endpoints[endpoint]
	s.mutex.Unlock()
	if server == nil {
		return false, false
	}
	found, known := server.mounts.find(namespace, path)
	return found.isKV(), known
}

// IsKV asks for the mount of a path, unless it is known: true for KV, version 1 or
// 2, whose secrets are the same for whoever reads them and have no lease. It is
// false where the token may not ask about the mount.
func (s *Client) IsKV(ctx context.Context, rawPath string) (bool, error) {
	path, _, err := splitPath(rawPath)
	if err != nil {
		return false, err
	}
	found, err := s.mountOf(ctx, path)
	return found.isKV(), err
}
