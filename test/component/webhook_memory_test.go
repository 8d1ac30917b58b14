package component

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	appsv1 "k8s.io/api/apps/v1"
	"k8s.io/apimachinery/pkg/util/yaml"

	"github.com/vaultmount/vaultmount/provider/limits"
	"github.com/vaultmount/vaultmount/test/rig"
)

// sender sends over one connection from a host of its own until the connection or the
// test ends.
type sender func(ctx context.Context, conn net.Conn, number int) error

// Whatever is sent to the webhook, and by how many hosts at a time, it stays within
// the memory that the chart gives it, and answers an API server.
func TestWebhookStaysWithinItsMemory(t *testing.T) {
	// More than the webhook's connections, and enough to send always.
	const many, some = 300, 24
	big := strings.Repeat("x", limits.ReviewBytes.Max()-2000)
	template := strings.Repeat("{{if 1}}", 15_000) + strings.Repeat("{{end}}", 15_000)
	for _, test := range []struct {
		name    string
		senders int
		send    sender
	}{
		{"the largest reviews", some, repeatedly(func(n int) string {
			return review(fmt.Sprint("n-", n%50), "", `,"hostname":"`+big+`"`)
		})},
		{"reviews with the most values", some, repeatedly(func(n int) string {
			return review(fmt.Sprint("n-", n%50), "", `,"initContainers":[{}`+strings.Repeat(`,{}`, 4_000)+`],"volumes":[{"projected":{"sources":[{}`+strings.Repeat(",{}", 44_000)+`]}}]`)
		})},
		{"volumes without number", some, repeatedly(func(n int) string {
			return review("n", "", `,"volumes":[null`+strings.Repeat(`,null`, 500_000)+`]`)
		})},
		{"templates of nested blocks", some, repeatedly(func(int) string {
			return review("n", `,"vault.hashicorp.com/agent-inject-template-a":"`+template+`"`, "")
		})},
		{"quantities that take seconds", some, repeatedly(func(int) string {
			return review("n", "", `,"overhead":{"a":"1e-10000000"}`)
		})},
		{"bodies that never end", many, stalled(`{"a":"` + strings.Repeat("x", 1<<20))},
		{"small bodies that never end", many, stalled(`{"a":"` + strings.Repeat("x", 30<<10))},
		{"headers that never end", many, func(ctx context.Context, conn net.Conn, _ int) error {
			_, err := io.WriteString(conn, "POST /mutate HTTP/1.1\r\nX: "+strings.Repeat("x", 7<<10))
			return untilClosed(ctx, conn, err)
		}},
		{"answers that nobody reads", many, func(ctx context.Context, conn net.Conn, n int) error {
			body := review(fmt.Sprint("n-", n%50), `,"vault.hashicorp.com/agent-inject-template-a":"`+template+`"`, "")
			err := post(conn, body, len(body))
			<-ctx.Done()
			return err
		}},
		{"idle connections", many, func(ctx context.Context, conn net.Conn, _ int) error { return untilClosed(ctx, conn, nil) }},
	} {
		t.Run(test.name, func(t *testing.T) {
			memory := rig.NewMemory(t, webhookMemory(t))
			webhook := memory.StartWebhook(t, "--verbosity=0")
			ctx, cancel := context.WithCancel(t.Context())
			var group sync.WaitGroup
			var opened sync.WaitGroup
			opened.Add(test.senders)
			for n := range test.senders {
				group.Go(func() {
					conn, err := connect(ctx, webhook.Reviews, fmt.Sprintf("127.0.1.%d", 1+n%30))
					opened.Done()
					if err == nil {
						_ = test.send(ctx, conn, n)
						conn.Close()
					}
				})
			}
			opened.Wait()
			slowest := time.Duration(0)
			for i := range 30 {
				start := time.Now()
				if err := askAsAnAPIServer(t.Context(), webhook, review(fmt.Sprint("victim-", i%3), "", "")); err != nil {
					t.Errorf("review %d: %v", i, err)
				}
				slowest = max(slowest, time.Since(start))
			}
			cancel()
			group.Wait()
			t.Logf("slowest answer %s, peak %d MiB of %d", slowest.Round(time.Millisecond), memory.Peak(t)>>20, memory.Limit>>20)
			if kills := memory.OOMKills(t); kills > 0 {
				t.Errorf("the kernel has killed %d processes", kills)
			}
		})
	}
}

// webhookMemory is the limit of the chart.
func webhookMemory(t *testing.T) int64 {
	t.Helper()
	content, err := os.ReadFile("../../deploy/webhook/webhook.yaml")
	require.NoError(t, err)
	documents := yaml.NewYAMLOrJSONDecoder(bytes.NewReader(content), 4096)
	for {
		var deployment appsv1.Deployment
		if err := documents.Decode(&deployment); err != nil {
			t.Fatalf("find the Deployment: %v", err)
		}
		if containers := deployment.Spec.Template.Spec.Containers; len(containers) > 0 {
			return containers[0].Resources.Limits.Memory().Value()
		}
	}
}

func review(namespace, annotations, spec string) string {
	return `{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview","request":{"uid":"u","kind":{"version":"v1","kind":"Pod"},"operation":"CREATE","namespace":"` + namespace +
		`","object":{"metadata":{"name":"p","annotations":{"vault.hashicorp.com/agent-inject":"true","vault.hashicorp.com/role":"app","vault.hashicorp.com/agent-inject-secret-a":"kv/a"` +
		annotations + `}},"spec":{"containers":[{"name":"app"}]` + spec + `}}}}`
}

func connect(ctx context.Context, url, host string) (net.Conn, error) {
	dialer := tls.Dialer{
		NetDialer: &net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(host)}},
		Config:    &tls.Config{InsecureSkipVerify: true}, // nothing is said that is worth keeping
	}
	return dialer.DialContext(ctx, "tcp", strings.TrimPrefix(url, "https://"))
}

// post sends a request whose body may lack its end.
func post(conn net.Conn, body string, length int) error {
	_, err := fmt.Fprintf(conn, "POST /mutate HTTP/1.1\r\nHost: webhook\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", length, body)
	return err
}

// repeatedly sends reviews and reads the answers.
func repeatedly(body func(number int) string) sender {
	return func(ctx context.Context, conn net.Conn, n int) error {
		defer context.AfterFunc(ctx, func() { conn.Close() })()
		text, answers := body(n), bufio.NewReader(conn)
		for {
			if err := post(conn, text, len(text)); err != nil {
				return err
			}
			response, err := http.ReadResponse(answers, nil)
			if err != nil {
				return err
			}
			if _, err := io.Copy(io.Discard, response.Body); err != nil {
				return err
			}
		}
	}
}

// stalled sends all of a body but its end.
func stalled(body string) sender {
	return func(ctx context.Context, conn net.Conn, _ int) error {
		return untilClosed(ctx, conn, post(conn, body, len(body)+100))
	}
}

func untilClosed(ctx context.Context, conn net.Conn, err error) error {
	if err != nil {
		return err
	}
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	_, err = io.Copy(io.Discard, conn)
	return err
}

// askAsAnAPIServer waits as long as the chart's configuration says, and comes again
// when it is told to.
func askAsAnAPIServer(ctx context.Context, webhook *rig.Webhook, body string) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	for {
		request, err := http.NewRequestWithContext(ctx, http.MethodPost, webhook.Reviews+"/mutate", strings.NewReader(body))
		if err != nil {
			return err
		}
		request.Header.Set("Content-Type", "application/json")
		response, err := webhook.Client.Do(request)
		if err != nil {
			return err
		}
		text, err := io.ReadAll(response.Body)
		response.Body.Close()
		switch {
		case err != nil:
			return err
		case response.StatusCode == http.StatusTooManyRequests && response.Header.Get("Retry-After") == "1":
			again := time.NewTimer(time.Second)
			select {
			case <-again.C:
			case <-ctx.Done():
				return ctx.Err()
			}
			continue
		case response.StatusCode != http.StatusOK:
			return fmt.Errorf("answered %s: %.400s", response.Status, text)
		}
		var answer struct {
			Response struct{ Allowed bool }
		}
		if err := json.Unmarshal(text, &answer); err != nil || !answer.Response.Allowed {
			return fmt.Errorf("the pod is not allowed: %.400s, %w", text, err)
		}
		return nil
	}
}
