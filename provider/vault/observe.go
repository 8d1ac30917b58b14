package vault

import (
	"context"
	"errors"
	"net/http"
	"time"
)

// Observer hears of each request to Vault when it is over. It may be called
// concurrently, and answers at once.
type Observer interface {
	// ObserveRequest tells what was asked for, what became of it, and how long that took;
	// the time is zero for a request that was not sent.
	ObserveRequest(operation Operation, outcome Result, duration time.Duration)
	// ObserveLoginFallback tells of a login that shows the second of a pod's tokens, the one for the
	// API server.
	ObserveLoginFallback()
}

// Operation is what a request is for.
type Operation string

// The operations, as metrics name them.
const (
	LogIn      Operation = "login"
	Read       Operation = "read"
	List       Operation = "list"
	Write      Operation = "write"
	RenewToken Operation = "renew_token"
	RenewLease Operation = "renew_lease"
	Revoke     Operation = "revoke"
	MountProbe Operation = "mount_probe"
	// ProbeSeal is the breaker's own question whether Vault serves.
	ProbeSeal Operation = "seal_probe"
)

// bringsSecret tells an operation whose answer a volume keeps.
func (o Operation) bringsSecret() bool { return o == Read || o == List || o == Write }

// Result is what became of a request.
type Result string

// The outcomes, as metrics name them.
const (
	OK        Result = "success"
	NotFound  Result = "not_found"
	Denied    Result = "denied"
	Refused   Result = "refused"
	Throttled Result = "throttled"
	// Sealed is Vault's own word that it is sealed, which no other 503 is.
	Sealed Result = "sealed"
	// Failed is any other status of 500 and above, and an answer that the driver does
	// not take.
	Failed Result = "error"
	// Unreachable is no answer at all.
	Unreachable Result = "unreachable"
	// BreakerOpen was not sent, since those before it failed.
	BreakerOpen Result = "circuit_open"
	// Cancelled is one that nobody waits for any more.
	Cancelled Result = "canceled"
)

// Operations and Results are all there are, for whoever counts them from zero.
func Operations() []Operation {
	return []Operation{LogIn, Read, List, Write, RenewToken, RenewLease, Revoke, MountProbe, ProbeSeal}
}

// Results are all outcomes.
func Results() []Result {
	return []Result{OK, NotFound, Denied, Refused, Throttled, Sealed, Failed, Unreachable, BreakerOpen, Cancelled}
}

type operationKey struct{}

// during marks the requests of a context with what they are for: a path does not
// say it, since each plugin has its own.
func during(ctx context.Context, operation Operation) context.Context {
	return context.WithValue(ctx, operationKey{}, operation)
}

func operationOf(ctx context.Context) Operation {
	operation, _ := ctx.Value(operationKey{}).(Operation)
	return operation
}

func outcomeOf(response *http.Response, err error) Result {
	switch {
	case errors.Is(err, context.Canceled), errors.Is(err, errNoTurn), errors.Is(err, errNoPlace):
		return Cancelled
	case errors.Is(err, ErrTooLarge), errors.Is(err, errBusy), errors.Is(err, errRedirect):
		return Failed
	case err != nil:
		return Unreachable
	}
	switch status := response.StatusCode; {
	case status == http.StatusNotFound:
		return NotFound
	case status == http.StatusForbidden:
		return Denied
	case status == http.StatusTooManyRequests:
		return Throttled
	case status >= http.StatusInternalServerError:
		return Failed
	case status >= http.StatusBadRequest:
		return Refused
	}
	return OK
}

func probeOutcome(err error) Result {
	switch {
	case err == nil:
		return OK
	case errors.Is(err, errSealed):
		return Sealed
	case asError[statusError](err):
		return Failed
	}
	return Unreachable
}
