package compatibility

import (
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"regexp"
	"time"
)

// describePEM replaces the blocks of PEM in a text by what they are. All around
// them stays, line ends included.
func describePEM(text string) string {
	block := regexp.MustCompile(`(?s)-----BEGIN .*?-----END [A-Z ]+-----`)
	return block.ReplaceAllStringFunc(text, func(encoded string) string {
		decoded, _ := pem.Decode([]byte(encoded))
		if decoded == nil {
			return "(broken PEM)"
		}
		if decoded.Type != "CERTIFICATE" {
			return "(" + decoded.Type + ")"
		}
		certificate, err := x509.ParseCertificate(decoded.Bytes)
		if err != nil {
			return "(broken certificate)"
		}
		life := certificate.NotAfter.Sub(certificate.NotBefore).Round(time.Hour)
		return fmt.Sprintf("(certificate of %s %s by %s for %s, CA %t)", certificate.Subject.CommonName, certificate.DNSNames, certificate.Issuer.CommonName, life, certificate.IsCA)
	})
}
