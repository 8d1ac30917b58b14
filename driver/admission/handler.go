package admission

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"runtime/debug"
	"time"

	admissionv1 "k8s.io/api/admission/v1"
	"k8s.io/klog/v2"
)

// maxBody is more than the API server sends: an object of at most 3 MiB, twice
// for an update.
const maxBody = 8 << 20

// Handler serves reviews over HTTP, with the injector's statuses for what is no
// review.
type Handler struct {
	Reviewer Reviewer
	Metrics  *Metrics
}

// ServeHTTP answers one review and writes one line of log for it.
func (h *Handler) ServeHTTP(writer http.ResponseWriter, request *http.Request) {
	logger := klog.FromContext(request.Context())
	defer recovered(logger, writer)
	start := time.Now()
	review, status, err := read(writer, request)
	if err != nil {
		h.Metrics.fail(status)
		logger.Error(err, "Request is no review", logStatus, status)
		http.Error(writer, err.Error(), status)
		return
	}
	outcome := h.Reviewer.Review(review.Request)
	duration := time.Since(start)
	h.Metrics.observe(h.Reviewer.Translator, outcome, duration)
	logOutcome(logger, review.Request, outcome, duration)
	review.Request, review.Response = nil, outcome.Response
	writer.Header().Set("Content-Type", "application/json")
	if err := json.NewEncoder(writer).Encode(review); err != nil {
		logger.Error(err, "Answer not sent", logUID, outcome.Response.UID)
	}
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

// read returns the review, or the HTTP status for what is none.
func read(writer http.ResponseWriter, request *http.Request) (*admissionv1.AdmissionReview, int, error) {
	header := request.Header.Get("Content-Type")
	if mediaType, _, err := mime.ParseMediaType(header); err != nil || mediaType != "application/json" {
		return nil, http.StatusBadRequest, fmt.Errorf("invalid content-type: %q", header)
	}
	body, err := io.ReadAll(http.MaxBytesReader(writer, request.Body, maxBody))
	var tooLarge *http.MaxBytesError
	switch {
	case errors.As(err, &tooLarge):
		return nil, http.StatusRequestEntityTooLarge, fmt.Errorf("read request body: %w", err)
	case err != nil:
		return nil, http.StatusBadRequest, fmt.Errorf("read request body: %w", err)
	case len(body) == 0:
		return nil, http.StatusBadRequest, errors.New("empty request body")
	}
	review, err := decodeReview(body)
	if err != nil {
		return nil, http.StatusInternalServerError, fmt.Errorf("error decoding admission request: %w", err)
	}
	return review, http.StatusOK, nil
}

// decodeReview takes version v1beta1 as well: its fields are those of v1, and the
// answer goes out under the version that it came in.
func decodeReview(body []byte) (*admissionv1.AdmissionReview, error) {
	var review admissionv1.AdmissionReview
	if err := decode(body, &review); err != nil {
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
