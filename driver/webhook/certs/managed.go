package certs

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"time"

	"github.com/go-logr/logr"
	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/klog/v2"
)

// Secrets is client-go's interface to the Secrets of one namespace, as far as it
// is used.
type Secrets interface {
	Get(ctx context.Context, name string, options metav1.GetOptions) (*corev1.Secret, error)
	Create(ctx context.Context, secret *corev1.Secret, options metav1.CreateOptions) (*corev1.Secret, error)
	Update(ctx context.Context, secret *corev1.Secret, options metav1.UpdateOptions) (*corev1.Secret, error)
}

// Configurations is client-go's interface to webhook configurations, as far as it
// is used.
type Configurations interface {
	Get(ctx context.Context, name string, options metav1.GetOptions) (*admissionregistrationv1.MutatingWebhookConfiguration, error)
	Patch(ctx context.Context, name string, patchType types.PatchType, patch []byte, options metav1.PatchOptions, subresources ...string) (*admissionregistrationv1.MutatingWebhookConfiguration, error)
}

// Options of a Managed certificate. All are required.
type Options struct {
	Secrets        Secrets
	Configurations Configurations
	// Secret and Configuration are the names of the two objects.
	Secret, Configuration string
	// Names are what the API server calls the webhook by.
	Names []string
	// Now is the clock that dates are compared with.
	Now func() time.Time
}

// Managed is a certificate of the webhook's own, for any number of replicas
// without a leader.
//
// They agree because the Secret is the one truth, and only one of those who would
// replace what they have read can do so: the API server refuses the others, who
// then read what the first has written. What is due depends on the Secret and the
// time alone, so after one replica has done it there is nothing left to do for
// the rest. The trust in the configuration is derived from the Secret, and never
// overwritten by something older; see trust.
type Managed struct {
	options Options
	// last is what has been read or written last, to be put back if the Secret is
	// lost while the API server still trusts it.
	last *state
	slot slot
}

// NewManaged asks for nothing yet.
func NewManaged(options Options) *Managed { return &Managed{options: options} }

// Current returns the certificate that the API server has last been made to
// trust.
func (m *Managed) Current() (*tls.Certificate, error) {
	if current := m.slot.get(); current != nil {
		return current, nil
	}
	return nil, fmt.Errorf("there is no certificate yet that the configuration %s trusts", m.options.Configuration)
}

// attempts bounds a Sync. Each that fails is one that another replica has won.
const attempts = 20

// errStale is for a write that another one came before.
var errStale = errors.New("it was changed in between")

// Sync creates or renews what is due, restores the API server's trust, and takes
// the certificate into use. Calls must not overlap.
func (m *Managed) Sync(ctx context.Context) error {
	var err error
	for range attempts {
		if err = m.sync(ctx); !errors.Is(err, errStale) {
			return err
		}
	}
	return err
}

// sync reads the configuration before the Secret, so that what it derives from
// the Secret is never older than the configuration that it would replace.
func (m *Managed) sync(ctx context.Context) error {
	configuration, err := m.options.Configurations.Get(quiet(ctx), m.options.Configuration, metav1.GetOptions{})
	if err != nil {
		return fmt.Errorf("get the webhook configuration: %w", err)
	}
	s, err := m.settle(ctx)
	if err != nil {
		return err
	}
	m.last = s
	if err := m.trust(ctx, configuration, s.bundle()); err != nil {
		return err
	}
	m.slot.put(s.leaf)
	return nil
}

// settle returns what the Secret holds, after what is due has been done.
func (m *Managed) settle(ctx context.Context) (*state, error) {
	secret, err := m.options.Secrets.Get(quiet(ctx), m.options.Secret, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		secret = &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: m.options.Secret}, Type: corev1.SecretTypeTLS}
	} else if err != nil {
		return nil, fmt.Errorf("get the certificate's Secret: %w", err)
	}
	current, change, err := m.due(ctx, secret)
	if err != nil || change == changeNone {
		return current, err
	}
	if err := m.write(ctx, secret, current); err != nil {
		return nil, err
	}
	klog.FromContext(ctx).Info("Certificate changed", "change", change, "notAfter", current.leaf.Leaf.NotAfter)
	return current, nil
}

// due works out what should be in the Secret.
func (m *Managed) due(ctx context.Context, secret *corev1.Secret) (*state, string, error) {
	now := m.options.Now()
	current, err := parse(secret.Data)
	if err == nil {
		return current.next(now, m.options.Names)
	}
	if len(secret.Data) > 0 {
		klog.FromContext(ctx).Error(err, "The certificate's Secret is not usable and is replaced")
	}
	if m.last != nil {
		return m.last, "put back", nil
	}
	first, err := fresh(now, m.options.Names)
	return first, changeAll, err
}

func (m *Managed) write(ctx context.Context, secret *corev1.Secret, s *state) error {
	data, err := s.data()
	if err != nil {
		return err
	}
	secret.Data = data
	if secret.ResourceVersion == "" {
		_, err = m.options.Secrets.Create(quiet(ctx), secret, metav1.CreateOptions{})
	} else {
		_, err = m.options.Secrets.Update(quiet(ctx), secret, metav1.UpdateOptions{})
	}
	// A Secret that is gone when it is updated was deleted in between.
	if apierrors.IsAlreadyExists(err) || apierrors.IsConflict(err) || apierrors.IsNotFound(err) && secret.ResourceVersion != "" {
		return fmt.Errorf("write the certificate's Secret: %w: %w", errStale, err)
	}
	if err != nil {
		return fmt.Errorf("write the certificate's Secret: %w", err)
	}
	return nil
}

// quiet keeps client-go from logging: at a high verbosity it logs what it sends
// and receives, and here that is keys.
func quiet(ctx context.Context) context.Context {
	return klog.NewContext(ctx, logr.Discard())
}
