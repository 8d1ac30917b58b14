package component

import (
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/vaultmount/vaultmount/test/rig"
)

// Vault's own rate limit: a second's wait that it asks for is waited out inside
// the call; a minute's is reported.
func TestRateLimit(t *testing.T) {
	fixture := rig.StartVault(t)
	n := startNode(t, fixture.Server.Address, fixture)
	fixture.Write(t, "sys/quotas/rate-limit/logins", map[string]any{"path": "auth/jwt", "rate": 1, "interval": "1s"})
	var group sync.WaitGroup
	for i := range 3 {
		group.Go(func() { n.requirePublished(t, podName(i), nil, nil) })
	}
	group.Wait()

	fixture.Write(t, "sys/quotas/rate-limit/logins", map[string]any{"path": "auth/jwt", "rate": 1, "interval": "60s"})
	n.requirePublished(t, "last-one", nil, nil)
	_, err := n.publish(t, "one-too-many", nil, nil)
	if status.Code(err) != codes.Unavailable || !strings.Contains(err.Error(), "HTTP status 429") {
		t.Errorf("got %v", err)
	}
}

func TestSealedVault(t *testing.T) {
	fixture := rig.StartVault(t)
	n := startNode(t, fixture.Server.Address, fixture)
	require.NoError(t, fixture.Root.Sys().SealWithContext(t.Context()))
	for i := range 3 {
		_, err := n.publish(t, podName(i), map[string]string{"client-max-retries": "1", "auth-max-backoff": "100ms"}, nil)
		if status.Code(err) != codes.Unavailable || !strings.Contains(err.Error(), "Vault is sealed") {
			t.Errorf("publish %d: %v", i, err)
		}
	}
	// Three calls with two attempts each: the sixth request was not sent.
	opened := regexp.MustCompile(`"Circuit breaker of Vault changed" .*open=true cause="[^"]*Vault is sealed"`)
	if !opened.MatchString(n.logs.String()) {
		t.Error("the breaker did not open, or does not say so")
	}
}

// The shortest waitTimeout that a volume may ask for.
func TestClientTimeout(t *testing.T) {
	silent, _ := listenSilently(t)
	n := startNode(t, "http://"+silent, rig.NewIssuer(t))
	start := time.Now()
	_, err := n.publish(t, "impatient", map[string]string{"client-timeout": "1s", "client-max-retries": "0"}, nil)
	if status.Code(err) != codes.Unavailable || !strings.Contains(err.Error(), "deadline exceeded") {
		t.Errorf("got %v", err)
	}
	if took := time.Since(start); took > 20*time.Second {
		t.Errorf("it took %s; without the attribute it takes 30 s", took)
	}
	if !strings.Contains(n.logs.String(), `attribute="client-timeout" asked="1s" used="5s"`) {
		t.Error("the log does not say that the attribute was out of bounds")
	}
}
