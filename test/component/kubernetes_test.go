package component

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"

	"github.com/vaultmount/vaultmount/test/rig"
)

// The kubernetes method of a real Vault. Of the API server it needs one answer,
// which the test gives; with a real one the end-to-end tests do the same.
func TestKubernetesLogin(t *testing.T) {
	fixture := rig.StartVault(t)
	reviewer := &reviewer{reviewed: make(chan []string, 8)}
	server := httptest.NewServer(reviewer)
	t.Cleanup(server.Close)
	n := startNode(t, fixture.Server.Address, fixture)
	tests := map[string]struct {
		// ownToken has Vault ask with the token that it was shown.
		ownToken       bool
		audience, want string
	}{
		"role for Vault":                        {false, "vault", "vault"},
		"role for the API server":               {false, rig.APIServerAudience, rig.APIServerAudience},
		"role for anybody":                      {false, "", "vault"},
		"Vault has no token of its own":         {true, "", rig.APIServerAudience},
		"nor has it one, for the API server":    {true, rig.APIServerAudience, rig.APIServerAudience},
		"audience of the role and of no volume": {false, "mars", ""},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			mount := strings.ReplaceAll(strings.ToLower(name), " ", "-")
			config := map[string]any{"kubernetes_host": server.URL, "disable_local_ca_jwt": true}
			if !test.ownToken {
				config["token_reviewer_jwt"] = reviewersToken
			}
			role := map[string]any{"bound_service_account_names": "internal-app", "bound_service_account_namespaces": "default", "token_policies": "internal-app"}
			if test.audience != "" {
				role["audience"] = test.audience
			}
			fixture.Write(t, "sys/auth/"+mount, map[string]any{"type": "kubernetes"})
			fixture.Write(t, "auth/"+mount+"/config", config)
			fixture.Write(t, "auth/"+mount+"/role/internal-app", role)
			for _, pod := range []string{mount + "-1", mount + "-2"} {
				attributes := map[string]string{"auth-type": rig.Absent, "auth-path": "auth/" + mount}
				if test.want == "" {
					_, err := n.publish(t, pod, attributes, nil)
					if err == nil || !strings.Contains(err.Error(), "invalid audience") {
						t.Errorf("got %v", err)
					}
					continue
				}
				n.requirePublished(t, pod, attributes, nil)
				if audiences := <-reviewer.reviewed; !slices.Equal(audiences, []string{test.want}) {
					t.Errorf("the token that Vault had reviewed was for %q", audiences)
				}
			}
		})
	}
}

const reviewersToken = "reviewer"

// reviewer is the part of an API server that reviews tokens, and tells of each the
// audiences that it was asked about. It answers those alone whom it knows.
type reviewer struct{ reviewed chan []string }

func (s *reviewer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path != "/apis/authentication.k8s.io/v1/tokenreviews" {
		http.NotFound(w, r)
		return
	}
	if bearer := strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer "); bearer != reviewersToken && !isForServer(bearer) {
		http.Error(w, `{"kind":"Status","apiVersion":"v1","status":"Failure","reason":"Unauthorized","code":401}`, http.StatusUnauthorized)
		return
	}
	var review struct{ Spec struct{ Audiences []string } }
	if err := json.NewDecoder(r.Body).Decode(&review); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	s.reviewed <- review.Spec.Audiences
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(http.StatusCreated)
	_ = json.NewEncoder(w).Encode(map[string]any{ // to a Vault that waits
		"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview",
		"status": map[string]any{"authenticated": true, "audiences": review.Spec.Audiences, "user": map[string]any{
			"username": "system:serviceaccount:default:internal-app", "uid": "internal-app-uid",
			"groups": []string{"system:serviceaccounts", "system:serviceaccounts:default", "system:authenticated"},
		}},
	})
}

// isForServer tells whether an API server would let somebody in by a token.
func isForServer(token string) bool {
	var claims jwt.Claims
	parsed, err := jwt.ParseSigned(token, []jose.SignatureAlgorithm{jose.ES256})
	return err == nil && parsed.UnsafeClaimsWithoutVerification(&claims) == nil && claims.Audience.Contains(rig.APIServerAudience)
}
