package webhook

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"mime"
	"net"
	"net/http"
	"os"
	"runtime/debug"
	"time"

	admissionv1 "k8s.io/api/admission/v1"
	"k8s.io/klog/v2"
	kjson "sigs.k8s.io/json"

	"github.com/vaultmount/vaultmount/provider/fairqueue"
	"github.com/vaultmount/vaultmount/provider/limits"
)

// Bounds of all reviews at a time. With connections and the program itself they stay
// below the chart's 128 MiB. One host or namespace may hold half of each, which is
// enough for the largest review.
const (
	bodyMemory   = 12 << 20 // bytes
	reviewMemory = 40 << 20 // bytes
	maxRunning   = 4        // reviews that run
	// freeBody needs no reservation, so whoever sends large reviews slowly does not delay
	// the usual ones.
	freeBody = 32 << 10
)

// The most memory that a request takes, measured with hostile reviews: a body is decoded
// into a copy, and a review holds the object, its strings, the patch and its encoding.
const (
	bodyFactor    = 2
	reviewFactor  = 3
	bytesPerValue = 200
)

// Timeouts of one request. Together they leave time for a second attempt before the API
// server gives up, after five seconds in the chart.
const (
	readTimeout   = time.Second     // wait for memory for the body
	bodyTimeout   = 2 * time.Second // receive the body
	waitTimeout   = 2 * time.Second // wait for memory for the review, and for its turn
	answerTimeout = 5 * time.Second // send the answer
)

// Handler serves reviews over HTTP. Its memory is bounded for any input. A request waits
// for memory for its body, then for its review, then for its turn to run; nobody holds a
// later one while it waits for an earlier one, so requests cannot block each other.
type Handler struct {
	reviewer Reviewer
	metrics  *Metrics
	// bodies is fair by host: the namespace is not known before the body is read.
	bodies *fairqueue.Limiter
	// reviews and running are fair by namespace.
	reviews, running *fairqueue.Limiter
}

// NewHandler returns a handler whose requests the metrics count.
func NewHandler(reviewer Reviewer, metrics *Metrics) *Handler {
	return &Handler{
		reviewer: reviewer, metrics: metrics,
		bodies: fairqueue.New(bodyMemory), reviews: fairqueue.New(reviewMemory), running: fairqueue.New(maxRunning),
	}
}

// statusError is answered with an HTTP status instead of a review.
type statusError struct {
	status int
	error
}

// Unwrap returns the cause.
func (e *statusError) Unwrap() error { return e.error }

// errBusy costs nothing. The API server asks again after a second, until the timeout of
// the webhook's configuration.
var errBusy = &statusError{http.StatusTooManyRequests, errors.New("too many reviews at a time; try again")}

// reservation is an amount of a limiter that one request holds. The zero value is none.
type reservation struct {
	limiter *fairqueue.Limiter
	tenant  string
	amount  int64
}

func reserve(ctx context.Context, limiter *fairqueue.Limiter, timeout time.Duration, tenant string, amount int64) (*reservation, error) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	if err := limiter.Acquire(ctx, tenant, fairqueue.Foreground, amount); err != nil {
		return nil, errBusy
	}
	return &reservation{limiter, tenant, amount}, nil
}

// shrink releases all but an amount.
func (r *reservation) shrink(amount int64) {
	if r.amount > amount {
		r.limiter.Release(r.tenant, r.amount-amount)
		r.amount = amount
	}
}

// ServeHTTP answers one review, and logs one line.
func (h *Handler) ServeHTTP(writer http.ResponseWriter, request *http.Request) {
	logger := klog.FromContext(request.Context())
	defer recoverPanic(logger, writer)
	start := time.Now()
	review, memory, err := h.receive(writer, request)
	if err != nil {
		h.fail(logger, writer, err)
		return
	}
	defer memory.shrink(0)
	outcome, answer, err := h.answer(request.Context(), review)
	if err != nil {
		h.fail(logger, writer, err)
		return
	}
	duration := time.Since(start)
	h.metrics.observe(h.reviewer.Translator, outcome, duration)
	logOutcome(logger, review.Request, outcome, duration)
	review.Request = nil
	memory.shrink(int64(len(answer)))
	// A client that reads slowly must not hold the memory.
	_ = http.NewResponseController(writer).SetWriteDeadline(time.Now().Add(answerTimeout))
	writer.Header().Set("Content-Type", "application/json")
	if _, err := writer.Write(answer); err != nil {
		logger.Error(err, "Answer not sent", logUID, truncateName(string(outcome.Response.UID)))
	}
}

// answer reviews and encodes, in the namespace's turn.
func (h *Handler) answer(ctx context.Context, review *admissionv1.AdmissionReview) (Outcome, []byte, error) {
	turn, err := reserve(ctx, h.running, waitTimeout, review.Request.Namespace, 1)
	if err != nil {
		return Outcome{}, nil, err
	}
	defer turn.shrink(0)
	outcome := h.reviewer.Review(review.Request)
	answer, err := json.Marshal(admissionv1.AdmissionReview{TypeMeta: review.TypeMeta, Response: outcome.Response})
	return outcome, answer, err
}

func (h *Handler) fail(logger klog.Logger, writer http.ResponseWriter, err error) {
	failure := &statusError{http.StatusInternalServerError, err}
	errors.As(err, &failure)
	h.metrics.fail(failure.status)
	message := limits.Truncate(err.Error(), limits.ErrorBytes.Max())
	if failure.status == http.StatusTooManyRequests {
		writer.Header().Set("Retry-After", "1")
		logger.V(levelRequest).Info("Review postponed", "reason", message)
	} else {
		logger.Error(errors.New(message), "Invalid AdmissionReview", logStatus, failure.status)
	}
	http.Error(writer, message, failure.status)
}

// recoverPanic answers for a review that panicked. The value of the panic may hold that of
// an annotation, so it is not logged.
func recoverPanic(logger klog.Logger, writer http.ResponseWriter) {
	if recover() == nil {
		return
	}
	logger.Error(nil, "Review panicked", logStack, string(debug.Stack()))
	http.Error(writer, "the review failed; see the webhook's log", http.StatusInternalServerError)
}

// receive returns the review, and the memory that is reserved to answer it.
func (h *Handler) receive(writer http.ResponseWriter, request *http.Request) (*admissionv1.AdmissionReview, *reservation, error) {
	ctx := request.Context()
	header := request.Header.Get("Content-Type")
	if mediaType, _, err := mime.ParseMediaType(header); err != nil || mediaType != "application/json" {
		return nil, nil, &statusError{http.StatusBadRequest, fmt.Errorf("invalid content-type: %.40q", header)}
	}
	length := request.ContentLength
	if length < 0 {
		length = int64(limits.ReviewBytes.Max())
	}
	if err := checkSize(limits.ReviewBytes, int(length)); err != nil {
		return nil, nil, err
	}
	if length > freeBody {
		host, _, _ := net.SplitHostPort(request.RemoteAddr) // without one, all are one host
		reading, err := reserve(ctx, h.bodies, readTimeout, host, bodyFactor*length)
		if err != nil {
			return nil, nil, err
		}
		defer reading.shrink(0)
	}
	body, err := readBody(writer, request)
	if err != nil {
		return nil, nil, err
	}
	count := countValues(body)
	if err := checkSize(limits.ReviewValues, count); err != nil {
		return nil, nil, err
	}
	review, err := decodeReview(body)
	if err != nil {
		return nil, nil, fmt.Errorf("error decoding admission request: %w", err)
	}
	memory, err := reserve(ctx, h.reviews, waitTimeout, review.Request.Namespace, int64(reviewFactor*len(body)+bytesPerValue*count))
	return review, memory, err
}

func checkSize(limit limits.Limit, size int) error {
	if err := limit.Check(size); err != nil {
		return &statusError{http.StatusRequestEntityTooLarge, fmt.Errorf("the review is too large: %w", err)}
	}
	return nil
}

// readBody gives a sender little time, because the memory is reserved meanwhile.
func readBody(writer http.ResponseWriter, request *http.Request) ([]byte, error) {
	_ = http.NewResponseController(writer).SetReadDeadline(time.Now().Add(bodyTimeout))
	limit := limits.ReviewBytes.Max()
	body := new(bytes.Buffer)
	body.Grow(int(max(request.ContentLength, 0)) + bytes.MinRead) // ReadFrom copies a buffer that is too small
	_, err := body.ReadFrom(http.MaxBytesReader(writer, request.Body, int64(limit)))
	var tooLarge *http.MaxBytesError
	switch {
	case errors.As(err, &tooLarge):
		return nil, checkSize(limits.ReviewBytes, limit+1)
	case errors.Is(err, os.ErrDeadlineExceeded):
		return nil, &statusError{http.StatusRequestTimeout, fmt.Errorf("read request body: it takes longer than %s", bodyTimeout)}
	case err != nil:
		return nil, &statusError{http.StatusBadRequest, fmt.Errorf("read request body: %w", err)}
	case body.Len() == 0:
		return nil, &statusError{http.StatusBadRequest, errors.New("empty request body")}
	}
	return body.Bytes(), nil
}

// countValues returns an upper bound of the number of values in JSON.
func countValues(text []byte) int {
	count, inString := 1, false
	for i := 0; i < len(text); i++ {
		switch c := text[i]; {
		case inString && c == '\\':
			i++
		case c == '"':
			inString = !inString
		case !inString && (c == ',' || c == '[' || c == '{'):
			count++
		}
	}
	return count
}

// decodeReview also accepts v1beta1, which has the same fields. The answer has the
// version of the request.
func decodeReview(body []byte) (*admissionv1.AdmissionReview, error) {
	var review admissionv1.AdmissionReview
	if err := kjson.UnmarshalCaseSensitivePreserveInts(body, &review); err != nil {
		return nil, err
	}
	switch {
	case review.Kind != "AdmissionReview" || review.APIVersion != "admission.k8s.io/v1" && review.APIVersion != "admission.k8s.io/v1beta1":
		return nil, fmt.Errorf("apiVersion %.40q and kind %.40q are not those of an AdmissionReview of admission.k8s.io/v1", review.APIVersion, review.Kind)
	case review.Request == nil:
		return nil, errors.New("the AdmissionReview holds no request")
	}
	return &review, nil
}
