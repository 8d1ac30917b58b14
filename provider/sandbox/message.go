package sandbox

import (
	"bytes"
	"encoding/json"
	"errors"
	"reflect"
	"strings"

	"github.com/vaultmount/vaultmount/provider/limits"
	"github.com/vaultmount/vaultmount/provider/template"
)

// request asks to execute the templates of one volume, in order. The worker sends a
// reply for each, up to the first failure.
type request struct {
	// Pods are the distinct pods of the templates.
	Pods      []template.Pod
	Templates []sentTemplate
	Values    []sentValue
}

// sentTemplate is a template whose Pod is empty: PodIndex says which of Pods it is.
type sentTemplate struct {
	template.Template

	PodIndex int
}

// sentValue is an entry of template.Values.
type sentValue struct {
	template.Dependency
	template.Value
}

func newRequest(templates []template.Template, values template.Values) request {
	var r request
	for _, t := range templates {
		if len(r.Pods) == 0 || !reflect.DeepEqual(r.Pods[len(r.Pods)-1], t.Pod) {
			r.Pods = append(r.Pods, t.Pod)
		}
		t.Pod = template.Pod{}
		r.Templates = append(r.Templates, sentTemplate{t, len(r.Pods) - 1})
	}
	for dependency, value := range values {
		r.Values = append(r.Values, sentValue{dependency, value})
	}
	return r
}

// unpack returns the arguments of newRequest.
func (r request) unpack() ([]template.Template, template.Values, error) {
	templates := make([]template.Template, len(r.Templates))
	for i, sent := range r.Templates {
		if sent.PodIndex < 0 || sent.PodIndex >= len(r.Pods) {
			return nil, nil, errors.New("a template names no pod")
		}
		templates[i] = sent.Template
		templates[i].Pod = r.Pods[sent.PodIndex]
	}
	values := template.Values{}
	for _, sent := range r.Values {
		values[sent.Dependency] = sent.Value
	}
	return templates, values, nil
}

// reply is what the worker answers, in JSON: plain data, since a worker may have
// been taken over.
type reply struct {
	// Failure is empty, or the name of a kind of error.
	Failure string
	// Message is the whole text of the error.
	Message string
	Result  template.Result
}

// kinds are the errors that a template can cause by itself.
func kinds() map[string]error {
	return map[string]error{"invalid": template.ErrInvalid, "data": template.ErrData}
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

func newReply(result template.Result, err error) reply {
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
func (r reply) result() (template.Result, error) {
	if r.Failure == "" {
		return r.Result, nil
	}
	return template.Result{}, &failure{kind: kinds()[r.Failure], text: r.Message}
}

var errNonsense = errors.New("the answer of the worker cannot be read")

// decodeReply says no more of what it cannot read: it may hold anything.
func decodeReply(payload []byte) (reply, error) {
	var r reply
	if countElements(payload) > elementsLimit {
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

// countElements counts the commas outside of strings: each element of a list but the
// first has one before it.
func countElements(payload []byte) (count int) {
	inString := false
	for i := 0; i < len(payload); i++ {
		switch payload[i] {
		case '"':
			inString = !inString
		case '\\':
			i++
		case ',':
			if !inString {
				count++
			}
		}
	}
	return count
}

// decodeRequest keeps numbers as Vault spelt them.
func decodeRequest(payload []byte) (request, error) {
	var r request
	decoder := json.NewDecoder(bytes.NewReader(payload))
	decoder.UseNumber()
	err := decoder.Decode(&r)
	return r, err
}
