package bench

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"github.com/stretchr/testify/require"

	"github.com/vaultmount/vaultmount/test/parts"
	"github.com/vaultmount/vaultmount/test/rig"
)

// profiles repeat what missed its goal, with a build that shows where its time goes.
func profiles(b *testing.B, r *Report, vault *rig.Vault, size size) {
	work := map[string]func(*node) func(){}
	for _, goal := range Missed(r.Ratios) {
		switch goal.Ratio {
		case PublishOverFloor, AgentOverPublish, BurstOverFloor:
			work["publish"] = publishMany(b, size)
		case RepublishTime:
			work["republish"] = republishMany(b, size)
		case IdleShare:
			work["refresh"] = refreshMany(b, size)
		}
	}
	for _, title := range []string{"publish", "republish", "refresh"} {
		if prepare := work[title]; prepare != nil {
			r.Profiles = append(r.Profiles, Profile{Title: title, Top: profile(b, vault, prepare, size)})
		}
	}
}

func profile(b *testing.B, vault *rig.Vault, prepare func(*node) func(), size size) string {
	program := filepath.Join(b.TempDir(), "vaultmount")
	require.NoError(b, (parts.Driver{Tags: "profile"}).Build(b.Context(), program, os.Stderr))
	socket := filepath.Join(b.TempDir(), "profile")
	b.Setenv("VAULTMOUNT_PROFILE", socket)
	n := startNodeWith(b, vault, program, "--static-secret-render-interval=10s")
	result := filepath.Join(b.TempDir(), "cpu.pprof")
	if *keep != "" {
		result = filepath.Join(*keep, fmt.Sprintf("%d.pprof", time.Now().UnixNano()))
	}
	do := prepare(n)
	done := make(chan error, 1)
	go func() { done <- fetchProfile(b.Context(), socket, size.profile, result) }()
	do()
	require.NoError(b, <-done)
	n.end(b)
	text, err := exec.Command("go", "tool", "pprof", "-top", "-cum", "-nodecount=40", result).CombinedOutput()
	if err != nil {
		b.Fatalf("go tool pprof: %v\n%s", err, text)
	}
	// Where it was built and when says nothing.
	_, table, _ := strings.Cut(string(text), "Duration:")
	return "Duration:" + table
}

// fetchProfile writes what a process did for some time from now.
func fetchProfile(ctx context.Context, socket string, length time.Duration, path string) error {
	client := &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", socket)
	}}}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, fmt.Sprintf("http://driver/debug/pprof/profile?seconds=%d", int(length.Seconds())), nil)
	if err != nil {
		return err
	}
	response, err := client.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		return err
	}
	return os.WriteFile(path, text, 0o600)
}

// until repeats something for as long as a profile is made.
func until(length time.Duration, do func(i int)) func() {
	return func() {
		start := time.Now()
		for i := 0; time.Since(start) < length; i++ {
			do(i)
		}
	}
}

func publishMany(b *testing.B, size size) func(*node) func() {
	return func(n *node) func() {
		requests := n.requests(b, "profiled", 100, 1)
		return until(size.profile, func(i int) {
			if _, err := n.publish(b.Context(), requests[i%len(requests)], 1); err != nil {
				b.Fatal(err)
			}
			if _, err := n.Calls.NodeUnpublishVolume(b.Context(), rig.Unpublish(requests[i%len(requests)])); err != nil {
				b.Fatal(err)
			}
		})
	}
}

func republishMany(b *testing.B, size size) func(*node) func() {
	return func(n *node) func() {
		requests := filled(b, n, size)
		return until(size.profile, func(int) { n.republishTime(b, requests, len(requests)) })
	}
}

func refreshMany(b *testing.B, size size) func(*node) func() {
	return func(n *node) func() {
		filled(b, n, size)
		return until(size.profile, func(int) { time.Sleep(time.Second) }) // the refreshes come by themselves
	}
}

func filled(b *testing.B, n *node, size size) []*csi.NodePublishVolumeRequest {
	requests := n.requests(b, "profiled", size.idle, 1)
	inParallel(b, len(requests), 8, func(i int) error { _, err := n.publish(b.Context(), requests[i], 1); return err })
	return requests
}
