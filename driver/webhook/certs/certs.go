// Package certs provides the webhook's serving certificate: from files that somebody else
// writes, or one that it issues, keeps in a Secret, renews, and adds to the caBundle of the
// webhook's configuration.
//
// It serves nothing itself. It reads and writes one Secret and one
// MutatingWebhookConfiguration, by name, and never logs a key. It imports driver/kube.
package certs

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"os"
	"sync/atomic"
	"time"

	"k8s.io/apimachinery/pkg/util/wait"
)

// Interval is the time between two calls of Sync. A caBundle that another tool removes is
// set again within it.
const Interval = 10 * time.Second

// syncTimeout bounds one Sync.
const syncTimeout = 30 * time.Second

// Source is a certificate that changes from time to time.
type Source interface {
	// Current returns the certificate to use now. It may be called concurrently.
	Current() (*tls.Certificate, error)
	// Sync brings Current up to date. After an error Current is as before. Calls must not
	// overlap.
	Sync(ctx context.Context) error
}

// Keep syncs a source at once and then in every interval, and reports each result, until
// the context ends.
func Keep(ctx context.Context, source Source, report func(error)) {
	wait.UntilWithContext(ctx, func(ctx context.Context) {
		ctx, cancel := context.WithTimeout(ctx, syncTimeout)
		defer cancel()
		report(source.Sync(ctx))
	}, Interval)
}

// Files is a certificate in two PEM files, for example of a Secret volume that cert-manager
// fills. Sync reads them each time: two small files cost less than a watch, which would
// have to follow the kubelet's symbolic links.
type Files struct {
	certFile, keyFile string
	certPEM, keyPEM   []byte
	inUse             atomic.Pointer[tls.Certificate]
}

// NewFiles reads nothing yet.
func NewFiles(certFile, keyFile string) *Files {
	return &Files{certFile: certFile, keyFile: keyFile}
}

// Current returns what Sync has read last.
func (f *Files) Current() (*tls.Certificate, error) {
	if current := f.inUse.Load(); current != nil {
		return current, nil
	}
	return nil, errors.New("the certificate has not been read yet")
}

// Sync reads the files. A key that does not match is an error, and usual for an instant
// while both files are replaced.
func (f *Files) Sync(context.Context) error {
	certPEM, err := os.ReadFile(f.certFile)
	if err != nil {
		return fmt.Errorf("read the certificate: %w", err)
	}
	keyPEM, err := os.ReadFile(f.keyFile)
	if err != nil {
		return fmt.Errorf("read the certificate's key: %w", err)
	}
	if bytes.Equal(certPEM, f.certPEM) && bytes.Equal(keyPEM, f.keyPEM) {
		return nil
	}
	pair, err := tls.X509KeyPair(certPEM, keyPEM)
	if err != nil {
		return fmt.Errorf("load the certificate of %s and %s: %w", f.certFile, f.keyFile, err)
	}
	f.certPEM, f.keyPEM = certPEM, keyPEM
	f.inUse.Store(&pair)
	return nil
}
