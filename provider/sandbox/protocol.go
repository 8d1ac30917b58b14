package sandbox

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"io"
	"reflect"
	"strings"

	"github.com/vaultmount/vaultmount/provider/limits"
	"github.com/vaultmount/vaultmount/provider/template"
)

// headerSize is that of a frame: the length of its payload in bytes, big-endian.
const headerSize = 4

func errTooLong(length, limit int) error {
	return newWorkerError(Output, "the message is too long: %d bytes of at most %d", length, limit)
}

// writeFrame copies a small payload: one write wakes the reader once. A large one may have
// some MiB.
func writeFrame(w io.Writer, payload []byte, limit int) error {
	if len(payload) > limit {
		return errTooLong(len(payload), limit)
	}
	const small = 64 << 10 // what a pipe holds
	frame := binary.BigEndian.AppendUint32(nil, uint32(len(payload)))
	if len(payload) <= small {
		_, err := w.Write(append(frame, payload...))
		return err
	}
	if _, err := w.Write(frame); err != nil {
		return err
	}
	_, err := w.Write(payload)
	return err
}

// readFrame reads hostile data: memory grows with the bytes that came, not with those that
// the header promises. It returns io.EOF only if there was no byte of a frame.
func readFrame(r io.Reader, limit int) ([]byte, error) {
	var header [headerSize]byte
	if _, err := io.ReadFull(r, header[:]); err != nil {
		return nil, err
	}
	length := int64(binary.BigEndian.Uint32(header[:]))
	if length > int64(limit) {
		return nil, errTooLong(int(length), limit)
	}
	payload, err := io.ReadAll(io.LimitReader(r, length))
	if err != nil {
		return nil, err
	}
	if int64(len(payload)) < length {
		return nil, io.ErrUnexpectedEOF
	}
	return payload, nil
}

// request asks in JSON to execute the templates of one volume, in order. The worker sends
// a reply for each, up to the first failure.
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

// decodeRequest returns the arguments of newRequest. It keeps numbers as Vault wrote them.
func decodeRequest(payload []byte) ([]template.Template, template.Values, error) {
	var r request
	decoder := json.NewDecoder(bytes.NewReader(payload))
	decoder.UseNumber()
	if err := decoder.Decode(&r); err != nil {
		return nil, nil, err
	}
	templates, values := make([]template.Template, len(r.Templates)), template.Values{}
	for i, sent := range r.Templates {
		if sent.PodIndex < 0 || sent.PodIndex >= len(r.Pods) {
			return nil, nil, errors.New("a template names no pod")
		}
		templates[i] = sent.Template
		templates[i].Pod = r.Pods[sent.PodIndex]
	}
	for _, sent := range r.Values {
		values[sent.Dependency] = sent.Value
	}
	return templates, values, nil
}

// reply is the outcome of a template in JSON: plain data, since the worker may have been
// taken over.
type reply struct {
	// Failure is empty, or names a kind of error with the text Message.
	Failure, Message string
	Result           template.Result
}

func newReply(result template.Result, err error) reply {
	if err == nil {
		return reply{Result: result}
	}
	failure := "data"
	if errors.Is(err, template.ErrInvalid) {
		failure = "invalid"
	}
	// JSON would replace what is not UTF-8 by something longer.
	return reply{Failure: failure, Message: limits.Truncate(strings.ToValidUTF8(err.Error(), "?"), limits.ErrorBytes.Max())}
}

// reportedError is an error that came out of a worker.
type reportedError struct {
	kind error
	text string
}

func (e *reportedError) Error() string { return e.text }
func (e *reportedError) Unwrap() error { return e.kind }

// isReported tells an error that a worker reported from one that it caused.
func isReported(err error) bool { return errors.As(err, new(*reportedError)) }

// decodeReply returns the result or the reportedError of a reply. Of what it cannot read it
// says nothing: it may hold anything.
func decodeReply(payload []byte) (template.Result, error) {
	var r reply
	if countElements(payload) > elementsLimit || json.Unmarshal(payload, &r) != nil {
		return template.Result{}, errNonsense
	}
	if r.Failure == "" {
		return r.Result, nil
	}
	kind := map[string]error{"invalid": template.ErrInvalid, "data": template.ErrData}[r.Failure]
	if kind == nil || limits.ErrorBytes.Check(len(r.Message)) != nil {
		return template.Result{}, errNonsense
	}
	return template.Result{}, &reportedError{kind, r.Message}
}

// countElements counts the commas outside of strings: each element of a list but the first
// has one before it.
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
