package main

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/spf13/pflag"

	"github.com/vaultmount/vaultmount/driver/injector"
)

func TestWebhookRefusesBadFlags(t *testing.T) {
	t.Setenv("POD_NAMESPACE", "")
	t.Setenv("KUBERNETES_SERVICE_HOST", "")
	tests := map[string]struct {
		arguments []string
		want      string
	}{
		"fallback":         {[]string{"--fallback=ignore"}, `--fallback "ignore" is unknown; use one of ["reject" "leave-to-injector" "warn"]`},
		"template":         {[]string{"--default-template=yaml"}, `--default-template "yaml" is unknown; use one of ["map" "json"]`},
		"prefix":           {[]string{"--annotation-prefix=vault.hashicorp.com"}, `--annotation-prefix "vault.hashicorp.com" is not a prefix of annotations`},
		"prefix, no slash": {[]string{"--annotation-prefix=/"}, `--annotation-prefix "/" is not a prefix`},
		"driver":           {[]string{"--driver-name="}, "--driver-name is empty"},
		"address":          {[]string{"--vault-address=vault:8200"}, `--vault-address "vault:8200" is not a URL`},
		"auth path":        {[]string{"--auth-path=../kubernetes"}, "--auth-path: "},
		"one file":         {[]string{"--tls-cert-file=/tls.crt"}, "--tls-cert-file and --tls-key-file belong together"},
		"no files":         {[]string{"--tls-cert-file=/nowhere/tls.crt", "--tls-key-file=/nowhere/tls.key"}, "read the certificate: open /nowhere/tls.crt: no such file"},
		"no namespace":     {nil, "--namespace and $POD_NAMESPACE are empty"},
		"no secret":        {[]string{"--namespace=n", "--tls-secret="}, "--tls-secret is empty"},
		"no cluster":       {[]string{"--namespace=n"}, "find the API server, for the webhook's own certificate"},
		"argument":         {[]string{"now"}, `unknown command "now"`},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			command := newCommand()
			command.SetArgs(append([]string{"webhook"}, test.arguments...))
			err := command.ExecuteContext(t.Context())
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %v, want %s", err, test.want)
			}
		})
	}
}

func TestWebhookForbidsWhatTheDriverForbids(t *testing.T) {
	for flag, forbids := range map[string]func(injector.Translator) bool{
		"--forbid-token-file":      func(t injector.Translator) bool { return t.ForbidToken },
		"--forbid-tls-skip-verify": func(t injector.Translator) bool { return t.ForbidSkipVerify },
	} {
		for _, forbidden := range []bool{false, true} {
			var options webhookOptions
			parse(t, options.addFlags, fmt.Sprintf("%s=%v", flag, forbidden))
			if translator, err := options.translator(); err != nil || forbids(translator) != forbidden {
				t.Errorf("%s=%v: %v, %v", flag, forbidden, forbids(translator), err)
			}
		}
	}
}

func TestWebhookServesWithFiles(t *testing.T) {
	certFile, keyFile := writeCertificate(t)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	logs, writer := io.Pipe()
	command := newCommand()
	command.SetArgs([]string{"webhook", "--tls-cert-file=" + certFile, "--tls-key-file=" + keyFile, "--webhook-bind-address=127.0.0.1:0", "--metrics-bind-address=127.0.0.1:0"})
	command.SetErr(writer)
	ended := make(chan error, 1)
	go func() {
		ended <- command.ExecuteContext(ctx)
		writer.Close()
	}()
	scanner := bufio.NewScanner(logs)
	var health string
	for health == "" && scanner.Scan() {
		if found := regexp.MustCompile(`Serving health and metrics" address="(.*)"`).FindStringSubmatch(scanner.Text()); found != nil {
			health = found[1]
		}
	}
	go func() { _, _ = io.Copy(io.Discard, logs) }()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+health+"/readyz", nil)
	if err != nil {
		t.Fatal(err)
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	response.Body.Close()
	if response.StatusCode != http.StatusOK {
		t.Errorf("/readyz says %s", response.Status)
	}
	cancel()
	if err := <-ended; err != nil {
		t.Errorf("it ends with %v", err)
	}
}

func writeCertificate(t *testing.T) (certFile, keyFile string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	certificate, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	encoded, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	write := func(name, block string, der []byte) string {
		path := filepath.Join(t.TempDir(), name)
		if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: block, Bytes: der}), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	return write("tls.crt", "CERTIFICATE", certificate), write("tls.key", "PRIVATE KEY", encoded)
}

// The reference holds every flag, with its default.
func TestWebhookFlagsAreInTheReference(t *testing.T) {
	t.Setenv("POD_NAMESPACE", "")
	text, err := os.ReadFile("../../deploy/webhook/README.md")
	if err != nil {
		t.Fatal(err)
	}
	newWebhookCommand().Flags().VisitAll(func(flag *pflag.Flag) {
		for row := range strings.Lines(string(text)) {
			if strings.HasPrefix(row, "|") && strings.Contains(row, "`--"+flag.Name+"`") {
				if value := flag.DefValue; value != "false" && value != "[]" && !strings.Contains(row, value) {
					t.Errorf("the default of --%s is %s", flag.Name, value)
				}
				return
			}
		}
		t.Errorf("--%s is missing", flag.Name)
	})
}
