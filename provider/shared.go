package provider

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/singleflight"

	"github.com/vaultmount/vaultmount/provider/limits"
	"github.com/vaultmount/vaultmount/provider/recovery"
	"github.com/vaultmount/vaultmount/provider/template"
	"github.com/vaultmount/vaultmount/provider/vault"
)

// ParseSharing returns the setting of a word; empty is ShareNothing.
func ParseSharing(text string) (Sharing, error) {
	switch s := Sharing(text); s {
	case ShareNothing, ShareServiceAccount:
		return s, nil
	case "":
		return ShareNothing, nil
	}
	return "", fmt.Errorf("%q is no way to share logins; write %s or %s", text, ShareNothing, ShareServiceAccount)
}

// sharingKey names what volumes have in common that share a login; empty for a volume that
// shares none. A client certificate is part of the identity for Vault, and an AppRole is
// not the service account. With its own CA, a volume may reach another Vault.
func (m *Manager) sharingKey(c loginConfig, policy RefreshPolicy) string {
	isAlone := c.Login.RoleID != "" || c.Login.ServiceAccount == "" || c.Endpoint.ClientCert != "" || policy.Disabled
	if m.sharing != ShareServiceAccount || isAlone {
		return ""
	}
	parts, err := json.Marshal([]any{
		c.Login.ServiceAccount, c.Endpoint.Address, c.Endpoint.Proxy, c.Endpoint.ServerName, c.Endpoint.SkipVerify, c.Endpoint.CACert,
		c.Options.Namespace, c.Login.Mount, c.Login.Role, c.Login.Audience,
	})
	if err != nil {
		panic(err) // strings and booleans can be encoded
	}
	return hash(string(parts))
}

// sharedSession is the login of the pods of a service account, and what they read with it.
// Whichever of them needs a token, and finds none, logs in with its own credentials.
type sharedSession struct {
	manager        *Manager
	key, namespace string
	recordKey      string
	cache          kvCache

	// turn holds one. Whoever has put it there owns session.
	turn     chan struct{}
	session  *session
	snapshot atomic.Pointer[sharedSnapshot]

	mutex    sync.Mutex
	members  map[*Volume]bool
	isRevoke bool // when the last member leaves
}

type sharedSnapshot struct {
	status   SessionStatus
	current  issuedToken
	revision int
}

func (m *Manager) newSharedSession(key, namespace string) *sharedSession {
	s := &sharedSession{
		manager: m, key: key, namespace: namespace, recordKey: fmt.Sprintf("%s%s-%d", sharedPrefix, key, m.now()),
		cache: kvCache{entries: map[template.Dependency]*kvEntry{}}, turn: make(chan struct{}, 1),
		session: &session{manager: m}, members: map[*Volume]bool{},
	}
	s.cache.read = s.read
	s.updateSnapshot()
	return s
}

// joinShared makes a volume a member of the shared session of a key.
func (m *Manager) joinShared(v *Volume, key string) *sharedSession {
	m.mutex.Lock()
	defer m.mutex.Unlock()
	s := m.shared[key]
	if s == nil {
		s = m.newSharedSession(key, v.namespace)
		m.shared[key] = s
	}
	s.mutex.Lock()
	defer s.mutex.Unlock()
	s.members[v] = true
	s.isRevoke = s.isRevoke || !v.policy.SkipRevoke
	return s
}

// leaveShared takes a volume out. The last member ends the session.
func (m *Manager) leaveShared(s *sharedSession, v *Volume, isUnused bool) {
	m.mutex.Lock()
	s.mutex.Lock()
	delete(s.members, v)
	isLast := len(s.members) == 0
	s.isRevoke = s.isRevoke || isUnused && isLast
	s.mutex.Unlock()
	if isLast {
		delete(m.shared, s.key)
	}
	m.mutex.Unlock()
	if isLast {
		s.end()
	}
}

// end gives up the session, which has no members any more.
func (s *sharedSession) end() {
	if s.isRevoke {
		s.session.revoke(s.namespace)
	}
	s.manager.records.remove(s.recordKey)
}

// token returns a token of another generation than the one that Vault does not know, after
// a renewal or a login if it is time. While another volume does that, a valid one is enough.
func (s *sharedSession) token(ctx context.Context, p *fetchPass, gone int) (issuedToken, error) {
	known, now := s.snapshot.Load().current, s.manager.now()
	isValid := known.Generation > 0 && known.Generation != gone && !known.Lease.isExpired(now)
	if isValid && (known.Due == 0 || now < known.Due) {
		return known, nil
	}
	select {
	case s.turn <- struct{}{}:
	default:
		if isValid {
			return known, nil
		}
		select {
		case s.turn <- struct{}{}:
		case <-ctx.Done():
			return issuedToken{}, &tokenError{fmt.Errorf("wait for the login of another pod: %w", ctx.Err())}
		}
	}
	defer s.release()
	ctx = vault.WithSharedCall(ctx)
	s.session.Config = p.volume.Session.Config
	if p.volume.hasFreshLogin.Swap(false) {
		s.session.Retry.until = 0
	}
	s.session.invalidate(gone)
	if _, ok := s.session.current(); ok {
		s.session.maintain(ctx)
	}
	return s.session.token(ctx, p.isBackground)
}

// release gives the turn back.
func (s *sharedSession) release() {
	before, now := s.snapshot.Load(), s.updateSnapshot()
	s.mutex.Lock()
	members := slices.Collect(maps.Keys(s.members))
	record := sharedRecord{Version: recordVersion, Key: s.key, Namespace: s.namespace, IsRevoke: s.isRevoke, Session: s.session}
	s.mutex.Unlock()
	if now.revision != before.revision {
		s.manager.records.save(s.namespace, s.recordKey, encode(&record))
	}
	<-s.turn
	if before.status.Err != nil && now.status.Err == nil {
		for _, member := range members {
			member.poke() // what lacked a token is due
		}
	}
}

func (s *sharedSession) updateSnapshot() *sharedSnapshot {
	now := &sharedSnapshot{status: s.session.status(), revision: s.session.revision}
	now.current, _ = s.session.current()
	s.snapshot.Store(now)
	return now
}

// status counts the members.
func (s *sharedSession) status() SessionStatus {
	status := s.snapshot.Load().status
	s.mutex.Lock()
	defer s.mutex.Unlock()
	pods := map[string]bool{}
	for member := range s.members {
		pods[member.pod] = true
	}
	status.Pods = len(pods)
	return status
}

// errNotShareable is for what a volume reads with its own token.
var errNotShareable = errors.New("the value may not be the same for other pods")

// read reads a KV secret for a volume with the shared token.
func (s *sharedSession) read(ctx context.Context, p *fetchPass, key template.Dependency) (template.Value, error) {
	config := p.volume.Session.Config
	if isKV, known := s.manager.clients.KnownKV(config.Endpoint, config.Options.Namespace, key.Path); known && !isKV {
		return template.Value{}, errNotShareable
	}
	gone := 0
	for {
		current, err := s.token(ctx, p, gone)
		if err != nil {
			return template.Value{}, err
		}
		value, err := s.readWith(ctx, p, current, key)
		switch {
		case !errors.Is(err, vault.ErrTokenGone):
			return value, err
		case gone > 0:
			// The volume must not take it for its own token's error.
			return value, fmt.Errorf("%w: %s", vault.ErrDenied, err)
		}
		gone = current.Generation
	}
}

func (s *sharedSession) readWith(ctx context.Context, p *fetchPass, current issuedToken, key template.Dependency) (template.Value, error) {
	client, err := p.volume.Session.client(ctx, current)
	if err != nil {
		return template.Value{}, err
	}
	isKV, err := client.IsKV(ctx, key.Path)
	if err == nil && !isKV {
		err = errNotShareable
	}
	if err != nil {
		return template.Value{}, err
	}
	value, err := request(vault.WithQuota(vault.WithSharedCall(ctx), p.quota), client, key)
	if err == nil && isLeased(value) {
		err = errNotShareable
	}
	return value, err
}

// kvCache holds what the members of a shared session have read. They read a secret once
// for all that wait.
type kvCache struct {
	read  func(ctx context.Context, p *fetchPass, key template.Dependency) (template.Value, error)
	calls singleflight.Group

	mutex   sync.Mutex
	entries map[template.Dependency]*kvEntry
	size    vault.Size
	maxAge  time.Duration // the longest interval of a member
	evicted bootTime
}

type kvEntry struct {
	value     template.Value
	fetchedAt bootTime
	size      vault.Size
}

// get returns a value that is fresh enough for a pass, and whether the pass has read it
// itself.
func (c *kvCache) get(ctx context.Context, p *fetchPass, d *dependency) (entry kvEntry, isOwn bool, err error) {
	c.mutex.Lock()
	known := c.entries[d.Key]
	c.mutex.Unlock()
	if known != nil && p.isFresh(known.fetchedAt, d.FetchedAt) {
		return *known, false, nil
	}
	type call struct {
		entry  kvEntry
		reader *dependency
	}
	// A pod that starts takes no part in a call of the background, which may be in backoff.
	name := fmt.Sprint(p.isBackground, d.Key.Verb, " ", d.Key.Path)
	for {
		done := c.calls.DoChan(name, func() (any, error) {
			own := call{kvEntry{fetchedAt: p.volume.manager.now()}, d}
			err := recovery.Do(func() (err error) {
				own.entry.value, err = c.read(ctx, p, d.Key)
				return err
			})
			if err == nil {
				own.entry.size = sizeOf(own.entry.value)
				c.put(d.Key, &own.entry, p.volume.policy.StaticInterval)
			}
			return own, err
		})
		select {
		case result := <-done:
			own := result.Val.(call)
			hasGivenUp := errors.Is(result.Err, context.Canceled) || errors.Is(result.Err, context.DeadlineExceeded)
			if own.reader != d && hasGivenUp && ctx.Err() == nil {
				continue // the other pod has; this one has not
			}
			return own.entry, own.reader == d, result.Err
		case <-ctx.Done():
			return kvEntry{}, false, fmt.Errorf("wait for another pod to read the secret: %w", ctx.Err())
		}
	}
}

// put keeps a value. It drops what is too old for every member, and all that there is if
// that exceeds the limits of one volume.
func (c *kvCache) put(key template.Dependency, entry *kvEntry, interval time.Duration) {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	c.maxAge = max(c.maxAge, interval)
	isOver := len(c.entries) >= limits.Dependencies.Max() ||
		limits.VolumeResponseBytes.Check(c.size.Bytes) != nil || limits.VolumeResponseValues.Check(c.size.Values) != nil
	isLate := entry.fetchedAt-c.evicted >= c.maxAge
	for each, old := range c.entries {
		if each == key || isOver || isLate && entry.fetchedAt-old.fetchedAt >= c.maxAge {
			delete(c.entries, each)
			c.size = c.size.Sub(old.size)
		}
	}
	if isLate {
		c.evicted = entry.fetchedAt
	}
	c.entries[key] = entry
	c.size = c.size.Add(entry.size)
}
