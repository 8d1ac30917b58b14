package provider

import (
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"
)

// shownKV shows what a path holds, and renders without a failure if that is nothing.
const shownKV = `{{ with secret "kv/static" }}{{ range $key, $value := .Data }}{{ $key }} {{ end }}{{ end }}`

const (
	ofVersion1 = "value "         // what shownKV shows before the mount is upgraded
	ofVersion2 = "data metadata " // and after
)

// upgradedKV answers as the mount kv/ does when it is of KV version 2: at the bare
// path there is nothing but a warning.
func upgradedKV(denied bool) func(http.ResponseWriter, *http.Request) bool {
	return func(w http.ResponseWriter, r *http.Request) bool {
		switch path := strings.TrimPrefix(r.URL.Path, "/v1/"); {
		case strings.HasPrefix(path, "sys/internal/ui/mounts/"):
			respond(w, map[string]any{"data": map[string]any{"path": "kv/", "type": "kv", "options": map[string]any{"version": "2"}}})
		case path == "kv/data/static" && denied:
			respondErrors(w, http.StatusForbidden, "permission denied")
		case path == "kv/data/static":
			respond(w, map[string]any{"data": map[string]any{
				"data": map[string]any{"value": "first"}, "metadata": map[string]any{"version": 1},
			}})
		case strings.HasPrefix(path, "kv/"):
			w.WriteHeader(http.StatusNotFound)
			respond(w, map[string]any{"data": nil, "warnings": []string{"Invalid path for a versioned K/V secrets engine."}})
		default:
			return false
		}
		return true
	}
}

// A mount of KV version 1 is upgraded in place. The files show it as it is now, or
// keep what they hold, and never nothing.
func TestFilesOutlastTheUpgradeOfAMount(t *testing.T) {
	t.Parallel()
	for name, start := range map[string]func(*testing.T) *bench{"read by the pod alone": newBench, "read for its service account": newSharingBench} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := start(t)
			request := b.replica(0, shownKV)
			v := request.VolumeID
			b.open(request)
			b.requireContent(v, ofVersion1)

			b.vault.change(func() { b.vault.instead = upgradedKV(true) }) // the policy is for the bare path
			b.pass(20*time.Minute, func() { b.requireContent(v, ofVersion1) })
			if err := b.Volumes()[0].Err; !errors.Is(err, ErrRefused) || !strings.Contains(err.Error(), "read kv/data/static") {
				t.Errorf("the volume's error is %v", err)
			}

			b.vault.change(func() { b.vault.instead = upgradedKV(false) })
			b.pass(longestBackoff*5/4, func() {})
			b.requireContent(v, ofVersion2)
			if err := b.Volumes()[0].Err; err != nil {
				t.Errorf("the volume's error is %v", err)
			}
		})
	}
}

// Whoever may read the new place sees the secret there at the next refresh.
func TestUpgradeOfAMountIsSeenAtTheNextRefresh(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.open(b.request("v", shownKV))
	b.vault.change(func() { b.vault.instead = upgradedKV(false) })
	b.pass(DefaultInterval, func() {
		if got := b.files.content("v"); got != ofVersion1 && got != ofVersion2 {
			t.Errorf("the file holds %q", got)
		}
	})
	b.requireContent("v", ofVersion2)
	if strings.Contains(b.logs.String(), "not refreshed") {
		t.Error("it is reported as a failure")
	}
}

// A new process does not know the mount. While Vault does not tell it, the path is
// not taken for one of KV version 1, where there is nothing.
func TestFilesOutlastAProbeThatFails(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.vault.change(func() { b.vault.instead = upgradedKV(false) })
	b.open(b.request("v", shownKV))
	b.requireContent("v", ofVersion2)
	b.end()
	b.vault.change(func() {
		b.vault.instead = func(w http.ResponseWriter, r *http.Request) bool {
			if strings.HasPrefix(r.URL.Path, "/v1/sys/internal/ui/mounts/") {
				respondErrors(w, http.StatusInternalServerError, "internal error")
				return true
			}
			return upgradedKV(false)(w, r)
		}
	})
	b.begin()
	b.pass(20*time.Minute, func() { b.requireContent("v", ofVersion2) })
	if err := b.Volumes()[0].Err; !errors.Is(err, ErrUnavailable) {
		t.Errorf("the volume's error is %v", err)
	}
	if _, err := b.Open(t.Context(), b.request("other", shownKV)); !errors.Is(err, ErrUnavailable) {
		t.Errorf("another volume opens with %v", err)
	}
	b.vault.change(func() { b.vault.instead = upgradedKV(false) })
	b.pass(time.Minute, func() { b.requireContent("v", ofVersion2) })
	if err := b.Volumes()[0].Err; err != nil {
		t.Errorf("the volume's error is %v", err)
	}
}
