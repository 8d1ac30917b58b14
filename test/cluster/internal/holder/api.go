package holder

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"

	"github.com/vaultmount/vaultmount/test/cluster/internal/pki"
)

// apiClient asks the API server the few questions that tell whether the cluster
// is ready; client-go would take minutes to compile for that.
type apiClient struct {
	http http.Client
}

func newAPIClient(ca []byte, user pki.Pair) (*apiClient, error) {
	certificate, err := tls.X509KeyPair(user.CertPEM, user.KeyPEM)
	if err != nil {
		return nil, fmt.Errorf("load client certificate: %w", err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(ca) {
		return nil, errors.New("load the CA: no certificate in it")
	}
	return &apiClient{http: http.Client{Transport: &http.Transport{
		TLSClientConfig: &tls.Config{RootCAs: roots, Certificates: []tls.Certificate{certificate}},
	}}}, nil
}

// get reads a resource into v, or only asks for it if v is nil.
func (c *apiClient) get(ctx context.Context, path string, v any) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://"+APIAddress+path, nil)
	if err != nil {
		return err
	}
	response, err := c.http.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		return fmt.Errorf("get %s: %w", path, err)
	}
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("get %s: %s", path, response.Status)
	}
	if v == nil {
		return nil
	}
	return json.Unmarshal(body, v)
}

func (c *apiClient) ready(ctx context.Context) error { return c.get(ctx, "/readyz", nil) }

func (c *apiClient) nodeReady(ctx context.Context) error {
	var node struct {
		Status struct {
			Conditions []struct{ Type, Status, Message string }
		}
	}
	if err := c.get(ctx, "/api/v1/nodes/"+Node, &node); err != nil {
		return err
	}
	for _, condition := range node.Status.Conditions {
		if condition.Type != "Ready" {
			continue
		}
		if condition.Status == "True" {
			return nil
		}
		return fmt.Errorf("node is not ready: %s", condition.Message)
	}
	return errors.New("node has not told its condition")
}
