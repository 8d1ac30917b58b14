package template

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"math/big"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/vault/api"
)

func thePod() Pod {
	return Pod{
		Environment: map[string]string{"NAMESPACE": "shop", "POD_NAME": "web-1", "HOST_IP": "192.0.2.7"},
		SecretKeys:  map[string]string{"ca.crt": "the CA", "app.conf": "a setting"},
		ClusterCA:   "the cluster's",
	}
}

func TestOverriddenFunctions(t *testing.T) {
	t.Parallel()
	tests := map[string]struct{ text, want string }{
		"variables":                  {`{{ env "NAMESPACE" }}/{{ mustEnv "POD_NAME" }}@{{ envOrDefault "HOST_IP" "x" }}`, "shop/web-1@192.0.2.7"},
		"variable, piped":            {`{{ "NAMESPACE" | env }}{{ "x" | envOrDefault "POD_NAME" }}`, "shopweb-1"},
		"variable, computed":         {`{{ env (printf "%s_IP" "HOST") }}`, "192.0.2.7"},
		"namespace of the account":   {`{{ file "/var/run/secrets/kubernetes.io/serviceaccount/namespace" }}`, "shop"},
		"CA of the cluster":          {`{{ file "/var/run/secrets/kubernetes.io/serviceaccount/ca.crt" }}`, "the cluster's"},
		"keys of the Secret":         {`{{ file "/vault/tls/ca.crt" }}, {{ file "/vault/custom/app.conf" }}`, "the CA, a setting"},
		"no file":                    {`{{ file "" }}`, ""},
		"loop":                       {`{{ range loop 3 }}{{ . }}{{ end }};{{ range $i, $n := loop 5 8 }}{{ $i }}{{ $n }},{{ end }}`, "012;05,16,27,"},
		"loop, as a string":          {`{{ range loop "2" }}{{ . }}{{ end }}{{ range loop "" }}{{ . }}{{ end }}`, "01"},
		"loop, backwards":            {`{{ range loop 3 1 }}{{ . }}{{ else }}none{{ end }}`, "none"},
		"loop that are broken":       {`{{ range loop 1000 }}{{ if eq . 3 }}{{ break }}{{ end }}{{ . }}{{ end }}`, "012"},
		"a loop is always true":      {`{{ if loop 0 }}yes{{ end }}`, "yes"},
		"secret with its path piped": {`{{ with "old/app" | secret }}x{{ else }}not read{{ end }}{{ secrets "" }}`, "not read[]"},
		"empty response":             {`{{ with secret "empty" "a=b" }}x{{ else }}nothing{{ end }}`, "nothing"},
	}
	given := someValues()
	given[NewWrite("empty", map[string]string{"a": "b"})] = Value{}
	given[Dependency{Verb: Read, Path: "old/app"}] = Value{}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got, err := Execute(Template{Name: "file", Text: test.text, Pod: thePod()}, given)
			if err != nil || string(got.Output) != test.want {
				t.Errorf("got %q, %v; want %q", got.Output, err, test.want)
			}
		})
	}
}

func TestPodThatIsNotKnownYet(t *testing.T) {
	t.Parallel()
	for _, text := range []string{`{{ env "HOST_IP" }}`, `{{ file "/vault/tls/x" }}`, `{{ "x" | writeToFile "/vault/secrets/a" "" "" "0600" }}`} {
		if err := Check(Template{Text: text}); err != nil {
			t.Errorf("%s is rejected without a pod: %v", text, err)
		}
	}
	got, err := Execute(Template{Text: `{{ envOrDefault "HOST_IP" "none" }}`}, nil)
	if err != nil || string(got.Output) != "none" {
		t.Errorf("got %q, %v", got.Output, err)
	}
	if _, err := Execute(Template{Text: `{{ file "/vault/tls/x" }}`, Pod: thePod()}, nil); !errors.Is(err, ErrData) || !strings.Contains(err.Error(), `its keys are ["app.conf" "ca.crt"]`) {
		t.Errorf("got %v", err)
	}
}

func TestWriteToFile(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		text string
		want []WrittenFile
	}{
		"absolute":    {`{{ "x" | writeToFile "/vault/secrets/a/b" "" "" "0644" }}`, []WrittenFile{{"a/b", []byte("x"), -1, -1, 0o644}}},
		"relative":    {`{{ "x" | writeToFile "a" "" "" "600" }}`, []WrittenFile{{"a", []byte("x"), -1, -1, 0o600}}},
		"owners":      {`{{ "x" | writeToFile "a" "vault" "vault" "0644" }}{{ "y" | writeToFile "b" "root" "2000" "0640" }}`, []WrittenFile{{"a", []byte("x"), 100, 1000, 0o644}, {"b", []byte("y"), 0, 2000, 0o640}}},
		"set-id bits": {`{{ "x" | writeToFile "a" "" "" "4755" }}`, []WrittenFile{{"a", []byte("x"), -1, -1, 0o755}}},
		"append":      {`{{ "x" | writeToFile "a" "" "" "0644" "append,newline" }}{{ "y" | writeToFile "/vault/secrets/a" "1" "" "0600" "append" }}`, []WrittenFile{{"a", []byte("x\ny"), 1, -1, 0o600}}},
		"again":       {`{{ "x" | writeToFile "a" "1" "2" "0644" }}{{ "y" | writeToFile "a" "" "" "0600" }}`, []WrittenFile{{"a", []byte("y"), 1, 2, 0o600}}},
		"to no end":   {`{{ "x" | writeToFile "./a/../b" "" "" "0644" "newline" }}`, []WrittenFile{{"b", []byte("x\n"), -1, -1, 0o644}}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got, err := Execute(Template{Name: "file", Text: test.text}, nil)
			if err != nil || len(got.Output) != 0 || !reflect.DeepEqual(got.Files, test.want) {
				t.Errorf("got %+v, %v; want %+v", got, err, test.want)
			}
		})
	}
}

func TestWriteToFileFollowsTheMount(t *testing.T) {
	t.Parallel()
	text := `{{ "x" | writeToFile "/etc/app/a" "" "" "0644" }}{{ "x" | writeToFile "b" "" "" "0644" }}`
	got, err := Execute(Template{Text: text, Pod: Pod{MountPath: "/etc/app"}}, nil)
	if err != nil || len(got.Files) != 2 || got.Files[0].Path != "a" || got.Files[1].Path != "b" {
		t.Errorf("got %+v, %v", got, err)
	}
	for _, path := range []string{"/etc/app", "/etc/app/", "/etc/app/a/", "/etc/apple", "/vault/secrets/a", ".", ""} {
		if err := Check(Template{Text: `{{ "x" | writeToFile "` + path + `" "" "" "0644" }}`, Pod: Pod{MountPath: "/etc/app"}}); !errors.Is(err, ErrInvalid) {
			t.Errorf("%q is accepted: %v", path, err)
		}
	}
}

// The example of Vault's documentation: one certificate, three files.
func TestPKICert(t *testing.T) {
	t.Parallel()
	ca, leaf, key := newPEM(t, true), newPEM(t, false), string(pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: []byte("k")}))
	text := `{{ with pkiCert "pki/issue/web" "common_name=a.example" }}{{ .Data.Cert }}` +
		`{{ .Key | writeToFile "/vault/secrets/key.pem" "vault" "vault" "0400" }}` +
		`{{ .CA | writeToFile "ca.pem" "" "" "0644" }}{{ .Cert | writeToFile "ca.pem" "" "" "0644" "append" }}` +
		`{{ len .CAChain }}{{ end }}`
	d := NewIssue("pki/issue/web", map[string]string{"common_name": "a.example"})
	first, err := Execute(Template{Text: text}, nil)
	if err != nil || len(first.Missing) != 1 || first.Missing[0] != d || d.Data()["common_name"] != "a.example" {
		t.Fatalf("got %+v, %v", first, err)
	}
	trim := strings.TrimSpace
	got, err := Execute(Template{Text: text}, Values{d: {Secret: &api.Secret{Data: map[string]any{
		"certificate": trim(leaf), "private_key": trim(key), "issuing_ca": trim(ca), "ca_chain": []any{trim(ca)}, "private_key_type": "ec",
	}}}})
	if err != nil {
		t.Fatal(err)
	}
	want := []WrittenFile{{"key.pem", []byte(key), 100, 1000, 0o400}, {"ca.pem", []byte(ca + leaf), -1, -1, 0o644}}
	if string(got.Output) != leaf+"1" || !reflect.DeepEqual(got.Files, want) {
		t.Errorf("got %q, %+v", got.Output, got.Files)
	}
}

func newPEM(t *testing.T, isCA bool) string {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), IsCA: isCA, BasicConstraintsValid: true}
	certificate, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: certificate}))
}

// If Check misses a call, consul-template's own function is not there either.
func TestDeniedFunctionsAreOverridden(t *testing.T) {
	t.Parallel()
	own := (&execution{}).overrides()
	for _, name := range slices.Concat(deniedFunctions(), overriddenFunctions()) {
		if own[name] == nil {
			t.Errorf("%s is consul-template's", name)
		}
	}
	if _, err := own["plugin"].(func(...any) (any, error))("id"); err == nil {
		t.Error("plugin can be called")
	}
}
