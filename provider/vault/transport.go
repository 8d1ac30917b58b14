package vault

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/vaultmount/vaultmount/provider/fairqueue"
)

var errNoTurn = errors.New("no turn to ask Vault came, so many requests are in flight")

type backgroundKey struct{}

// Background marks the requests of a context as ones that can wait for those
// that pods wait for.
func WithBackground(ctx context.Context) context.Context {
	return context.WithValue(ctx, backgroundKey{}, fairqueue.Background)
}

type turnKey struct{}

// WithSharedCall marks the requests of a context as ones that others wait for, pods that
// start among them: they are in the foreground, and do not wait for what the others may
// hold.
func WithSharedCall(ctx context.Context) context.Context {
	return context.WithValue(context.WithValue(ctx, backgroundKey{}, fairqueue.Foreground), turnKey{}, true)
}

func isSharedCall(ctx context.Context) bool { return ctx.Value(turnKey{}) != nil }

func classOf(ctx context.Context) fairqueue.Class {
	class, _ := ctx.Value(backgroundKey{}).(fairqueue.Class)
	return class // Foreground by default
}

// transport sends a request when the breaker is closed and the tenant has its turn,
// and reads the response, within its limits, before another has the turn: an api.Client
// reads as much as comes.
type transport struct {
	next     http.RoundTripper
	places   *fairqueue.Limiter
	breaker  *breaker
	observer Observer // nil for none
	// follows tells whether a redirect to another host may be followed.
	follows func(address string) bool
}

// RoundTrip implements http.RoundTripper.
func (t *transport) RoundTrip(request *http.Request) (*http.Response, error) {
	ctx := request.Context()
	if err := t.breaker.allow(ctx); err != nil {
		t.observe(request, BreakerOpen, 0)
		return nil, err
	}
	response, err := t.exchange(request)
	t.breaker.report(ctx, response, err)
	if err != nil {
		return nil, shorten(err)
	}
	return response, nil
}

func (t *transport) exchange(request *http.Request) (*http.Response, error) {
	ctx := request.Context()
	tenant := fairqueue.Tenant(ctx)
	if err := t.places.Acquire(ctx, tenant, classOf(ctx), 1); err != nil {
		err = fmt.Errorf("%w: %w", errNoTurn, err)
		t.observe(request, outcomeOf(nil, err), 0)
		return nil, err
	}
	defer t.places.Release(tenant, 1)
	start := time.Now()
	response, err := t.next.RoundTrip(request)
	duration := time.Since(start)
	outcome := outcomeOf(response, err)
	if err == nil {
		outcome, err = t.receive(request, response)
	}
	t.observe(request, outcome, duration)
	return response, err
}

// receive checks a response and reads its body.
func (t *transport) receive(request *http.Request, response *http.Response) (Result, error) {
	defer response.Body.Close()
	if err := t.checkRedirect(request, response); err != nil {
		return Failed, err
	}
	content, err := readBody(request.Context(), response)
	if err == nil && isSealed(response, content) {
		return Sealed, nil
	}
	return outcomeOf(response, err), err
}

// probe asks Vault at an address whether it serves, for the breaker. It takes no
// place: a tenant that has them all must not be taken for an outage.
func (t *transport) probe(address string) func(context.Context) error {
	return func(ctx context.Context) error {
		start := time.Now()
		err := probeSealStatus(ctx, t.next, address)
		if t.observer != nil {
			t.observer.ObserveRequest(ProbeSeal, probeOutcome(err), time.Since(start))
		}
		return err
	}
}

func (t *transport) observe(request *http.Request, outcome Result, duration time.Duration) {
	if t.observer != nil {
		t.observer.ObserveRequest(operationOf(request.Context()), outcome, duration)
	}
}
