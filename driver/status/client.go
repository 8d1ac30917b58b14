package status

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
)

// ErrNoDriver is the error of a driver that does not answer.
var ErrNoDriver = errors.New("ask the driver")

// Client asks the driver behind a unix socket. It may be used concurrently.
type Client struct {
	// Socket is the path of the socket.
	Socket string
}

// Volumes returns the volumes of the node.
func (c Client) Volumes(ctx context.Context) ([]Volume, error) {
	body, err := c.send(ctx, http.MethodGet, volumesPath)
	if err != nil {
		return nil, err
	}
	defer body.Close()
	var volumes []Volume
	if err := json.NewDecoder(body).Decode(&volumes); err != nil {
		return nil, fmt.Errorf("read the driver's answer: %w", err)
	}
	return volumes, nil
}

// Refresh asks for a refresh of the volumes that a name selects, or of all if the name
// is empty, and reports each outcome as soon as it is known.
func (c Client) Refresh(ctx context.Context, name string, report func(Result)) error {
	body, err := c.send(ctx, http.MethodPost, refreshPath+"?"+url.Values{"name": {name}}.Encode())
	if err != nil {
		return err
	}
	defer body.Close()
	for decoder := json.NewDecoder(body); ; {
		var result Result
		err := decoder.Decode(&result)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read the driver's answer: %w", err)
		}
		report(result)
	}
}

func (c Client) send(ctx context.Context, method, path string) (io.ReadCloser, error) {
	var dialer net.Dialer
	client := http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return dialer.DialContext(ctx, "unix", c.Socket)
		},
	}}
	request, err := http.NewRequestWithContext(ctx, method, "http://driver"+path, nil)
	if err != nil {
		return nil, fmt.Errorf("ask the driver: %w", err)
	}
	response, err := client.Do(request)
	if err != nil {
		return nil, fmt.Errorf("%w: %w; check that the driver runs here and that --socket names its socket", ErrNoDriver, err)
	}
	if response.StatusCode == http.StatusOK {
		return response.Body, nil
	}
	defer response.Body.Close()
	const maxMessage = 4 << 10
	message, err := io.ReadAll(io.LimitReader(response.Body, maxMessage))
	if err != nil || response.StatusCode != http.StatusNotFound {
		return nil, fmt.Errorf("%w: it answers %s: %s", ErrNoDriver, response.Status, message)
	}
	return nil, errors.New(strings.TrimSpace(string(message)))
}
