package vault

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"path"
	"slices"
	"strings"

	lru "github.com/hashicorp/golang-lru/v2"
	"golang.org/x/sync/singleflight"

	"github.com/vaultmount/vaultmount/provider/fairqueue"
	"github.com/vaultmount/vaultmount/provider/limits"
	"github.com/vaultmount/vaultmount/provider/recovery"
)

// splitPath splits a path as templates write it into path and query. It refuses dot
// segments: the api.Client would resolve them and leave the API.
func splitPath(raw string) (string, url.Values, error) {
	if err := limits.VaultPathBytes.Check(len(raw)); err != nil {
		return "", nil, fmt.Errorf("%w: the path in Vault: %w", ErrInvalid, err)
	}
	isDot := func(segment string) bool { return segment == "." || segment == ".." }
	parsed, err := url.Parse(strings.Trim(strings.TrimSpace(raw), "/"))
	if err != nil || parsed.Path == "" || parsed.Scheme != "" || slices.ContainsFunc(strings.Split(parsed.Path, "/"), isDot) {
		return "", nil, fmt.Errorf("%w: %q is not a path in Vault", ErrInvalid, raw)
	}
	query := parsed.Query()
	if path.Clean(parsed.Path) == "sys/health" {
		// Parameters such as activecode=503 choose the status: it would look like an outage.
		for name := range query {
			if strings.HasSuffix(name, "code") {
				return "", nil, fmt.Errorf("%w: sys/health with %s chooses the status of the answer; read it without parameters that end in \"code\"",
					ErrInvalid, limits.Truncate(name, limits.SuggestionBytes.Max()))
			}
		}
	}
	return parsed.Path, query, nil
}

// kvPrefix is the part of a KV version 2 mount that an operation reads or writes.
type kvPrefix string

const (
	kvData     kvPrefix = "data"
	kvMetadata kvPrefix = "metadata"
)

// mount is a secrets engine as sys/internal/ui/mounts describes it. The zero value is
// for a mount that the token may not read.
type mount struct {
	path    string // ends with a slash
	engine  string
	version string // of a KV engine
}

func (m mount) isKV2() bool { return m.version == "2" }

// isKV reports whether the mount stores its secrets, and does not make them for the reader.
func (m mount) isKV() bool { return m.engine == "kv" }

// fullPath puts "data/" or "metadata/" where KV version 2 needs it, unless the path names
// a prefix. The rules are consul-template's, so that a template means the same as with the
// Vault Agent.
func (m mount) fullPath(full string, prefix kvPrefix) string {
	if !m.isKV2() {
		return full
	}
	rest := strings.TrimSuffix(strings.TrimPrefix(full+"/", m.path), "/")
	prefixes := []string{"metadata/"}
	if prefix == kvData {
		prefixes = []string{"data/", "metadata/", "subkeys/"}
	}
	for _, known := range prefixes {
		if strings.HasPrefix(rest, known) {
			return full
		}
	}
	return path.Join(m.path, string(prefix), rest)
}

const (
	// maxMounts bounds the cache of an endpoint, whose Vault may have a mount for any path.
	maxMounts = 1024
	// maxMountDepth is how many segments the path of a mount has at most.
	maxMountDepth = 32
)

// mountCache caches mounts: a probe for each read would double the requests. Mount paths
// cannot nest, so a prefix decides. Each namespace of Vault has its own mounts.
type mountCache struct {
	entries *lru.Cache[mountKey, mount]
	probes  singleflight.Group
}

type mountKey struct{ namespace, path string }

func newMountCache() *mountCache {
	entries, err := lru.New[mountKey, mount](maxMounts)
	if err != nil {
		panic(err) // the size is a constant
	}
	return &mountCache{entries: entries}
}

func (m *mountCache) find(namespace, full string) (mount, bool) {
	end := 0
	full += "/"
	for range maxMountDepth {
		slash := strings.IndexByte(full[end:], '/')
		if slash < 0 {
			break
		}
		end += slash + 1
		if found, ok := m.entries.Get(mountKey{namespace, full[:end]}); ok {
			return found, true
		}
	}
	return mount{}, false
}

// mayBeReplaced reports an error that a mount of another version would explain: its
// policies are for other paths, and it serves others.
func (m mount) mayBeReplaced(err error) bool {
	return m.path != "" && (errors.Is(err, ErrNotFound) || errors.Is(err, ErrRefused) && !errors.Is(err, ErrTokenGone))
}

// probeAgain asks Vault for a cached mount. It returns the cached one if Vault does not
// say: a token may not read the mount of a path that its policy no longer allows.
func (c *Client) probeAgain(ctx context.Context, full string, cached mount) (mount, error) {
	found, err := c.probeMount(ctx, full)
	if err != nil || found.path == "" {
		return cached, err
	}
	if found.path != cached.path {
		c.endpoint.mounts.entries.Remove(mountKey{c.api.Namespace(), cached.path})
	}
	return found, nil
}

// mountOf returns the mount of a path, from the cache or from Vault. Of the starting pods
// of a namespace one asks, and the others wait. Its token may not be allowed to read the
// mount, so each of the others asks for itself if the cache has no answer then.
//
// A token that may not read the mount gets the zero mount, so its path is requested as it
// is, like in consul-template. If Vault does not answer, the error is ErrUnavailable or
// ErrTokenGone: a path of the wrong KV version is not found, which looks like an answer.
func (c *Client) mountOf(ctx context.Context, full string) (mount, error) {
	cache, namespace := c.endpoint.mounts, c.api.Namespace()
	if found, ok := cache.find(namespace, full); ok {
		return found, nil
	}
	first, _, _ := strings.Cut(full, "/")
	var own *mount
	done := cache.probes.DoChan(strings.Join([]string{fairqueue.Tenant(ctx), namespace, first}, " "), func() (any, error) {
		own = &mount{}
		return nil, recovery.Do(func() (err error) { *own, err = c.probeMount(ctx, full); return err })
	})
	select {
	case result := <-done:
		if own != nil {
			return *own, result.Err
		}
	case <-ctx.Done():
		return mount{}, fmt.Errorf("wait for another pod to read the mount of %s: %w: %w", full, ErrUnavailable, ctx.Err())
	}
	if found, ok := cache.find(namespace, full); ok {
		return found, nil
	}
	return c.probeMount(ctx, full)
}

// probeMount asks Vault for the mount of a path. The mount has no path if the answer
// does not say.
func (c *Client) probeMount(ctx context.Context, full string) (mount, error) {
	const verb = "read the mount of"
	secret, err := c.api.Logical().ReadWithContext(withOperation(WithQuota(ctx, nil), OperationMountProbe), "sys/internal/ui/mounts/"+full)
	if err == nil && secret != nil {
		err = checkID(secret)
	}
	if err != nil {
		// Policies often withhold the mount, and gateways that keep sys/ to themselves answer
		// with a page. The read that follows shows what is wrong, if anything is.
		failure := c.failure(verb, full, err)
		if isPage(err) || !errors.Is(failure, ErrUnavailable) && !errors.Is(failure, ErrTokenGone) {
			return mount{}, nil
		}
		return mount{}, failure
	}
	if secret == nil {
		return mount{}, nil
	}
	var found mount
	found.path, _ = secret.Data["path"].(string)
	found.engine, _ = secret.Data["type"].(string)
	if options, ok := secret.Data["options"].(map[string]any); ok {
		found.version, _ = options["version"].(string)
	}
	if !strings.HasSuffix(found.path, "/") || !strings.HasPrefix(full+"/", found.path) {
		return mount{}, nil
	}
	c.endpoint.mounts.entries.Add(mountKey{c.api.Namespace(), found.path}, found)
	return found, nil
}

// IsKV reports whether a path is in a KV mount, version 1 or 2, whose secrets are the same
// for each reader and have no lease. It is false if the token may not read the mount.
func (c *Client) IsKV(ctx context.Context, rawPath string) (bool, error) {
	path, _, err := splitPath(rawPath)
	if err != nil {
		return false, err
	}
	found, err := c.mountOf(ctx, path)
	return found.isKV(), err
}

// KnownKV is IsKV from the cache alone; known is false if the cache has no answer.
func (p *ClientPool) KnownKV(endpoint Endpoint, namespace, rawPath string) (isKV, known bool) {
	path, _, err := splitPath(rawPath)
	p.mutex.Lock()
	used := p.endpoints[endpoint]
	p.mutex.Unlock()
	if err != nil || used == nil {
		return false, false
	}
	found, known := used.mounts.find(namespace, path)
	return found.isKV(), known
}
