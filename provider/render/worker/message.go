package worker

import (
	"bytes"
	"encoding/json"
	"errors"
	"strings"

	"github.com/vaultmount/vaultmount/provider/render"
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
	r.Message = shorten(r.Message)
	return r
}

// shorten cuts between characters, so that JSON leaves the text as it is.
func shorten(text string) string {
	text = strings.ToValidUTF8(text, "?")
	return strings.ToValidUTF8(text[:min(len(text), messageLimit)], "")
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
	if r.Failure != "" && !known || len(r.Message) > messageLimit {
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
