package provider

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"
)

// An outage that outlasts the leases: the last files stay, and once Vault is back
// new credentials come within the longest wait.
func TestOutageLeavesTheFilesAndPasses(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.vault.change(func() { b.vault.leaseMax = 24 * time.Hour })
	b.open(b.request("v", databaseTemplate, staticTemplate))
	before := b.files.content("v")
	b.pass(30*time.Second, func() {})
	b.vault.change(func() { b.vault.down = true })
	b.pass(10*time.Minute, func() {})
	if got := b.files.content("v"); got != before {
		t.Errorf("in the outage, the files changed to %q", got)
	}
	if status := b.Volumes()[0]; !errors.Is(status.Err, ErrUnavailable) || status.Next.IsZero() {
		t.Errorf("the status is %+v", status)
	}
	b.vault.change(func() { b.vault.down = false })
	b.pass(time.Minute, func() {})
	username, _, _ := strings.Cut(b.files.content("v"), "|")
	if !b.vault.opens(username) {
		t.Error("a minute after the outage, the credentials are dead")
	}
	b.requireCount("database/creds/app", 2)
	if status := b.Volumes()[0]; status.Err != nil {
		t.Errorf("the volume's error is %v", status.Err)
	}
	if got := strings.Count(b.logs.String(), "Volume refreshed again"); got != 1 {
		t.Errorf("the recovery is logged %d times", got)
	}
}

// One secret that is gone must not stop the rotation of the others.
func TestMissingSecretDoesNotStopCredentials(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.open(b.request("v", databaseTemplate, staticTemplate))
	b.vault.change(func() { b.vault.static = "" })
	b.pass(20*time.Minute, func() {
		username, static, _ := strings.Cut(b.files.content("v"), "|")
		if !b.vault.opens(username) || static != "first" {
			t.Fatalf("after %s the file holds %q %q", b.time.Now().Sub(start), username, static)
		}
	})
	if err := b.Volumes()[0].Err; !errors.Is(err, ErrNotFound) {
		t.Errorf("the volume's error is %v", err)
	}
}

// A static secret that no longer fits its template keeps its old value, and new
// credentials are written all the same.
func TestTemplateThatNoLongerFits(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.vault.change(func() { b.vault.static = "x:first" })
	b.open(b.request("v", databaseTemplate, `{{ with secret "kv/static" }}{{ index (.Data.value | split ":") 1 }}{{ end }}`))
	b.vault.change(func() { b.vault.static = "nothing" })
	b.pass(20*time.Minute, func() {
		username, static, _ := strings.Cut(b.files.content("v"), "|")
		if !b.vault.opens(username) || static != "first" {
			t.Fatalf("after %s the file holds %q %q", b.time.Now().Sub(start), username, static)
		}
	})
	if err := b.Volumes()[0].Err; !errors.Is(err, ErrData) {
		t.Errorf("the volume's error is %v", err)
	}
	b.vault.change(func() { b.vault.static = "x:second" })
	b.pass(longestBackoff*5/4, func() {})
	if _, static, _ := strings.Cut(b.files.content("v"), "|"); static != "second" {
		t.Errorf("mended, the file holds %q", static)
	}
}

// Content that could not be written is written later, without asking Vault again.
func TestFullVolumeIsWrittenLater(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.open(b.request("v", staticTemplate))
	b.files.fail(errors.New("the files do not fit into the volume"))
	b.vault.change(func() { b.vault.static = "second" })
	b.pass(5*time.Minute, func() {})
	b.requireContent("v", "first")
	b.requireCount("kv/static", 2)
	b.end()
	b.files.fail(nil) // before the next process looks, which is at once
	b.begin()         // and it is not forgotten
	b.pass(10*time.Second, func() {})
	b.requireContent("v", "second")
	b.requireCount("kv/static", 2)
}

// A rotation that is due before the driver has mounted what Open returned is
// written when it has, and is no failure.
func TestRotationBeforeTheMount(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.open(b.request("v", staticTemplate))
	b.files.fail(ErrClosed)
	b.vault.change(func() { b.vault.static = "second" })
	b.pass(5*time.Minute, func() {})
	b.requireContent("v", "first")
	b.files.fail(nil)
	b.pass(time.Second, func() {})
	b.requireContent("v", "second")
	if strings.Contains(b.logs.String(), "not refreshed") {
		t.Error("it is reported as a failure")
	}
}

// Another program answers in Vault's place, with JSON that Vault's client takes for a
// secret of any path.
func TestFilesOutlastTheAnswersOfAnotherProgram(t *testing.T) {
	t.Parallel()
	for name, restarted := range map[string]bool{"the mount is known": false, "the driver is another": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBench(t)
			b.vault.change(func() { b.vault.instead = upgradedKV(false) })
			b.open(b.request("v", shownKV))
			b.vault.change(func() {
				b.vault.instead = func(w http.ResponseWriter, _ *http.Request) bool {
					_, _ = w.Write([]byte(`{"status":"ok"}`)) // the client is gone
					return true
				}
			})
			if restarted {
				b.end()
				b.begin()
			}
			b.pass(20*time.Minute, func() { b.requireContent("v", ofVersion2) })
			if err := b.Volumes()[0].Err; !errors.Is(err, ErrUnavailable) {
				t.Errorf("the volume's error is %v", err)
			}
		})
	}
}

// All files of a volume are in memory before the driver writes them, so their sum is
// bounded while they are made: when a pod starts, with and without secrets, and at a
// refresh, also of a later process.
func TestFilesOverTheSizeOfTheVolume(t *testing.T) {
	t.Parallel()
	static := `{{ "12345" }}` // without secrets
	written := staticTemplate + `{{ "123" | writeToFile "w" "" "" "0644" }}`
	for _, test := range []struct {
		name      string
		templates []string
		most      int64 // with the content "first"
	}{
		{"plain", []string{staticTemplate, staticTemplate}, 10},
		{"without secrets", []string{static, static}, 10},
		{"with a written file", []string{written, staticTemplate}, 13},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			b := newBench(t)
			fits := b.request("v", test.templates...)
			fits.Size = test.most
			b.open(fits)
			large := b.request("w", append(test.templates, static, static, static)...)
			large.Size = test.most - 1
			counted := &countedRenderer{}
			b.Provider.renderer = counted
			_, err := b.Open(t.Context(), large)
			if !errors.Is(err, ErrFull) || !strings.Contains(err.Error(), fmt.Sprintf("the size is %d; raise the attribute size", large.Size)) {
				t.Errorf("got %v", err)
			}
			// Once each to find out what they ask, and again with that; none after the one too
			// many.
			if got := counted.runs.Load(); got > 2*2+3 {
				t.Errorf("%d templates ran", got)
			}
		})
	}
	b := newBench(t)
	fits := b.request("v", staticTemplate)
	fits.Size = 5
	b.open(fits)
	b.vault.change(func() { b.vault.static = "second" })
	b.end()
	b.begin()
	b.pass(5*time.Minute, func() {})
	b.requireContent("v", "first")
	if err := b.Volumes()[0].Err; !errors.Is(err, ErrFull) {
		t.Errorf("the volume's error is %v", err)
	}
}
