package certs

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"os"
)

// Files is a certificate in two PEM files, for example of a Secret volume that
// cert-manager fills. They are read anew at each Sync: two small files cost less
// than a watch, which would have to follow the kubelet's symbolic links.
type Files struct {
	certFile, keyFile string
	certPEM, keyPEM   []byte
	slot              slot
}

// NewFiles reads nothing yet.
func NewFiles(certFile, keyFile string) *Files {
	return &Files{certFile: certFile, keyFile: keyFile}
}

// Current returns what Sync has read last.
func (f *Files) Current() (*tls.Certificate, error) {
	if current := f.slot.get(); current != nil {
		return current, nil
	}
	return nil, errors.New("the certificate has not been read yet")
}

// Sync reads the files. Calls must not overlap. A pair that does not fit is an
// error; it may have been caught in the middle of a change.
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
	f.slot.put(&pair)
	return nil
}
