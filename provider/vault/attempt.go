package vault

import (
	"context"
	"errors"
	"net"
	"time"
)

// attempt is one request, as the circuit sees it.
type attempt struct {
	circuit *circuit
	report  func(error)
	// answers are those that there were when the request was sent.
	answers uint64
	// patience ends while one request at a time is let through: then this one has no
	// answer yet, and another tries. Nil at other times.
	patience *time.Timer
}

// errHangs is no failure of Vault, as long as it answers others.
var errHangs = errors.New("no answer to this request")

// send notes that the request is sent now.
func (a *attempt) send() { a.answers = a.circuit.answers.Load() }

// end tells the circuit what became of the request. One secrets engine may hang, with
// all who read from it, in a Vault that answers everything else; so a request that
// ends without an answer says nothing if others had theirs meanwhile, or were let try.
func (a *attempt) end(outcome error) {
	passedBy := a.patience != nil && !a.patience.Stop()
	switch {
	case outcome == nil:
		a.circuit.answers.Add(1)
	case isTimeout(outcome) && (passedBy || a.circuit.answers.Load() != a.answers):
		outcome = errHangs
	}
	if passedBy && saysNothing(outcome) {
		return // the circuit has heard so
	}
	a.circuit.note(outcome)
	a.report(outcome)
}

func isTimeout(err error) bool {
	var failure net.Error
	return errors.As(err, &failure) && failure.Timeout()
}

// saysNothing excludes failures that are not Vault's: the caller gave up, the
// certificates do not fit, or it is this request alone.
func saysNothing(err error) bool {
	return err != nil && (errors.Is(err, context.Canceled) || isDistrust(err) || errors.Is(err, errNoTurn) || errors.Is(err, errHangs))
}
