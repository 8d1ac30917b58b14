package certs

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/go-logr/logr"
	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/gentype"
	"k8s.io/client-go/rest"
	"k8s.io/klog/v2"

	"github.com/vaultmount/vaultmount/driver/kube"
)

// Secrets is the part of client-go's interface to Secrets that is used.
type Secrets interface {
	Get(ctx context.Context, name string, options metav1.GetOptions) (*corev1.Secret, error)
	Create(ctx context.Context, secret *corev1.Secret, options metav1.CreateOptions) (*corev1.Secret, error)
	Update(ctx context.Context, secret *corev1.Secret, options metav1.UpdateOptions) (*corev1.Secret, error)
}

// Configurations is the part of client-go's interface to webhook configurations that is
// used.
type Configurations interface {
	Get(ctx context.Context, name string, options metav1.GetOptions) (*admissionregistrationv1.MutatingWebhookConfiguration, error)
	Patch(ctx context.Context, name string, patchType types.PatchType, patch []byte, options metav1.PatchOptions, subresources ...string) (*admissionregistrationv1.MutatingWebhookConfiguration, error)
}

// NewClients returns clients of a namespace's Secrets and of webhook configurations.
func NewClients(config *rest.Config, namespace string) (Secrets, Configurations, error) {
	core, coreScheme, err := kube.NewClient(config, corev1.SchemeGroupVersion, corev1.AddToScheme)
	if err != nil {
		return nil, nil, err
	}
	registration, registrationScheme, err := kube.NewClient(config, admissionregistrationv1.SchemeGroupVersion, admissionregistrationv1.AddToScheme)
	if err != nil {
		return nil, nil, err
	}
	secrets := gentype.NewClient("secrets", core, runtime.NewParameterCodec(coreScheme), namespace, func() *corev1.Secret { return new(corev1.Secret) })
	configurations := gentype.NewClient("mutatingwebhookconfigurations", registration, runtime.NewParameterCodec(registrationScheme), "", func() *admissionregistrationv1.MutatingWebhookConfiguration {
		return new(admissionregistrationv1.MutatingWebhookConfiguration)
	})
	return secrets, configurations, nil
}

// Options of a Rotator. All are required.
type Options struct {
	Secrets        Secrets
	Configurations Configurations
	// Secret and Configuration are the names of the two objects.
	Secret, Configuration string
	// Names are the DNS names and IP addresses by which the API server calls the webhook.
	Names []string
	// Now is the clock for dates.
	Now func() time.Time
}

// Rotator issues the webhook's certificate itself, for any number of replicas
// without a leader.
//
// The Secret is the truth: of two replicas that replace what they have read, the API
// server refuses one, which then reads what the other has written. What is due depends only
// on the Secret and the time, so one replica does it and the others find nothing to do. The
// caBundle is derived from the Secret, and never replaced by an older one.
type Rotator struct {
	options Options
	// last is what was read or written last, to restore a lost Secret while the API server
	// still trusts it.
	last  *state
	inUse atomic.Pointer[tls.Certificate]
}

// NewRotator does not call the API server.
func NewRotator(options Options) *Rotator { return &Rotator{options: options} }

// Current returns a certificate that the API server trusts.
func (r *Rotator) Current() (*tls.Certificate, error) {
	if current := r.inUse.Load(); current != nil {
		return current, nil
	}
	return nil, fmt.Errorf("there is no certificate yet that the configuration %s trusts", r.options.Configuration)
}

// attempts bounds a Sync. Each failure is one that another replica has won.
const attempts = 20

// errConflict is a write after that of another replica.
var errConflict = errors.New("it has changed meanwhile")

// Sync creates or renews what is due, sets the caBundle, and takes the certificate into use.
func (r *Rotator) Sync(ctx context.Context) error {
	var err error
	for range attempts {
		if err = r.sync(ctx); !errors.Is(err, errConflict) {
			return err
		}
	}
	return err
}

// sync reads the configuration before the Secret, so what it derives from the Secret is
// never older than the caBundle that it replaces.
func (r *Rotator) sync(ctx context.Context) error {
	configuration, err := r.options.Configurations.Get(withoutLog(ctx), r.options.Configuration, metav1.GetOptions{})
	if err != nil {
		return fmt.Errorf("get the webhook configuration: %w", err)
	}
	secret, err := r.options.Secrets.Get(withoutLog(ctx), r.options.Secret, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		secret = &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: r.options.Secret}, Type: corev1.SecretTypeTLS}
	} else if err != nil {
		return fmt.Errorf("get the certificate's Secret: %w", err)
	}
	current, next, err := r.next(ctx, secret)
	if err != nil {
		return err
	}
	if next != current {
		if err := r.write(ctx, secret, next); err != nil {
			return err
		}
		klog.FromContext(ctx).Info("Certificate written", "notAfter", next.leaf.Leaf.NotAfter)
	}
	r.last = next
	if err := r.setCABundle(ctx, configuration, next.bundle()); err != nil {
		return err
	}
	r.use(next)
	return nil
}

// next returns the state of the Secret, nil for none, and what it should be.
func (r *Rotator) next(ctx context.Context, secret *corev1.Secret) (current, next *state, err error) {
	now := r.options.Now()
	if current, err = parse(secret.Data); err == nil {
		next, err = current.next(now, r.options.Names)
		return current, next, err
	}
	if len(secret.Data) > 0 {
		klog.FromContext(ctx).Error(err, "Invalid Secret of the certificate; replacing it")
	}
	if r.last != nil {
		return nil, r.last, nil
	}
	next, err = issue(now, r.options.Names, nil)
	return nil, next, err
}

func (r *Rotator) write(ctx context.Context, secret *corev1.Secret, s *state) (err error) {
	if secret.Data, err = s.data(); err != nil {
		return err
	}
	isNew := secret.ResourceVersion == ""
	if isNew {
		_, err = r.options.Secrets.Create(withoutLog(ctx), secret, metav1.CreateOptions{})
	} else {
		_, err = r.options.Secrets.Update(withoutLog(ctx), secret, metav1.UpdateOptions{})
	}
	// A Secret that is not found by an update was deleted meanwhile.
	if apierrors.IsAlreadyExists(err) || apierrors.IsConflict(err) || apierrors.IsNotFound(err) && !isNew {
		return fmt.Errorf("write the certificate's Secret: %w: %w", errConflict, err)
	}
	if err != nil {
		return fmt.Errorf("write the certificate's Secret: %w", err)
	}
	return nil
}

// setCABundle sets the bundle for every webhook of the configuration. The patch is refused
// if the configuration is not the one that was read before the Secret.
func (r *Rotator) setCABundle(ctx context.Context, configuration *admissionregistrationv1.MutatingWebhookConfiguration, bundle []byte) error {
	var webhooks []any
	for _, webhook := range configuration.Webhooks {
		if !bytes.Equal(webhook.ClientConfig.CABundle, bundle) {
			webhooks = append(webhooks, map[string]any{"name": webhook.Name, "clientConfig": map[string]any{"caBundle": bundle}})
		}
	}
	if len(webhooks) == 0 {
		return nil
	}
	// A strategic merge patch finds a webhook by its name, and keeps what others have set.
	patch, err := json.Marshal(map[string]any{
		"metadata": map[string]any{"resourceVersion": configuration.ResourceVersion}, "webhooks": webhooks,
	})
	if err != nil {
		return fmt.Errorf("write the caBundle: %w", err)
	}
	_, err = r.options.Configurations.Patch(withoutLog(ctx), configuration.Name, types.StrategicMergePatchType, patch, metav1.PatchOptions{})
	if apierrors.IsConflict(err) {
		return fmt.Errorf("patch the webhook configuration: %w: %w", errConflict, err)
	}
	if err != nil {
		return fmt.Errorf("patch the webhook configuration: %w", err)
	}
	klog.FromContext(ctx).Info("caBundle updated", "configuration", configuration.Name, "webhooks", len(webhooks))
	return nil
}

// propagation is for each API server to learn of a new CA certificate.
const propagation = 5 * time.Minute

// use takes the serving certificate into use. A new one waits for its propagation, unless
// the one in use cannot be served that long.
func (r *Rotator) use(s *state) {
	now, current := r.options.Now(), r.inUse.Load()
	issued := s.leaf.Leaf.NotBefore.Add(backdate)
	if current != nil && now.Before(issued.Add(propagation)) && now.Before(current.Leaf.NotAfter) && s.trusts(current.Leaf) {
		return
	}
	r.inUse.Store(s.leaf)
}

// withoutLog keeps client-go from logging: at a high verbosity it logs what it sends and
// receives, which here are keys.
func withoutLog(ctx context.Context) context.Context {
	return klog.NewContext(ctx, logr.Discard())
}
