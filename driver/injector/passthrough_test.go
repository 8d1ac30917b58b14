package injector

import (
	"maps"
	"path"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/vaultmount/vaultmount/provider/cost"
)

// Whoever sees the pod and whoever sees the volume alone come to the same spec.
func TestPassthroughVolumesAreThoseOfThePod(t *testing.T) {
	t.Parallel()
	compared := 0
	for _, directory := range goldenDirectories(t) {
		c := readCase(t, directory)
		c.translator.Fallback = FallbackReject
		for _, want := range c.translator.Translate(c.pod, c.namespace).Volumes {
			compared++
			name := filepath.Base(directory) + " " + want.MountPath
			got, _, err := c.translator.TranslateVolume(passthrough(c.translator, c.pod, want.MountPath), c.namespace)
			if err != nil || !reflect.DeepEqual(withoutSources(got), withoutSources(want)) {
				t.Errorf("%s: %v\ngot  %+v\nwant %+v", name, err, got, want)
			}
		}
	}
	if compared < 60 {
		t.Errorf("only %d volumes were compared", compared)
	}
}

// passthrough is the attributes that a pod's annotations become: all but those that
// change the pod itself, and what else the translation has to know.
func passthrough(t Translator, pod PodInfo, mountPath string) map[string]string {
	attributes := map[string]string{keyMountPath: mountPath}
	for key, value := range pod.Metadata.Annotations {
		name, ours := strings.CutPrefix(key, t.withDefaults().Prefix)
		if ours && !slices.Contains([]string{nameContainers, nameShareProcesses, nameStatus}, name) {
			attributes[key] = value
		}
	}
	setID := func(key string, id *int64) {
		if id != nil {
			attributes[key] = strconv.FormatInt(*id, 10)
		}
	}
	if context := pod.Spec.SecurityContext; context != nil {
		setID(keyPodUser, context.RunAsUser)
		setID(keyPodGroup, context.RunAsGroup)
	}
	if containers := pod.Spec.Containers; len(containers) > 0 && containers[0].SecurityContext != nil {
		setID(keyContainerUser, containers[0].SecurityContext.RunAsUser)
		setID(keyContainerGroup, containers[0].SecurityContext.RunAsGroup)
	}
	maps.Copy(attributes, tokenAudiences(pod))
	return attributes
}

func tokenAudiences(pod PodInfo) map[string]string {
	attributes := map[string]string{}
	r := Translator{}.start(pod, "")
	r.index()
	for _, v := range pod.Spec.Volumes {
		token, err := r.tokenIn(v.Name)
		if err != nil {
			continue
		}
		key, mounted := keyTokenAudience+v.Name, false
		for _, c := range pod.Spec.Containers {
			for _, m := range c.VolumeMounts {
				if m.Name == v.Name {
					attributes[key+path.Join(m.MountPath, token.Path)] = token.Audience
					mounted = true
				}
			}
		}
		if !mounted {
			attributes[key] = token.Audience
		}
	}
	return attributes
}

func TestTranslateVolume(t *testing.T) {
	t.Parallel()
	const p = DefaultPrefix
	twoMounts := map[string]string{p + "role": "app", p + "agent-inject-secret-a": "kv/a", p + "agent-inject-secret-b": "kv/b", p + "secret-volume-path-b": "/b"}
	tests := map[string]struct {
		base, with map[string]string
		// wantPath or wantError
		wantPath, wantError string
	}{
		"minimal":                 {wantPath: "/vault/secrets"},
		"asks in its own words":   {with: map[string]string{p + "agent-inject": "1"}, wantPath: "/vault/secrets"},
		"marked":                  {with: map[string]string{p + "agent-inject-status": "injected"}, wantPath: "/vault/secrets"},
		"first mount path":        {base: twoMounts, with: map[string]string{"mount-path": "/vault/secrets/"}, wantPath: "/vault/secrets"},
		"second mount path":       {base: twoMounts, with: map[string]string{"mount-path": "/b"}, wantPath: "/b"},
		"no mount path":           {base: twoMounts, wantError: `volume attribute "mount-path": is missing: the annotations make a volume for each of ["/b" "/vault/secrets"]; name the one that this is`},
		"another mount path":      {with: map[string]string{"mount-path": "/else"}, wantError: `volume attribute "mount-path": the annotations make no volume at "/else", but at ["/vault/secrets"]`},
		"relative mount path":     {with: map[string]string{"mount-path": "else"}, wantError: `volume attribute "mount-path": "else" is not a directory in containers`},
		"not asking":              {with: map[string]string{p + "agent-inject": "false"}, wantError: `volume attribute "vault.hashicorp.com/agent-inject": is off, but it is in a volume`},
		"asking wrongly":          {with: map[string]string{p + "agent-inject": "yes"}, wantError: `volume attribute "vault.hashicorp.com/agent-inject": "yes" is not a boolean; write "true" or "false"`},
		"containers":              {with: map[string]string{p + "agent-inject-containers": "app"}, wantError: `volume attribute "vault.hashicorp.com/agent-inject-containers": is about the pod, not the volume`},
		"shared processes":        {with: map[string]string{p + "agent-share-process-namespace": "true"}, wantError: `volume attribute "vault.hashicorp.com/agent-share-process-namespace": is about the pod, not the volume`},
		"processes apart":         {with: map[string]string{p + "agent-share-process-namespace": "false"}, wantPath: "/vault/secrets"},
		"no file":                 {base: map[string]string{p + "role": "app"}, wantError: `volume attribute "vault.hashicorp.com/agent-inject": no annotation asks for a file`},
		"both vocabularies":       {with: map[string]string{"uid": "7", "role": "app", "secret/x": "kv/x"}, wantError: `volume attribute "role": does not go with the annotations beside it; remove it, or write the whole volume without annotations`},
		"one refusal of two":      {with: map[string]string{p + "agent-inject-command-a": "kill 1", p + "agent-configmap": "x"}, wantError: `volume attribute "vault.hashicorp.com/agent-configmap": is not supported; move its templates to agent-inject-template-FILE; rejected as well: vault.hashicorp.com/agent-inject-command-a`},
		"same user":               {with: map[string]string{p + "agent-run-as-same-user": "true", "container-run-as-user": "7"}, wantPath: "/vault/secrets"},
		"same user, not known":    {with: map[string]string{p + "agent-run-as-same-user": "true"}, wantError: "RunAsUser is nil for Container 0's SecurityContext"},
		"same user, root":         {with: map[string]string{p + "agent-run-as-same-user": "true", "container-run-as-user": "0"}, wantError: "container not allowed to run as root"},
		"user by name":            {with: map[string]string{"pod-run-as-user": "app"}, wantError: `volume attribute "pod-run-as-user": "app" is not a numeric ID`},
		"negative group":          {with: map[string]string{"pod-run-as-group": "-1"}, wantError: `volume attribute "pod-run-as-group": "-1" is not a numeric ID`},
		"token volume":            {with: map[string]string{p + "agent-service-account-token-volume-name": "token", "token-audience/token": "mars"}, wantPath: "/vault/secrets"},
		"token volume, not known": {with: map[string]string{p + "agent-service-account-token-volume-name": "token"}, wantError: `failed to find service account volume "token"`},
		"token path":              {with: map[string]string{p + "auth-config-token-path": "/var/token", "token-audience/token/var/token": "mars"}, wantPath: "/vault/secrets"},
		"token path, not known":   {with: map[string]string{p + "auth-config-token-path": "/var/token"}, wantError: "is not a projected service-account token that a container mounts"},
		"audience of nothing":     {with: map[string]string{"token-audience/": "mars"}, wantError: "is not of the form token-audience/VOLUME or token-audience/VOLUME/PATH"},
		"audience of no path":     {with: map[string]string{"token-audience/token/": "mars"}, wantError: "is not of the form"},
		"two audiences":           {with: map[string]string{"token-audience/token/a/token": "mars", "token-audience/token/b/token": "venus"}, wantError: `volume attribute "token-audience/token/b/token": differs from another token-audience/ of the volume "token"`},
		"long refusal":            {with: map[string]string{p + "agent-inject-template-a": `{{ plugin "x" }}`}, wantPath: "/vault/secrets"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			attributes := map[string]string{p + "role": "app", p + "agent-inject-secret-a": "kv/a"}
			if test.base != nil {
				attributes = maps.Clone(test.base)
			}
			maps.Copy(attributes, test.with)
			translator := Translator{Fallback: FallbackWarn}
			if !translator.IsPassthrough(attributes) {
				t.Error("is not taken for annotations")
			}
			got, _, err := translator.TranslateVolume(attributes, "default")
			if test.wantError != "" {
				if err == nil || !strings.Contains(err.Error(), test.wantError) {
					t.Errorf("got  %v\nwant %s", err, test.wantError)
				}
				return
			}
			if err != nil || got.MountPath != test.wantPath {
				t.Errorf("got %q, %v", got.MountPath, err)
			}
		})
	}
}

func TestPassthroughIsKnownByThePrefix(t *testing.T) {
	t.Parallel()
	openBao := Translator{Prefix: "openbao.openbao.org/"}
	attributes := map[string]string{DefaultPrefix + "role": "app"}
	if !(Translator{}).IsPassthrough(attributes) || openBao.IsPassthrough(attributes) {
		t.Error("the prefix does not decide")
	}
	if (Translator{}).IsPassthrough(map[string]string{"role": "app", "mount-path": "/x"}) {
		t.Error("a volume without annotations is taken for one with them")
	}
	got, _, err := openBao.TranslateVolume(map[string]string{"openbao.openbao.org/role": "app", "openbao.openbao.org/agent-inject-secret-a": "kv/a"}, "default")
	if err != nil || got.Spec.Auth.Role != "app" {
		t.Errorf("got %+v, %v", got, err)
	}
	if _, _, err := openBao.TranslateVolume(map[string]string{"openbao.openbao.org/role": "app", DefaultPrefix + "role": "app"}, "default"); err == nil {
		t.Error("annotations of another prefix are passed over")
	}
}

// Each attribute of the spec leads back to what the user wrote.
func TestSourcesNameAnnotations(t *testing.T) {
	t.Parallel()
	const p = DefaultPrefix
	got, _, err := Translator{}.TranslateVolume(map[string]string{
		p + "auth-config-role": "app", p + "service": "https://vault.example.com", p + "agent-inject-template-DB": "x", p + "agent-inject-perms-DB": "0600",
	}, "default")
	if err != nil {
		t.Fatal(err)
	}
	for key, want := range map[string]string{"role": "auth-config-role", "address": "service", "template/db": "agent-inject-template-DB", "perms/db": "agent-inject-perms-DB"} {
		if got.Sources[key] != p+want {
			t.Errorf("%s comes from %q", key, got.Sources[key])
		}
	}
}

// FuzzTranslateVolume looks for a panic and for an annotation that is dropped in
// silence among the attributes of a volume.
func FuzzTranslateVolume(f *testing.F) {
	parts := annotationsOf(f)
	for i, part := range parts {
		f.Add([]byte{byte(i + 1), byte((i + 1) >> 8)}, part, "{{ 1 }}", "mount-path", "/vault/secrets")
	}
	f.Add([]byte{}, "agent-run-as-same-user=true", "x", "container-run-as-user", "7")
	f.Add([]byte{}, "agent-set-security-context=false", "x", "mount-path", "/vault/secrets")
	f.Add([]byte{}, "auth-config-token-path=/a/b", "x", "token-audience/v/a/b", "mars")
	f.Fuzz(func(t *testing.T, picks []byte, text, template, key, value string) {
		attributes := fuzzPod(pick(parts, picks)+between+text, template).Metadata.Annotations
		if _, taken := attributes[key]; !taken {
			attributes[key] = value
		}
		size := 0
		for key, value := range attributes {
			size += len(key) + len(value)
		}
		var warnings []Diagnostic
		var err error
		cost.Assert(t, size, func() { _, warnings, err = Translator{}.TranslateVolume(attributes, "default") })
		if err != nil {
			return
		}
		pod, err := Translator{}.withDefaults().podInfo(attributes)
		if err != nil {
			t.Fatal(err)
		}
		for key := range attributes {
			name, ours := strings.CutPrefix(key, DefaultPrefix)
			isAbout := func(n Diagnostic) bool { return n.Annotation == key || strings.Contains(n.Text, name) }
			if !ours || name == nameInject || name == nameStatus || slices.ContainsFunc(warnings, isAbout) {
				continue
			}
			if isDropped(pod, Translator{}.Translate(pod, "default"), name) {
				t.Errorf("%s=%q has no effect, and nothing says so", name, attributes[key])
			}
		}
	})
}
