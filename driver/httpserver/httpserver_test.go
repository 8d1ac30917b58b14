package httpserver

import (
	"bytes"
	"context"
	"io"
	"log"
	"net"
	"net/http"
	"strings"
	"testing"

	"k8s.io/klog/v2"
	"k8s.io/klog/v2/textlogger"
)

// The program silences the standard logger, which net/http uses unless told otherwise.
func TestServeLogsPanics(t *testing.T) {
	log.SetOutput(io.Discard)
	var text bytes.Buffer
	ctx, cancel := context.WithCancel(klog.NewContext(t.Context(), textlogger.NewLogger(textlogger.NewConfig(textlogger.Output(&text)))))
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() {
		ended <- Serve(ctx, listener, &http.Server{Handler: http.HandlerFunc(func(http.ResponseWriter, *http.Request) { panic("out of order") })})
	}()
	if response, err := http.Get("http://" + listener.Addr().String()); err == nil {
		response.Body.Close()
		t.Error("the request is answered")
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if !strings.Contains(text.String(), "panic serving") || !strings.Contains(text.String(), "out of order") {
		t.Errorf("the log holds %q", text.String())
	}
}
