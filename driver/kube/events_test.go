package kube

import (
	"errors"
	"strings"
	"testing"

	"k8s.io/client-go/tools/record"

	"github.com/vaultmount/vaultmount/provider/limits"
)

// What a pod tells of a volume is true of each cause.
func TestRefreshedTellsOfChanges(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		now  error
		want string
	}{
		"it fails":          {errors.New("HTTP status 403: permission denied"), `Warning SecretsNotRefreshed volume "secrets": the files stay as they are: HTTP status 403: permission denied`},
		"it succeeds again": {nil, `Normal SecretsRefreshed volume "secrets": refreshed again; the files are up to date`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			recorder, counted := record.NewFakeRecorder(2), 0
			events := Events{recorder: recorder, count: func(string) { counted++ }}
			events.Refreshed(Volume{Namespace: "default", Pod: "app", Name: "secrets"}, test.now)
			close(recorder.Events)
			var told []string
			for event := range recorder.Events {
				told = append(told, event)
			}
			if strings.Join(told, "\n") != test.want || counted != 1 {
				t.Errorf("it tells %q and counts %d, want %q", told, counted, test.want)
			}
		})
	}
}

// An Event keeps the volume, the cause and the remedy of an error of any length.
func TestEventIsBounded(t *testing.T) {
	t.Parallel()
	recorder := record.NewFakeRecorder(1)
	events := Events{recorder: recorder, count: func(string) {}}
	events.Refreshed(Volume{Name: "secrets"}, errors.New("read "+strings.Repeat("p", 1<<20)+": permission denied; grant read on it"))
	got := strings.TrimPrefix(<-recorder.Events, "Warning SecretsNotRefreshed ")
	if len(got) > limits.ErrorBytes.Max() || !strings.HasPrefix(got, `volume "secrets": the files stay`) || !strings.HasSuffix(got, "p: permission denied; grant read on it") {
		t.Errorf("%d bytes: %s", len(got), got)
	}
}
