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
	// Requested tells what was asked for, what became of it, and how long that took;
	// the time is zero for a request that was not sent.
	Requested(operation Operation, outcome Outcome, duration time.Duration)
	// FellBack tells of a login that shows the second of a pod's tokens, the one for the
	// API server.
	FellBack()
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

// Outcome is what became of a request.
type Outcome string

// The outcomes, as metrics name them.
const (
	OK        Outcome = "ok"
	NotFound  Outcome = "not_found"
	Denied    Outcome = "denied"
	Refused   Outcome = "refused"
	Throttled Outcome = "throttled"
	// Sealed is Vault's own word that it is sealed, which no other 503 is.
	Sealed Outcome = "sealed"
	// Failed is any other status of 500 and above, and an answer that the driver does
	// not take.
	Failed Outcome = "error"
	// Unreachable is no answer at all.
	Unreachable Outcome = "unreachable"
	// HeldBack was not sent, since those before it failed.
	HeldBack Outcome = "held_back"
	// Cancelled is one that nobody waits for any more.
	Cancelled Outcome = "cancelled"
)

// Operations and Outcomes are all there are, for whoever counts them from zero.
func Operations() []Operation {
	return []Operation{LogIn, Read, List, Write, RenewToken, RenewLease, Revoke, MountProbe, ProbeSeal}
}

// Outcomes are all outcomes.
func Outcomes() []Outcome {
	return []Outcome{OK, NotFound, Denied, Refused, Throttled, Sealed, Failed, Unreachable, HeldBack, Cancelled}
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

func outcomeOf(response *http.Response, err error) Outcome {
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

func probeOutcome(err error) Outcome {
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
