package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spf13/pflag"

	"github.com/vaultmount/vaultmount/driver/injector"
)

const (
	askingPod = `kind: Pod
metadata:
  name: app
  annotations: {vault.hashicorp.com/agent-inject: "true", vault.hashicorp.com/role: app, vault.hashicorp.com/agent-inject-secret-db: kv/db}
spec: {containers: [{name: app}]}
`
	service = "kind: Service\n"
)

var refusedPod = strings.Replace(askingPod, "secret-db: kv/db", `secret-db: kv/db, vault.hashicorp.com/agent-inject-command-db: "kill 1"`, 1)

func runTranslate(t *testing.T, input string, arguments ...string) (stdout, stderr string, err error) {
	t.Helper()
	var out, problems bytes.Buffer
	command := newCommand()
	command.SetArgs(append([]string{"translate"}, arguments...))
	command.SetIn(strings.NewReader(input))
	command.SetOut(&out)
	command.SetErr(&problems)
	err = command.ExecuteContext(t.Context())
	return out.String(), problems.String(), err
}

func TestTranslateStandardInput(t *testing.T) {
	stdout, stderr, err := runTranslate(t, askingPod, "-f", "-")
	if err != nil || stderr != "" || !strings.Contains(stdout, "driver: csi.vaultmount.dev") {
		t.Errorf("got %v, %q, %s", err, stderr, stdout)
	}
}

// A volume that somebody has written by hand is checked as well.
func TestTranslateRefusesWritableVolumes(t *testing.T) {
	const pod = "kind: Pod\nmetadata: {name: app}\nspec: {volumes: [{name: secrets, csi: {driver: csi.example.com, READONLYvolumeAttributes: {role: app}}}]}\n"
	for readOnly, refused := range map[string]bool{"": true, "readOnly: false, ": true, "readOnly: true, ": false} {
		text := strings.Replace(pod, "READONLY", readOnly, 1)
		stdout, stderr, err := runTranslate(t, text, "-f", "-", "--driver-name", "csi.example.com")
		if stdout != text || refused != (err != nil) || refused != strings.Contains(stderr, `add "readOnly: true" beside "driver: csi.example.com"`) {
			t.Errorf("%q: got %v, %s, %s", readOnly, err, stderr, stdout)
		}
	}
}

func TestTranslateDirectory(t *testing.T) {
	directory := t.TempDir()
	for name, text := range map[string]string{"b.yml": askingPod, "a.yaml": service, "c.txt": "not: [read"} {
		if err := os.WriteFile(filepath.Join(directory, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	stdout, _, err := runTranslate(t, "", "-f", directory, "--driver-name", "csi.example.com")
	if err != nil || !strings.HasPrefix(stdout, service+"---\n") || !strings.Contains(stdout, "driver: csi.example.com") {
		t.Errorf("got %v, %s", err, stdout)
	}
}

func TestTranslateSeparatesFiles(t *testing.T) {
	tests := map[string]struct {
		files []string
		want  string
	}{
		"with a final newline":    {[]string{"kind: A\n", "kind: B\n"}, "kind: A\n---\nkind: B\n"},
		"without a final newline": {[]string{"kind: A", "kind: B"}, "kind: A\n---\nkind: B"},
		"of JSON":                 {[]string{`{"kind":"A"}`, `{"kind":"B"}`}, `{"kind":"A"}` + "\n---\n" + `{"kind":"B"}`},
		"that are empty":          {[]string{"kind: A", "", "kind: B"}, "kind: A\n---\n---\nkind: B"},
		"of which there is one":   {[]string{"kind: A"}, "kind: A"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			directory := t.TempDir()
			for i, text := range test.files {
				if err := os.WriteFile(filepath.Join(directory, fmt.Sprint(i, ".yaml")), []byte(text), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			stdout, _, err := runTranslate(t, "", "-f", directory)
			if err != nil || stdout != test.want {
				t.Errorf("got  %q, %v\nwant %q", stdout, err, test.want)
			}
		})
	}
}

func TestTranslateCheckPrintsNoManifest(t *testing.T) {
	stdout, stderr, err := runTranslate(t, refusedPod, "-f", "-", "--check")
	if exitStatus(err) != exitFailed || stdout != "" || !strings.Contains(stderr, "-: error: Pod/app: vault.hashicorp.com/agent-inject-command-db: ") {
		t.Errorf("got %v, %q, %q", err, stdout, stderr)
	}
	if stdout, _, err := runTranslate(t, askingPod, "-f", "-", "--check"); err != nil || stdout != "" {
		t.Errorf("a pod that can be translated: %v, %q", err, stdout)
	}
}

// A check reads all files, also after one that it cannot read.
func TestTranslateCheckReadsAllFiles(t *testing.T) {
	directory := t.TempDir()
	for name, text := range map[string]string{"a.yaml": "{{ .Values }}: [", "b.yaml": refusedPod} {
		if err := os.WriteFile(filepath.Join(directory, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	_, stderr, err := runTranslate(t, "", "-f", directory, "--check")
	if !strings.Contains(stderr, "a.yaml: translate document 1: read YAML: ") || !strings.Contains(stderr, "agent-inject-command-db: ") || exitStatus(err) != exitUsage {
		t.Errorf("got %v, %s", err, stderr)
	}
	if stdout, _, err := runTranslate(t, "", "-f", directory); stdout != "" || exitStatus(err) != exitUsage {
		t.Errorf("without --check: %v, %s", err, stdout)
	}
}

// The driver would refuse it when the pod starts.
func TestTranslateRefusesWhatIsForbidden(t *testing.T) {
	for flag, test := range map[string]struct{ pod, refusal string }{
		"--forbid-token-file": {
			strings.Replace(askingPod, "secret-db: kv/db", `token: "true"`, 1),
			"error: Pod/app: vault.hashicorp.com/agent-inject-token: is forbidden in this cluster",
		},
		"--forbid-tls-skip-verify": {
			strings.Replace(askingPod, "vault.hashicorp.com/role", `vault.hashicorp.com/tls-skip-verify: "true", vault.hashicorp.com/role`, 1),
			"error: Pod/app: vault.hashicorp.com/tls-skip-verify: is forbidden in this cluster",
		},
	} {
		t.Run(flag, func(t *testing.T) {
			if _, stderr, err := runTranslate(t, test.pod, "-f", "-", "--check"); err != nil || strings.Contains(stderr, "error") {
				t.Errorf("without it: %v, %q", err, stderr)
			}
			if _, stderr, err := runTranslate(t, test.pod, "-f", "-", "--check", flag); err == nil || !strings.Contains(stderr, test.refusal) {
				t.Errorf("with it: %v, %q", err, stderr)
			}
		})
	}
}

// In a cluster the driver refuses it, when the pod starts.
func TestTranslateRefusesBadTemplates(t *testing.T) {
	pod := strings.Replace(askingPod, "secret-db: kv/db", `template-db: "{{ if }}"`, 1)
	want := "error: Pod/app: vault.hashicorp.com/agent-inject-template-db: invalid template: line 1: missing value for if"
	if _, stderr, err := runTranslate(t, pod, "-f", "-"); err == nil || !strings.Contains(stderr, want) {
		t.Errorf("got %v, %q", err, stderr)
	}
}

func TestTranslateRefusesBadArguments(t *testing.T) {
	empty := t.TempDir()
	for want, arguments := range map[string][]string{
		"-f is missing":                         {},
		"holds no .yaml, .yml or .json file":    {"-f", empty},
		"no such file or directory":             {"-f", empty + "/nowhere"},
		`--fallback "ignore" is unknown`:        {"-f", "-", "--fallback=ignore"},
		"-: translate document 1: read YAML: y": {"-f", "-"},
	} {
		_, _, err := runTranslate(t, "kind: [\n", arguments...)
		if exitStatus(err) != exitUsage || !strings.Contains(err.Error(), want) {
			t.Errorf("%v: got %v, want %s", arguments, err, want)
		}
	}
}

// The driver, the webhook and the command are told alike whose the files are of pods
// that do not say.
func TestSecurityContextFlagChoosesTheOwner(t *testing.T) {
	const flag = "--agent-set-security-context=false"
	settings := map[string]func(t *testing.T, arguments ...string) injector.Translator{
		"driver": func(t *testing.T, arguments ...string) injector.Translator {
			var options driverOptions
			parse(t, options.addFlags, append(arguments, "--node-name=n", "--vault-address=https://vault:8200")...)
			config, err := options.config()
			if err != nil {
				t.Fatal(err)
			}
			return config.Annotations
		},
		"webhook": func(t *testing.T, arguments ...string) injector.Translator {
			var options webhookOptions
			parse(t, options.addFlags, arguments...)
			translator, err := options.translator()
			if err != nil {
				t.Fatal(err)
			}
			return translator
		},
	}
	for name, settings := range settings {
		t.Run(name, func(t *testing.T) {
			if settings(t).NoSecurityContext {
				t.Error("by default files are the pod's user's")
			}
			if !settings(t, flag).NoSecurityContext {
				t.Errorf("%s changes nothing", flag)
			}
		})
	}
	t.Run("translate", func(t *testing.T) {
		pod := strings.Replace(askingPod, "spec: {", "spec: {securityContext: {runAsUser: 5000}, ", 1)
		for want, arguments := range map[string][]string{`uid: "100"`: nil, `uid: "5000"`: {flag}} {
			if stdout, _, err := runTranslate(t, pod, append(arguments, "-f", "-")...); err != nil || !strings.Contains(stdout, want) {
				t.Errorf("%v: %v: %s is not in\n%s", arguments, err, want, stdout)
			}
		}
	})
}

func parse(t *testing.T, addFlags func(*pflag.FlagSet), arguments ...string) {
	t.Helper()
	flags := pflag.NewFlagSet("test", pflag.ContinueOnError)
	addFlags(flags)
	if err := flags.Parse(arguments); err != nil {
		t.Fatal(err)
	}
}
