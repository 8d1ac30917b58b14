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

// secret reads a path, or writes to it if there are arguments "key=value". A missing value
// is an untyped nil, of which a template may name fields; an empty response is a nil
// secret, of which it may not. Both are consul-template's behavior.
func (e *execution) secret(arguments ...string) (any, error) {
	if len(arguments) == 0 {
		return nil, nil
	}
	verb := Read
	if len(arguments) > 1 {
		verb = Write
	}
	d, value, ok, err := e.request("secret", verb, arguments)
	if err != nil || !ok {
		return nil, err
	}
	if e.secrets[d] == nil {
		e.secrets[d] = toTemplate(value.Secret)
	}
	return e.secrets[d], nil
}

func (e *execution) list(path string) ([]string, error) {
	if path == "" {
		return nil, nil
	}
	_, value, _, err := e.request("secrets", List, []string{path})
	if err != nil {
		return nil, err
	}
	return slices.Sorted(slices.Values(value.Names)), nil
}

// pkiCert issues a certificate. Consul-template reads the current one from the file of the
// template, which may hold anything by then; here the caller keeps the value.
func (e *execution) pkiCert(arguments ...string) (any, error) {
	if len(arguments) == 0 {
		return nil, nil
	}
	_, value, ok, err := e.request("pkiCert", Issue, arguments)
	if err != nil || !ok {
		return nil, err
	}
	pems, err := parsePEMs(value.Secret)
	if err != nil {
		return nil, e.failOnData("pkiCert: %v; name a path that issues or signs, such as pki/issue/ROLE", err)
	}
	return pems, nil
}

// request asks for the value of a path and pairs "key=value".
func (e *execution) request(function string, verb Verb, arguments []string) (d Dependency, value Value, ok bool, err error) {
	d = Dependency{Verb: verb, Path: trimPath(arguments[0])}
	if d.Path == "" {
		return d, Value{}, false, e.fail("%s: the path is empty", function)
	}
	data := map[string]string{}
	for i, pair := range arguments[1:] {
		key, argument, isPair := strings.Cut(pair, "=")
		switch {
		case isPair:
			data[strings.TrimSpace(key)] = strings.TrimSpace(argument)
		case pair != "":
			return d, Value{}, false, e.fail("%s: argument %d after the path is not key=value", function, i+1)
		}
	}
	d.Arguments = encode(data)
	value, ok, err = e.ask(function, d)
	return d, value, ok, err
}

func trimPath(path string) string { return strings.Trim(strings.TrimSpace(path), "/") }

// parsePEMs sorts the blocks by their content and not by their keys, as consul-template
// does. It takes the keys in a fixed order; consul-template's is random.
func parsePEMs(secret *api.Secret) (dependency.PemEncoded, error) {
	var found dependency.PemEncoded
	if secret == nil {
		return found, errors.New("the response of Vault is empty")
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
			return found, errors.New("the response of Vault has other PEM blocks than certificates and a key")
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
		return found, errors.New("the response of Vault has no certificate except CA certificates")
	}
	return found, nil
}

// pemText joins the PEM blocks of a response, the issuing CA before its chain.
func pemText(secret *api.Secret) string {
	chain, _ := secret.Data["ca_chain"].([]any)
	var text strings.Builder
	for _, value := range slices.Concat([]any{secret.Data["certificate"], secret.Data["private_key"], secret.Data["issuing_ca"]}, chain) {
		block, _ := value.(string)
		text.WriteString(block + "\n")
	}
	return text.String()
}

// toTemplate returns a secret with the fields that templates know from consul-template.
func toTemplate(secret *api.Secret) *dependency.Secret {
	if secret == nil {
		return nil
	}
	shown := &dependency.Secret{
		RequestID:     secret.RequestID,
		LeaseID:       secret.LeaseID,
		LeaseDuration: secret.LeaseDuration,
		Renewable:     secret.Renewable,
		Warnings:      slices.Clone(secret.Warnings),
	}
	// Functions such as sprig_set change a map in place, and other files share the value.
	shown.Data, _ = clone(secret.Data).(map[string]any)
	if auth := secret.Auth; auth != nil {
		shown.Auth = &dependency.SecretAuth{
			ClientToken:   auth.ClientToken,
			Accessor:      auth.Accessor,
			Policies:      auth.Policies,
			Metadata:      auth.Metadata,
			LeaseDuration: auth.LeaseDuration,
			Renewable:     auth.Renewable,
		}
	}
	if wrap := secret.WrapInfo; wrap != nil {
		shown.WrapInfo = &dependency.SecretWrapInfo{
			Token:           wrap.Token,
			TTL:             wrap.TTL,
			CreationTime:    wrap.CreationTime,
			WrappedAccessor: wrap.WrappedAccessor,
		}
	}
	return shown
}

// clone copies the types that a JSON decoder makes.
func clone(value any) any {
	switch v := value.(type) {
	case map[string]any:
		if v == nil {
			return v
		}
		copied := make(map[string]any, len(v))
		for key, element := range v {
			copied[key] = clone(element)
		}
		return copied
	case []any:
		copied := make([]any, len(v), cap(v)) // spew_sdump prints the capacity
		for i, element := range v {
			copied[i] = clone(element)
		}
		return copied
	}
	return value
}
