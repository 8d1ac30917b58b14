package certs

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"maps"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/strategicpatch"
	"k8s.io/klog/v2"
)

func (s *apiServer) replica(now time.Time) *Rotator {
	return NewRotator(Options{
		Secrets: secrets{s}, Configurations: configurations{s},
		Secret: "certificate", Configuration: "webhooks", Names: names,
		Now: func() time.Time { return now },
	})
}

// requireTrust wants a replica to serve what both webhooks trust.
func requireTrust(t *testing.T, s *apiServer, m *Rotator, now time.Time) {
	t.Helper()
	current, err := m.Current()
	if err != nil {
		t.Fatal(err)
	}
	for _, webhook := range s.configuration.Webhooks {
		if err := trusts(webhook.ClientConfig.CABundle, current, "webhook.test", now); err != nil {
			t.Errorf("%s does not trust what is served: %v", webhook.Name, err)
		}
	}
}

func mustSync(t *testing.T, m *Rotator) {
	t.Helper()
	if err := m.Sync(t.Context()); err != nil {
		t.Fatal(err)
	}
}

func TestReplicasAgree(t *testing.T) {
	t.Parallel()
	server := newAPIServer()
	var replicas []*Rotator
	var running sync.WaitGroup
	for range 8 {
		m := server.replica(start)
		replicas = append(replicas, m)
		running.Go(func() {
			if err := m.Sync(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
	running.Wait()
	for _, m := range replicas {
		requireTrust(t, server, m, start)
		if current, _ := m.Current(); !current.Leaf.Equal(replicas[0].last.leaf.Leaf) {
			t.Error("two replicas serve different certificates")
		}
	}
	if server.writes != 2 {
		t.Errorf("it took %d writes", server.writes)
	}
}

func TestTrustIsRestored(t *testing.T) {
	t.Parallel()
	server := newAPIServer()
	m := server.replica(start)
	mustSync(t, m)
	for name, tamper := range map[string]func(){
		"emptied":   func() { server.configuration.Webhooks[0].ClientConfig.CABundle = nil },
		"another's": func() { server.configuration.Webhooks[1].ClientConfig.CABundle = []byte("x") },
		"a new webhook": func() {
			server.configuration.Webhooks = append(server.configuration.Webhooks, admissionregistrationv1.MutatingWebhook{Name: "c.test"})
		},
		"another's more": func() { server.configuration.Webhooks[0].ClientConfig.CABundle = append(m.last.bundle(), 'x') },
	} {
		tamper()
		mustSync(t, m)
		requireTrust(t, server, m, start)
		for _, webhook := range server.configuration.Webhooks {
			if !bytes.Equal(webhook.ClientConfig.CABundle, m.last.bundle()) {
				t.Errorf("%s: %s trusts %q", name, webhook.Name, webhook.ClientConfig.CABundle)
			}
		}
	}
	before := server.writes
	mustSync(t, m)
	if server.writes != before {
		t.Error("it writes when there is nothing to do")
	}
}

// A lost or broken Secret changes nothing for those who trust what is in use.
func TestSecretIsPutBack(t *testing.T) {
	t.Parallel()
	server := newAPIServer()
	m := server.replica(start)
	mustSync(t, m)
	want := maps.Clone(server.secret.Data)
	for name, harm := range map[string]func(){
		"deleted": func() { server.secret = nil },
		"emptied": func() { server.secret.Data = nil },
		"broken":  func() { server.secret.Data[keyLeafKey] = []byte("x") },
	} {
		harm()
		mustSync(t, m)
		if got := server.secret.Data; !bytes.Equal(got[keyCAs], want[keyCAs]) || !bytes.Equal(got[keyLeaf], want[keyLeaf]) {
			t.Errorf("%s: the Secret holds something else", name)
		}
	}
}

func TestSecretThatIsEmptyIsFilled(t *testing.T) {
	t.Parallel()
	server := newAPIServer()
	server.secret = &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "certificate", Labels: map[string]string{"kept": "yes"}}}
	server.secret.ResourceVersion = "7"
	m := server.replica(start)
	mustSync(t, m)
	requireTrust(t, server, m, start)
	if server.secret.Labels["kept"] != "yes" {
		t.Error("the Secret lost its labels")
	}
}

// Another replica renews everything between two calls of this one, which must
// neither undo it nor serve what is no longer trusted.
func TestNothingOlderIsWritten(t *testing.T) {
	t.Parallel()
	for _, between := range []string{"get secret", "update secret", "patch configuration"} {
		t.Run(between, func(t *testing.T) {
			server := newAPIServer()
			old := start.Add(-validity - day)
			slow, quick := server.replica(start), server.replica(start)
			mustSync(t, server.replica(old)) // everything is due at the start
			server.configuration.Webhooks[0].ClientConfig.CABundle = nil
			var once sync.Once
			server.before = func(call string) error {
				if call == between {
					once.Do(func() {
						server.before = nil
						mustSync(t, quick)
					})
				}
				return nil
			}
			mustSync(t, slow)
			requireTrust(t, server, slow, start)
			requireTrust(t, server, quick, start)
			if a, b := slow.last.leaf.Leaf, quick.last.leaf.Leaf; !a.Equal(b) {
				t.Error("the two serve different certificates")
			}
		})
	}
}

func TestNothingIsServedThatIsNotTrusted(t *testing.T) {
	t.Parallel()
	for _, call := range []string{"get configuration", "get secret", "create secret", "patch configuration"} {
		t.Run(call, func(t *testing.T) {
			server := newAPIServer()
			server.before = func(name string) error {
				if name == call {
					return errors.New("no " + name)
				}
				return nil
			}
			m := server.replica(start)
			if err := m.Sync(t.Context()); err == nil || !strings.Contains(err.Error(), "no "+call) {
				t.Errorf("the error is %v", err)
			}
			if _, err := m.Current(); err == nil || !strings.Contains(err.Error(), "no certificate yet that the configuration webhooks trusts") {
				t.Errorf("a certificate is served: %v", err)
			}
			server.before = nil
			mustSync(t, m)
			requireTrust(t, server, m, start)
		})
	}
}

func TestSyncEndsSomeTime(t *testing.T) {
	t.Parallel()
	server := newAPIServer()
	m := server.replica(start)
	server.before = func(call string) error {
		if call == "patch configuration" {
			server.mutex.Lock()
			defer server.mutex.Unlock()
			server.configuration.ResourceVersion = server.nextVersion()
		}
		return nil
	}
	if err := m.Sync(t.Context()); !errors.Is(err, errConflict) {
		t.Errorf("got %v", err)
	}
}

// A new certificate is served when each API server has learnt of its CA certificate, or at
// once if there is no other choice.
func TestNewCertificateWaitsForThePropagation(t *testing.T) {
	t.Parallel()
	server := newAPIServer()
	now := start
	m := server.replica(start)
	m.options.Now = func() time.Time { return now }
	mustSync(t, m)
	first := m.inUse.Load()
	requireInUse := func(want *tls.Certificate) {
		t.Helper()
		mustSync(t, m)
		requireTrust(t, server, m, now)
		if current, _ := m.Current(); !current.Leaf.Equal(want.Leaf) {
			t.Errorf("at %s it serves another certificate", now)
		}
	}
	now = first.Leaf.NotAfter.Add(-renewal + time.Second)
	requireInUse(first)
	second := m.last.leaf
	now = now.Add(propagation - time.Second)
	requireInUse(first)
	now = now.Add(time.Second)
	requireInUse(second)

	now = second.Leaf.NotAfter.Add(time.Second)
	mustSync(t, m)
	requireInUse(m.last.leaf)

	replaced := mustIssue(t, now, names...)
	data, err := replaced.data()
	if err != nil {
		t.Fatal(err)
	}
	server.secret.Data = data
	requireInUse(replaced.leaf)
}

// Keep works until its context ends, whatever comes of a sync.
func TestKeep(t *testing.T) {
	t.Parallel()
	server := newAPIServer()
	server.before = func(string) error { return errors.New("down") }
	ctx, cancel := context.WithCancel(t.Context())
	var reported []error
	Keep(ctx, server.replica(start), func(err error) {
		reported = append(reported, err)
		cancel()
	})
	if len(reported) != 1 || reported[0] == nil {
		t.Errorf("reported %v", reported)
	}
}

// apiServer is the API server of a test, which decides what comes between two
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
