package monitor

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
)

// AskVolumes asks the driver behind a unix socket what it knows of its volumes.
func AskVolumes(ctx context.Context, socket string) ([]Volume, error) {
	var dialer net.Dialer
	transport := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return dialer.DialContext(ctx, "unix", socket)
	}}
	defer transport.CloseIdleConnections()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://driver"+VolumesPath, nil)
	if err != nil {
		return nil, fmt.Errorf("ask the driver: %w", err)
	}
	client := http.Client{Transport: transport}
	response, err := client.Do(request)
	if err != nil {
		return nil, fmt.Errorf("ask the driver: %w", err)
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("ask the driver: it answers %s", response.Status)
	}
	var volumes []Volume
	if err := json.NewDecoder(response.Body).Decode(&volumes); err != nil {
		return nil, fmt.Errorf("read the driver's answer: %w", err)
	}
	return volumes, nil
}
