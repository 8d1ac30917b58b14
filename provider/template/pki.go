package template

import (
	"crypto/x509"
	"encoding/pem"
	"errors"
	"slices"
	"strings"

	"github.com/hashicorp/consul-template/dependency"
	"github.com/hashicorp/vault/api"
)

// pkiCert has a certificate issued. Consul-template reads the one it has back from
// the template's own file, which may hold anything by then; here the caller keeps
// the answer.
func (e *execution) pkiCert(arguments ...string) (any, error) {
	if len(arguments) == 0 {
		return nil, nil
	}
	path := trimPath(arguments[0])
	if path == "" {
		return nil, e.fail("pkiCert: the path is empty")
	}
	data, err := e.parsePairs("pkiCert", arguments[1:])
	if err != nil {
		return nil, err
	}
	answer, ok, err := e.ask("pkiCert", NewIssue(path, data))
	if err != nil || !ok {
		return nil, err
	}
	pems, err := parsePEMs(answer.Secret)
	if err != nil {
		return nil, e.failOnData("pkiCert: %v; name a path that issues or signs, such as pki/issue/ROLE", err)
	}
	return pems, nil
}

// parsePEMs takes the answer apart by what the blocks are and not by their keys,
// as consul-template does. It takes the keys in order, where consul-template
// takes them at random.
func parsePEMs(secret *api.Secret) (dependency.PemEncoded, error) {
	var found dependency.PemEncoded
	if secret == nil {
		return found, errors.New("the answer of Vault is empty")
	}
	rest := []byte(pemText(secret))
	for {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		text := string(pem.EncodeToMemory(block))
		if strings.HasSuffix(block.Type, "PRIVATE KEY") {
			found.Key = text
			continue
		}
		certificate, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return found, errors.New("the answer of Vault holds something else than certificates and a key")
		}
		if !certificate.IsCA {
			found.Cert = text
			continue
		}
		if found.CA == "" {
			found.CA = text
		}
		if !slices.Contains(found.CAChain, text) {
			found.CAChain = append(found.CAChain, text)
		}
	}
	if found.Cert == "" {
		return found, errors.New("the answer of Vault holds no certificate but that of an authority")
	}
	return found, nil
}

// pemText is all text of the answer, the issuing authority before its chain.
func pemText(secret *api.Secret) string {
	var text strings.Builder
	for _, key := range []string{"certificate", "private_key", "issuing_ca"} {
		value, _ := secret.Data[key].(string)
		text.WriteString(value + "\n")
	}
	chain, _ := secret.Data["ca_chain"].([]any)
	for _, element := range chain {
		value, _ := element.(string)
		text.WriteString(value + "\n")
	}
	return text.String()
}
