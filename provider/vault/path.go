package vault

import (
	"context"
	"fmt"
	"net/url"
	"path"
	"strings"
	"sync"

	"github.com/vaultmount/vaultmount/provider/limits"
)

// splitPath takes a path as templates write it apart. Dot parts are refused,
// since the client would fold them and leave the API.
func splitPath(raw string) (string, url.Values, error) {
	if err := limits.VaultPathBytes.Check(len(raw)); err != nil {
		return "", nil, fmt.Errorf("%w: the path in Vault: %w", ErrInvalid, err)
	}
	parsed, err := url.Parse(strings.Trim(strings.TrimSpace(raw), "/"))
	if err != nil || parsed.Path == "" || parsed.Scheme != "" || hasDotPart(parsed.Path) {
		return "", nil, fmt.Errorf("%w: %q is not a path in Vault", ErrInvalid, raw)
	}
	query := parsed.Query()
	if err := checkQuery(parsed.Path, query); err != nil {
		return "", nil, err
	}
	return parsed.Path, query, nil
}

// checkQuery refuses to have Vault's health answered with a status of one's choice
// (activecode=503): the answer would look like an outage.
func checkQuery(asked string, query url.Values) error {
	const health = "sys/health"
	if path.Clean(asked) != health {
		return nil
	}
	for name := range query {
		if strings.HasSuffix(name, "code") {
			return fmt.Errorf("%w: %s with %s chooses the status of the answer; read it without parameters that end in \"code\"", ErrInvalid, health, limits.Truncate(name, limits.SuggestionBytes.Max()))
		}
	}
	return nil
}

func hasDotPart(path string) bool {
	for part := range strings.SplitSeq(path, "/") {
		if part == "." || part == ".." {
			return true
		}
	}
	return false
}

// kvArea is the part of a KV version 2 mount that a verb works on.
type kvArea string

const (
	kvData     kvArea = "data"
	kvMetadata kvArea = "metadata"
)

// mount is a secrets engine as sys/internal/ui/mounts tells of it. The zero
// value stands for a mount that the token may not ask about.
type mount struct {
	namespace string
	path      string // ends with a slash
	engine    string
	version   string // of a KV engine
}

func (m mount) isKV2() bool { return m.version == "2" }

// isKV tells a mount whose secrets are stored, not made for whoever reads them.
func (m mount) isKV() bool { return m.engine == "kv" }

// locate returns where the mount has a path of a template.
func (m mount) locate(full string, area kvArea) string {
	if !m.isKV2() {
		return full
	}
	return m.withArea(full, area)
}

// withArea puts "data/" or "metadata/" where KV version 2 wants it, unless the
// path already says which area it means. The rules are consul-template's, so
// that a template means here what it means to the Vault Agent.
func (m mount) withArea(full string, area kvArea) string {
	rest := strings.TrimSuffix(strings.TrimPrefix(full+"/", m.path), "/")
	named := []string{"metadata/"}
	if area == kvData {
		named = []string{"data/", "metadata/", "subkeys/"}
	}
	for _, prefix := range named {
		if strings.HasPrefix(rest, prefix) {
			return full
		}
	}
	return path.Join(m.path, string(area), rest)
}

// mounts remembers what was learnt about mounts, since a probe for each read
// would double the requests. Mount paths cannot nest, so a prefix decides. Each
// namespace of Vault has its own.
type mounts struct {
	mutex sync.RWMutex
	known map[place]mount
	// probing are closed when the answer is there; by the first part of a path.
	probing map[place]chan struct{}
}

// place is where a mount is.
type place struct{ namespace, path string }

func newMounts() *mounts {
	return &mounts{known: map[place]mount{}, probing: map[place]chan struct{}{}}
}

const (
	// maxMounts bounds what is remembered of a server that has a mount for any path.
	maxMounts = 1024
	// maxMountDepth is how many parts the path of a mount has that is remembered.
	maxMountDepth = 32
)

func (m *mounts) find(namespace, full string) (mount, bool) {
	m.mutex.RLock()
	defer m.mutex.RUnlock()
	end := 0
	full += "/"
	for range maxMountDepth {
		slash := strings.IndexByte(full[end:], '/')
		if slash < 0 {
			break
		}
		end += slash + 1
		if found, ok := m.known[place{namespace, full[:end]}]; ok {
			return found, true
		}
	}
	return mount{}, false
}

func (m *mounts) remember(found mount) {
	m.mutex.Lock()
	defer m.mutex.Unlock()
	if len(m.known) >= maxMounts {
		clear(m.known)
	}
	m.known[place{found.namespace, found.path}] = found
}

// forget drops a mount that is no more. What was learnt of another at its path in
// the meantime stays.
func (m *mounts) forget(old mount) {
	m.mutex.Lock()
	defer m.mutex.Unlock()
	if at := (place{old.namespace, old.path}); m.known[at] == old {
		delete(m.known, at)
	}
}

// resolve returns the path to ask Vault for, and its mount. A token that may not
// ask about the mount gets the path as it is, like consul-template does. But a Vault
// that does not say now must not have the path taken for one of another version:
// what is asked for at the wrong place is not there.
func (s *Client) resolve(ctx context.Context, full string, area kvArea) (string, mount, error) {
	found, err := s.mountOf(ctx, full)
	if err != nil {
		return "", mount{}, err
	}
	return found.locate(full, area), found, nil
}
