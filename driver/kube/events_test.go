package kube

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"k8s.io/client-go/tools/record"

	"github.com/vaultmount/vaultmount/provider"
	"github.com/vaultmount/vaultmount/provider/limits"
)

// What a pod tells of a volume is true of each cause: an Event for the beginning and
// one for the end, and none while it lasts.
func TestRefreshedTellsOfChanges(t *testing.T) {
	t.Parallel()
	const over = `Normal SecretsRefreshed volume "secrets": refreshed again; the files are up to date`
	denied, full := errors.New("HTTP status 403: permission denied"), errors.New("the files do not fit into the volume")
	missing := fmt.Errorf("read kv/a: %w", provider.ErrNotFound)
	tests := []struct {
		name        string
		before, now error
		want        string // none if empty
	}{
		{"all is well", nil, nil, ""},
		{"a policy is taken away", nil, denied, `Warning SecretsNotRefreshed volume "secrets": the files stay as they are: HTTP status 403: permission denied`},
		{"it is still away", denied, denied, ""},
		{"it is given back", denied, nil, over},
		{"a volume fills up", nil, full, `Warning SecretsNotRefreshed volume "secrets": the files stay as they are: the files do not fit into the volume`},
		{"another cause of the same kind follows", denied, full, ""},
		{"another kind of cause follows", denied, missing, `Warning SecretsNotRefreshed volume "secrets": the files stay as they are: read kv/a: no such secret`},
		{"the volume has space again", full, nil, over},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			recorder, counted := record.NewFakeRecorder(2), 0
			events := Events{recorder: recorder, count: func(string) { counted++ }, find: func(string) (Volume, bool) {
				return Volume{Namespace: "default", Pod: "app", Name: "secrets"}, true
			}}
			events.Refreshed("csi-1", test.before, test.now)
			close(recorder.Events)
			var told []string
			for event := range recorder.Events {
				told = append(told, event)
			}
			if strings.Join(told, "\n") != test.want || counted != len(told) {
				t.Errorf("it tells %q and counts %d, want %q", told, counted, test.want)
			}
		})
	}
}

// An Event keeps the volume, the cause and the remedy of an error of any length.
func TestEventIsBounded(t *testing.T) {
	t.Parallel()
	recorder := record.NewFakeRecorder(1)
	events := Events{recorder: recorder, count: func(string) {}, find: func(string) (Volume, bool) { return Volume{Name: "secrets"}, true }}
	events.Refreshed("csi-1", nil, errors.New("read "+strings.Repeat("p", 1<<20)+": permission denied; grant read on it"))
	got := strings.TrimPrefix(<-recorder.Events, "Warning SecretsNotRefreshed ")
	if len(got) > limits.ErrorBytes.Max() || !strings.HasPrefix(got, `volume "secrets": the files stay`) || !strings.HasSuffix(got, "p: permission denied; grant read on it") {
		t.Errorf("%d bytes: %s", len(got), got)
	}
}
