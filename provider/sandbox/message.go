package sandbox

import (
	"bytes"
	"encoding/json"
	"errors"
	"strings"

	"github.com/vaultmount/vaultmount/provider/limits"
	render "github.com/vaultmount/vaultmount/provider/template"
)

// request is what the parent asks, in JSON.
type request struct {
	Template render.Template
	Answers  render.Answers
}

// reply is what the worker answers, in JSON: plain data, since a worker may have
// been taken over.
type reply struct {
	// Failure is empty, or the name of a kind of error.
	Failure string
	// Message is the whole text of the error.
	Message string
	Result  render.Result
}

// kinds are the errors that a template can cause by itself.
func kinds() map[string]error {
	return map[string]error{"invalid": render.ErrInvalid, "data": render.ErrData}
}

// failure is an error that came out of a worker.
type failure struct {
	kind error
	text string
}

// isReported tells an error that a worker reported from one that it has made.
func isReported(err error) bool {
	var reported *failure
	return errors.As(err, &reported)
}

func (f *failure) Error() string { return f.text }
func (f *failure) Unwrap() error { return f.kind }

func newReply(result render.Result, err error) reply {
	if err == nil {
		return reply{Result: result}
	}
	r := reply{Failure: "data", Message: err.Error()}
	for name, kind := range kinds() {
		if errors.Is(err, kind) {
			r.Failure = name
		}
	}
	// JSON would replace what is not UTF-8 by something longer.
	r.Message = limits.Truncate(strings.ToValidUTF8(r.Message, "?"), limits.ErrorBytes.Max())
	return r
}

// result takes apart what a worker claims to be the outcome.
func (r reply) result() (render.Result, error) {
	if r.Failure == "" {
		return r.Result, nil
	}
	return render.Result{}, &failure{kind: kinds()[r.Failure], text: r.Message}
}

var errNonsense = errors.New("the answer of the worker cannot be read")

// decodeReply says no more of what it cannot read: it may hold anything.
func decodeReply(payload []byte) (reply, error) {
	var r reply
	// Each element but the first of a list has a comma before it.
	if bytes.Count(payload, []byte(",")) > elementsLimit {
		return reply{}, errNonsense
	}
	if err := json.Unmarshal(payload, &r); err != nil {
		return reply{}, errNonsense
	}
	_, known := kinds()[r.Failure]
	if r.Failure != "" && !known || limits.ErrorBytes.Check(len(r.Message)) != nil {
		return reply{}, errNonsense
	}
	return r, nil
}

// decodeRequest keeps numbers as Vault spelt them.
func decodeRequest(payload []byte) (request, error) {
	var r request
	decoder := json.NewDecoder(bytes.NewReader(payload))
	decoder.UseNumber()
	err := decoder.Decode(&r)
	return r, err
}
