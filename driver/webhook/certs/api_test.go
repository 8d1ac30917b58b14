package certs

import (
	"context"
	"encoding/json"
	"errors"
	"strconv"
	"sync"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/strategicpatch"
	"k8s.io/klog/v2"
)

// apiServer stands for the API server where a test decides what comes between two
// calls; the end-to-end tests have a real one. It keeps one Secret and one
// configuration, and refuses what was read too early.
type apiServer struct {
	mutex         sync.Mutex
	version       int
	secret        *corev1.Secret
	configuration *admissionregistrationv1.MutatingWebhookConfiguration
	// before runs ahead of a call, without the lock.
	before func(call string) error
	writes int
}

func newAPIServer() *apiServer {
	return &apiServer{configuration: &admissionregistrationv1.MutatingWebhookConfiguration{
		ObjectMeta: metav1.ObjectMeta{Name: "webhooks", ResourceVersion: "0"},
		Webhooks:   []admissionregistrationv1.MutatingWebhook{{Name: "a.test"}, {Name: "b.test"}},
	}}
}

func (s *apiServer) call(ctx context.Context, name string) (unlock func(), err error) {
	if klog.FromContext(ctx).Enabled() {
		return nil, errors.New("client-go would log the keys")
	}
	if s.before != nil {
		if err := s.before(name); err != nil {
			return nil, err
		}
	}
	s.mutex.Lock()
	return s.mutex.Unlock, nil
}

func (s *apiServer) nextVersion() string {
	s.version++
	s.writes++
	return strconv.Itoa(s.version)
}

var (
	secretResource        = schema.GroupResource{Resource: "secrets"}
	configurationResource = schema.GroupResource{Resource: "mutatingwebhookconfigurations"}
)

type secrets struct{ *apiServer }

func (s secrets) Get(ctx context.Context, name string, _ metav1.GetOptions) (*corev1.Secret, error) {
	unlock, err := s.call(ctx, "get secret")
	if err != nil {
		return nil, err
	}
	defer unlock()
	if s.secret == nil {
		return nil, apierrors.NewNotFound(secretResource, name)
	}
	return s.secret.DeepCopy(), nil
}

func (s secrets) Create(ctx context.Context, secret *corev1.Secret, _ metav1.CreateOptions) (*corev1.Secret, error) {
	unlock, err := s.call(ctx, "create secret")
	if err != nil {
		return nil, err
	}
	defer unlock()
	if s.secret != nil {
		return nil, apierrors.NewAlreadyExists(secretResource, secret.Name)
	}
	return s.put(secret), nil
}

func (s secrets) Update(ctx context.Context, secret *corev1.Secret, _ metav1.UpdateOptions) (*corev1.Secret, error) {
	unlock, err := s.call(ctx, "update secret")
	if err != nil {
		return nil, err
	}
	defer unlock()
	if s.secret == nil {
		return nil, apierrors.NewNotFound(secretResource, secret.Name)
	}
	if secret.ResourceVersion != s.secret.ResourceVersion {
		return nil, apierrors.NewConflict(secretResource, secret.Name, errors.New("modified"))
	}
	return s.put(secret), nil
}

func (s secrets) put(secret *corev1.Secret) *corev1.Secret {
	s.secret = secret.DeepCopy()
	s.secret.ResourceVersion = s.nextVersion()
	return s.secret.DeepCopy()
}

type configurations struct{ *apiServer }

func (c configurations) Get(ctx context.Context, _ string, _ metav1.GetOptions) (*admissionregistrationv1.MutatingWebhookConfiguration, error) {
	unlock, err := c.call(ctx, "get configuration")
	if err != nil {
		return nil, err
	}
	defer unlock()
	return c.configuration.DeepCopy(), nil
}

func (c configurations) Patch(ctx context.Context, name string, kind types.PatchType, patch []byte, _ metav1.PatchOptions, _ ...string) (*admissionregistrationv1.MutatingWebhookConfiguration, error) {
	unlock, err := c.call(ctx, "patch configuration")
	if err != nil {
		return nil, err
	}
	defer unlock()
	if kind != types.StrategicMergePatchType {
		return nil, errors.New("another kind of patch")
	}
	before, err := json.Marshal(c.configuration)
	if err != nil {
		return nil, err
	}
	after, err := strategicpatch.StrategicMergePatch(before, patch, c.configuration)
	if err != nil {
		return nil, err
	}
	var patched admissionregistrationv1.MutatingWebhookConfiguration
	if err := json.Unmarshal(after, &patched); err != nil {
		return nil, err
	}
	if patched.ResourceVersion != c.configuration.ResourceVersion {
		return nil, apierrors.NewConflict(configurationResource, name, errors.New("modified"))
	}
	patched.ResourceVersion = c.nextVersion()
	c.configuration = &patched
	return patched.DeepCopy(), nil
}
