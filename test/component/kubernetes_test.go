package component

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"testing"
)

// The kubernetes method of a real Vault. Of the API server it needs one answer,
// which the test gives; with a real one the end-to-end tests do the same.
func TestKubernetesLogin(t *testing.T) {
	fixture := startVault(t)
	reviewed := make(chan []string, 8)
	reviewer := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var review struct {
			Spec struct{ Audiences []string }
		}
		if err := json.NewDecoder(r.Body).Decode(&review); err != nil || r.URL.Path != "/apis/authentication.k8s.io/v1/tokenreviews" {
			t.Errorf("Vault asks %s: %v", r.URL.Path, err)
		}
		reviewed <- review.Spec.Audiences
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusCreated)
		if err := json.NewEncoder(w).Encode(map[string]any{
			"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview",
			"status": map[string]any{"authenticated": true, "audiences": review.Spec.Audiences, "user": map[string]any{
				"username": "system:serviceaccount:default:internal-app", "uid": "internal-app-uid",
				"groups": []string{"system:serviceaccounts", "system:serviceaccounts:default", "system:authenticated"},
			}},
		}); err != nil {
			t.Error(err)
		}
	}))
	t.Cleanup(reviewer.Close)
	fixture.write(t, "sys/auth/cluster-1", map[string]any{"type": "kubernetes"})
	fixture.write(t, "auth/cluster-1/config", map[string]any{"kubernetes_host": reviewer.URL, "disable_local_ca_jwt": true, "token_reviewer_jwt": "reviewer"})
	fixture.write(t, "auth/cluster-1/role/internal-app", map[string]any{
		"bound_service_account_names": "internal-app", "bound_service_account_namespaces": "default", "token_policies": "internal-app", "audience": "vault",
	})
	n := startNode(t, fixture.server.Address, fixture)
	n.requirePublished(t, "web", map[string]string{"auth-type": absent, "auth-path": "auth/cluster-1"}, nil)
	if audiences := <-reviewed; len(audiences) != 1 || audiences[0] != "vault" {
		t.Errorf("the token that Vault had reviewed was for %q", audiences)
	}
}
