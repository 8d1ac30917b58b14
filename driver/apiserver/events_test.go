package apiserver

import (
	"errors"
	"strings"
	"testing"
	"unicode/utf8"

	"k8s.io/client-go/tools/record"
)

// What a pod tells of a volume is true of each cause: an Event for the beginning and
// one for the end, and none while it lasts.
func TestRefreshedTellsOfChanges(t *testing.T) {
	t.Parallel()
	const over = `Normal SecretsRefreshed volume "secrets": refreshed again; the files are up to date`
	denied, full := errors.New("HTTP status 403: permission denied"), errors.New("the files do not fit into the volume")
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
		{"one cause follows another", denied, full, ""},
		{"the volume has room again", full, nil, over},
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

func TestShorten(t *testing.T) {
	t.Parallel()
	for name, text := range map[string]string{
		"short":      "all is well",
		"as long":    strings.Repeat("x", longest),
		"too long":   strings.Repeat("x", longest+1),
		"characters": strings.Repeat("é", longest),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got := shorten(text)
			if len(got) > longest || !utf8.ValidString(got) || len(text) <= longest && got != text || len(got) < min(len(text), longest-4) {
				t.Errorf("got %d bytes of %d", len(got), len(text))
			}
		})
	}
}
