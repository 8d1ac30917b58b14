package component

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"testing"
	"time"

	clocktesting "k8s.io/utils/clock/testing"

	"github.com/vaultmount/vaultmount/test/rig"
)

// certificateTemplate writes one field of a certificate. Files that ask for the
// same certificate, to the letter, get the same one.
func certificateTemplate(field string) string {
	return fmt.Sprintf(`{{ with secret "pki/issue/app" "common_name=app.internal" "ttl=%s" }}{{ .Data.%s }}{{ end }}`, certificateTTL, field)
}

const certificateTTL = 30 * time.Second

func startPKI(t *testing.T, f *lastingFixture) {
	t.Helper()
	f.Write(t, "sys/mounts/pki", map[string]any{"type": "pki"})
	f.Write(t, "pki/root/generate/internal", map[string]any{"common_name": "test", "ttl": "24h", "key_type": "ec"})
	f.Write(t, "pki/roles/app", map[string]any{"allowed_domains": "app.internal", "allow_bare_domains": true, "key_type": "ec", "no_store": true})
	f.role(t, "pki", `path "pki/issue/app" { capabilities = ["update"] }`, nil)
}

// Certificate, key and CA are files of their own, and whoever reads them
// from one generation of the volume has a set that fits together and is valid.
func TestCertificateAndKeyAlwaysMatch(t *testing.T) {
	t.Parallel()
	tests := map[string]map[string]string{
		"a template for each": {
			"template/tls.crt": certificateTemplate("certificate"), "template/tls.key": certificateTemplate("private_key"),
			"template/ca.crt": certificateTemplate("issuing_ca"), "perms/tls.key": "0600",
		},
		"one template that splits": {"template/tls.crt": fmt.Sprintf(`{{ with pkiCert "pki/issue/app" "common_name=app.internal" "ttl=%s" }}{{ .Cert }}`+
			`{{ .Key | writeToFile "tls.key" "root" "root" "0600" }}{{ .CA | writeToFile "/vault/secrets/ca.crt" "root" "root" "0644" }}{{ end }}`, certificateTTL)},
	}
	for name, templates := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			requireCertificatesMatch(t, templates)
		})
	}
}

func requireCertificatesMatch(t *testing.T, templates map[string]string) {
	t.Helper()
	fixture := startLastingVault(t)
	startPKI(t, fixture)
	n := startNode(t, fixture.Server.Address, fixture.Vault)
	attributes := map[string]string{"role": "pki"}
	maps.Copy(attributes, templates)
	request := n.request(t, "app", attributes)
	n.mustPublish(t, request)
	begin, length := time.Now(), span(65*time.Second, 3*time.Minute)
	serials := map[string]bool{}
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	slowest := time.Duration(0)
	for last := begin; last.Sub(begin) < length; {
		<-tick.C
		now := time.Now()
		slowest, last = max(slowest, now.Sub(last)), now
		set, err := readCertificate(request.GetTargetPath())
		if err != nil {
			t.Fatalf("after %s: %v", now.Sub(begin).Round(time.Millisecond), err)
		}
		if now.After(set.NotAfter) && slowest < standstill {
			t.Fatalf("after %s the certificate has expired", now.Sub(begin).Round(time.Millisecond))
		}
		serials[set.SerialNumber.String()] = true
	}
	// A new one every 25 s, and one at the begin.
	want := 1 + int(length/certificateTTL)
	t.Logf("%d certificates in %s", len(serials), length)
	if len(serials) < want || len(serials) > want+want/2 {
		t.Errorf("saw %d certificates, want %d or a few more", len(serials), want)
	}
	if got := fixture.requests(t, "update", "pki/issue/app"); got != len(serials) {
		t.Errorf("Vault issued %d certificates, and the volume showed %d", got, len(serials))
	}
}

// readCertificate reads a set by its generation. One that is swapped away while it
// is read is read again, as programs do that watch for the swap.
func readCertificate(target string) (*x509.Certificate, error) {
	for {
		generation, err := os.Readlink(filepath.Join(target, "..data"))
		if err != nil {
			return nil, err
		}
		certificate, err := checkCertificate(filepath.Join(target, generation))
		if !errors.Is(err, fs.ErrNotExist) {
			return certificate, err
		}
	}
}

func checkCertificate(directory string) (*x509.Certificate, error) {
	files := map[string][]byte{}
	for _, name := range []string{"tls.crt", "tls.key", "ca.crt"} {
		content, err := os.ReadFile(filepath.Join(directory, name))
		if err != nil {
			return nil, err
		}
		files[name] = content
	}
	// It fails for a key that is another certificate's.
	pair, err := tls.X509KeyPair(files["tls.crt"], files["tls.key"])
	if err != nil {
		return nil, err
	}
	block, _ := pem.Decode(files["ca.crt"])
	if block == nil {
		return nil, errors.New("ca.crt is not in PEM form")
	}
	ca, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	roots.AddCert(ca)
	// Whether it has expired is another question.
	if _, err := pair.Leaf.Verify(x509.VerifyOptions{Roots: roots, DNSName: "app.internal", CurrentTime: pair.Leaf.NotBefore}); err != nil {
		return nil, err
	}
	return pair.Leaf, nil
}

// The node's clock is an hour off Vault's. A certificate says when it ends by
// Vault's; it is used for nine tenths of that, and neither replaced all the time
// nor after its end.
func TestCertificateWhereTheClockIsWrong(t *testing.T) {
	t.Parallel()
	fixture := startLastingVault(t)
	startPKI(t, fixture)
	for name, wrong := range map[string]time.Duration{"right": 0, "ahead": time.Hour, "behind": -time.Hour} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			clock := clocktesting.NewFakeClock(time.Now().Add(wrong))
			n := newNode(t, fixture.Server.Address, fixture.Vault)
			n.clock = clock
			n.start(t)
			request := n.request(t, "app", map[string]string{"role": "pki", "template/serial": `{{ with secret "pki/issue/app" "common_name=app.internal" "ttl=10m" }}{{ .Data.serial_number }}{{ end }}`})
			n.mustPublish(t, request)
			serials := map[string]bool{}
			for range 30 {
				serials[mustRead(t, rig.VolumeFile(request, "serial"))] = true
				n.pass(t, clock, time.Minute)
			}
			if len(serials) != 4 {
				t.Errorf("%d certificates of ten minutes each in half an hour, want 4", len(serials))
			}
		})
	}
}
