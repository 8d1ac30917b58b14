package bench

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/vaultmount/vaultmount/test/rig"
)

// floor is the least that a pod's secrets can cost: one login and one read for each,
// over connections that are kept, by a client that does nothing else.
type floor struct {
	client  *http.Client
	address string
}

func newFloor(address string) *floor {
	transport := http.DefaultTransport.(*http.Transport).Clone()
	// Enough that no connection of a burst is closed for want of a place.
	transport.MaxIdleConns, transport.MaxIdleConnsPerHost = 2000, 2000
	return &floor{client: &http.Client{Transport: transport}, address: address}
}

// pod logs in and reads.
func (f *floor) pod(ctx context.Context, jwt string, paths []string) error {
	var login struct {
		Auth struct {
			Token string `json:"client_token"`
		}
	}
	body, err := json.Marshal(map[string]string{"role": rig.Role, "jwt": jwt})
	if err != nil {
		return err
	}
	if err := f.ask(ctx, http.MethodPut, "auth/jwt/login", "", body, &login); err != nil {
		return err
	}
	for _, path := range paths {
		var secret struct {
			Data struct{ Data map[string]any }
		}
		if err := f.ask(ctx, http.MethodGet, path, login.Auth.Token, nil, &secret); err != nil {
			return err
		}
		if secret.Data.Data["password"] == nil {
			return fmt.Errorf("%s holds no password", path)
		}
	}
	return nil
}

func (f *floor) ask(ctx context.Context, method, path, token string, body []byte, into any) error {
	request, err := http.NewRequestWithContext(ctx, method, f.address+"/v1/"+path, bytes.NewReader(body))
	if err != nil {
		return err
	}
	if token != "" {
		request.Header.Set("X-Vault-Token", token)
	}
	request.Header.Set("X-Vault-Request", "true")
	response, err := f.client.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		return err
	}
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("%s %s: %s: %s", method, path, response.Status, text)
	}
	return json.Unmarshal(text, into)
}

// jwtOf is the token for Vault of a pod, as the kubelet would send it.
func jwtOf(b testing.TB, vault *rig.Vault, pod string) string {
	b.Helper()
	var tokens map[string]struct{ Token string }
	require.NoError(b, json.Unmarshal([]byte(vault.Tokens(b, pod, rig.Role)), &tokens))
	return tokens["vault"].Token
}
