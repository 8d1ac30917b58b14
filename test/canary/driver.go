package canary

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// Driver is a running driver, and where to look at it.
type Driver struct {
	Program string // file of the program, asked for its volumes
	PID     int
	Log     string // at the highest verbosity, so far
	Health  string // URL of its health and metrics
	Socket  string // that it tells of volumes at
	Root    string // the kubelet's
	// Secret are directories below Root in memory, where secrets belong.
	Secret []string
}

// RequireNoneOf looks at all that a driver shows of itself: its log, its metrics
// and health, what it tells of volumes, the files that are on disk, and whether its
// memory may become one. It returns how many texts and files it read.
func (c Canaries) RequireNoneOf(t testing.TB, driver Driver) (looked int) {
	t.Helper()
	texts := map[string]string{"log of the driver": driver.Log}
	for _, path := range []string{"/metrics", "/healthz", "/readyz"} {
		texts[path] = get(t, http.DefaultClient, driver.Health+path)
	}
	onSocket := &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", driver.Socket)
	}}}
	defer onSocket.CloseIdleConnections()
	texts["status socket"] = get(t, onSocket, "http://driver/volumes")
	for _, arguments := range [][]string{{}, {"--output=json"}} {
		command := exec.CommandContext(t.Context(), driver.Program, append([]string{"volumes", "--socket=" + driver.Socket}, arguments...)...)
		printed, err := command.CombinedOutput()
		if err != nil {
			t.Errorf("ask for volumes: %v: %s", err, printed)
		}
		texts[strings.Join(append([]string{"output of volumes"}, arguments...), " ")] = string(printed)
	}
	for where, text := range texts {
		c.RequireNone(t, where, text)
	}
	requireNoDumps(t, driver.PID)
	return len(texts) + c.RequireNoneBelow(t, driver.Root, driver.Secret...)
}

func get(t testing.TB, client *http.Client, url string) string {
	t.Helper()
	response, err := client.Get(url)
	if err != nil {
		t.Error(err)
		return ""
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil || response.StatusCode == http.StatusNotFound {
		t.Errorf("%s: %s, %v", url, response.Status, err)
	}
	return string(text)
}

// noCore is a line of /proc/PID/limits. Whether memory may be dumped into a pipe
// (PR_SET_DUMPABLE) the kernel tells no other process.
var noCore = regexp.MustCompile(`Max core file size\s+0\s+0\s`)

// requireNoDumps fails the test if a driver or one of its render workers may leave
// a core file.
func requireNoDumps(t testing.TB, pid int) {
	t.Helper()
	processes := append(children(t, pid), fmt.Sprint(pid))
	if len(processes) < 2 {
		t.Error("the driver has no render worker")
	}
	for _, process := range processes {
		limits, err := os.ReadFile("/proc/" + process + "/limits")
		if err != nil {
			t.Error(err)
			continue
		}
		if !noCore.Match(limits) {
			t.Errorf("process %s may dump core:\n%s", process, limits)
		}
	}
}

func children(t testing.TB, pid int) []string {
	t.Helper()
	lists, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	require.NoError(t, err)
	var all []string
	for _, list := range lists {
		// A thread may have ended.
		if content, err := os.ReadFile(list); err == nil {
			all = append(all, strings.Fields(string(content))...)
		}
	}
	return all
}
