package webhook

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net"
	"net/http"
	"os"
	"runtime/debug"
	"time"

	admissionv1 "k8s.io/api/admission/v1"
	"k8s.io/klog/v2"
	kjson "sigs.k8s.io/json"

	"github.com/vaultmount/vaultmount/provider/limits"
)

// Handler serves reviews over HTTP, with the injector's statuses for what is no
// review. Its memory is bounded, whatever is sent to it.
type Handler struct {
	reviewer Reviewer
	metrics  *Metrics
	capacity *capacity
}

// NewHandler returns a handler. The metrics count its requests.
func NewHandler(reviewer Reviewer, metrics *Metrics) *Handler {
	return &Handler{reviewer: reviewer, metrics: metrics, capacity: newCapacity()}
}

// requestError is answered with a status instead of a review.
type requestError struct {
	status int
	err    error
}

func (e *requestError) Error() string { return e.err.Error() }
func (e *requestError) Unwrap() error { return e.err }

// errBusy is answered quickly and costs nothing. The API server asks again after a
// second, until the timeout of the webhook's configuration has passed.
var errBusy = &requestError{http.StatusTooManyRequests, errors.New("too many reviews at a time; try again")}

// ServeHTTP answers one review and writes one line of log for it.
func (h *Handler) ServeHTTP(writer http.ResponseWriter, request *http.Request) {
	logger := klog.FromContext(request.Context())
	defer recovered(logger, writer)
	start := time.Now()
	review, err := h.receive(writer, request)
	if err != nil {
		h.fail(logger, writer, err)
		return
	}
	defer review.free()
	outcome, answer, err := h.answer(request.Context(), review)
	if err != nil {
		h.fail(logger, writer, err)
		return
	}
	duration := time.Since(start)
	h.metrics.observe(h.reviewer.Translator, outcome, duration)
	logOutcome(logger, review.Request, outcome, duration)
	review.Request = nil
	review.shrink(int64(len(answer)))
	// Whoever reads slowly does not keep the memory.
	_ = http.NewResponseController(writer).SetWriteDeadline(time.Now().Add(answerTimeout))
	writer.Header().Set("Content-Type", "application/json")
	if _, err := writer.Write(answer); err != nil {
		logger.Error(err, "Answer not sent", logUID, cutUID(outcome.Response.UID))
	}
}

// answer reviews and encodes, in the turn of the namespace.
func (h *Handler) answer(ctx context.Context, review received) (Outcome, []byte, error) {
	turn, err := h.capacity.forTurn(ctx, review.Request.Namespace)
	if err != nil {
		return Outcome{}, nil, errBusy
	}
	defer turn.free()
	outcome := h.reviewer.Review(review.Request)
	answer, err := json.Marshal(admissionv1.AdmissionReview{TypeMeta: review.TypeMeta, Response: outcome.Response})
	if err != nil {
		return Outcome{}, nil, &requestError{http.StatusInternalServerError, err}
	}
	return outcome, answer, nil
}

func (h *Handler) fail(logger klog.Logger, writer http.ResponseWriter, err error) {
	failure := &requestError{http.StatusInternalServerError, err}
	errors.As(err, &failure)
	h.metrics.fail(failure.status)
	message := limits.Truncate(err.Error(), limits.ErrorBytes.Max())
	if failure.status == http.StatusTooManyRequests {
		writer.Header().Set("Retry-After", "1")
		logger.V(levelRequest).Info("Review put off", logReason, message)
	} else {
		logger.Error(errors.New(message), "Request is no review", logStatus, failure.status)
	}
	http.Error(writer, message, failure.status)
}

// recovered answers for a review that panicked. What it panicked with may hold a
// value of an annotation, and is not logged.
func recovered(logger klog.Logger, writer http.ResponseWriter) {
	if recover() == nil {
		return
	}
	logger.Error(nil, "Review panicked", logStack, string(debug.Stack()))
	http.Error(writer, "the review failed; see the webhook's log", http.StatusInternalServerError)
}

// received is a review and the memory that is reserved for it.
type received struct {
	*admissionv1.AdmissionReview
	*reservation
}

// receive returns the review after it has reserved the memory to answer it.
func (h *Handler) receive(writer http.ResponseWriter, request *http.Request) (received, error) {
	ctx := request.Context()
	header := request.Header.Get("Content-Type")
	if mediaType, _, err := mime.ParseMediaType(header); err != nil || mediaType != "application/json" {
		return received{}, &requestError{http.StatusBadRequest, fmt.Errorf("invalid content-type: %.40q", header)}
	}
	host, _, _ := net.SplitHostPort(request.RemoteAddr) // without one, all are one host
	length := request.ContentLength
	if length < 0 {
		length = int64(limits.ReviewBytes.Max())
	}
	if err := limits.ReviewBytes.Check(int(length)); err != nil {
		return received{}, &requestError{http.StatusRequestEntityTooLarge, fmt.Errorf("the review is too large: %w", err)}
	}
	reading, err := h.capacity.forBody(ctx, host, length)
	if err != nil {
		return received{}, errBusy
	}
	defer reading.free()
	body, err := readBody(writer, request)
	if err != nil {
		return received{}, err
	}
	count := countValues(body)
	if err := limits.ReviewValues.Check(count); err != nil {
		return received{}, &requestError{http.StatusRequestEntityTooLarge, fmt.Errorf("the review is too large: %w", err)}
	}
	review, err := decodeReview(body)
	if err != nil {
		return received{}, &requestError{http.StatusInternalServerError, fmt.Errorf("error decoding admission request: %w", err)}
	}
	reviewing, err := h.capacity.forReview(ctx, review.Request.Namespace, len(body), count)
	if err != nil {
		return received{}, errBusy
	}
	return received{review, reviewing}, nil
}

// readBody gives a sender little time: it keeps memory from others.
func readBody(writer http.ResponseWriter, request *http.Request) ([]byte, error) {
	_ = http.NewResponseController(writer).SetReadDeadline(time.Now().Add(bodyTimeout))
	limit := int64(limits.ReviewBytes.Max())
	body := make([]byte, 0, max(request.ContentLength, 0)+1)
	body, err := appendAll(body, http.MaxBytesReader(writer, request.Body, limit))
	var tooLarge *http.MaxBytesError
	switch {
	case errors.As(err, &tooLarge):
		return nil, &requestError{http.StatusRequestEntityTooLarge, fmt.Errorf("the review is too large: %w", limits.ReviewBytes.Check(int(limit)+1))}
	case errors.Is(err, os.ErrDeadlineExceeded):
		return nil, &requestError{http.StatusRequestTimeout, fmt.Errorf("read request body: it takes longer than %s", bodyTimeout)}
	case err != nil:
		return nil, &requestError{http.StatusBadRequest, fmt.Errorf("read request body: %w", err)}
	case len(body) == 0:
		return nil, &requestError{http.StatusBadRequest, errors.New("empty request body")}
	}
	return body, nil
}

// appendAll is io.ReadAll into a buffer that has the right size from the start.
func appendAll(buffer []byte, reader io.Reader) ([]byte, error) {
	for {
		if len(buffer) == cap(buffer) {
			buffer = append(buffer, 0)[:len(buffer)]
		}
		n, err := reader.Read(buffer[len(buffer):cap(buffer)])
		buffer = buffer[:len(buffer)+n]
		if errors.Is(err, io.EOF) {
			return buffer, nil
		}
		if err != nil {
			return nil, err
		}
	}
}

// decodeReview takes version v1beta1 as well: its fields are those of v1, and the
// answer goes out under the version that it came in.
func decodeReview(body []byte) (*admissionv1.AdmissionReview, error) {
	var review admissionv1.AdmissionReview
	if err := kjson.UnmarshalCaseSensitivePreserveInts(body, &review); err != nil {
		return nil, err
	}
	switch {
	case review.Kind != "AdmissionReview" || review.APIVersion != "admission.k8s.io/v1" && review.APIVersion != "admission.k8s.io/v1beta1":
		// Whoever reaches the port may send a megabyte of lines here, which is logged.
		return nil, fmt.Errorf("apiVersion %.40q and kind %.40q are not those of an AdmissionReview of admission.k8s.io/v1", review.APIVersion, review.Kind)
	case review.Request == nil:
		return nil, errors.New("the AdmissionReview holds no request")
	}
	return &review, nil
}
