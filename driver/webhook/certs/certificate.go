// Package certs keeps the webhook's serving certificate: one that somebody
// else writes into files, or one of its own, which it keeps in a Secret, renews,
// and makes the API server trust.
//
// It serves nothing itself. It reads and writes one Secret and one
// MutatingWebhookConfiguration, by name, and it never logs a key.
package certs

import (
	"context"
	"crypto/tls"
	"sync"
	"time"
)

// Interval is the time between two looks at what holds the certificate. A tool
// that takes the webhook's trust away is undone within it.
const Interval = 10 * time.Second

// syncTimeout bounds one look.
const syncTimeout = 30 * time.Second

// Source is a certificate that changes now and then.
type Source interface {
	// Current returns the certificate to use now.
	Current() (*tls.Certificate, error)
	// Sync brings Current up to date. After an error Current is as before.
	Sync(ctx context.Context) error
}

// Keep syncs a source at once and then in every interval, and reports each
// outcome, until the context ends.
func Keep(ctx context.Context, source Source, report func(error)) {
	ticker := time.NewTicker(Interval)
	defer ticker.Stop()
	for ctx.Err() == nil {
		bounded, cancel := context.WithTimeout(ctx, syncTimeout)
		err := source.Sync(bounded)
		cancel()
		report(err)
		select {
		case <-ctx.Done():
		case <-ticker.C:
		}
	}
}

// slot holds the certificate in use.
type slot struct {
	mutex sync.RWMutex
	inUse *tls.Certificate
}

func (s *slot) put(certificate *tls.Certificate) {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	s.inUse = certificate
}

func (s *slot) get() *tls.Certificate {
	s.mutex.RLock()
	defer s.mutex.RUnlock()
	return s.inUse
}
