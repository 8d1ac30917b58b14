package driver

import (
	"fmt"
	"maps"
	"net/url"
	"path"
	"slices"
	"strings"

	"github.com/vaultmount/vaultmount/driver/volume"
	"github.com/vaultmount/vaultmount/provider"
	"github.com/vaultmount/vaultmount/provider/limits"
)

// VaultConfig is what the administrator says of Vault, and what volumes may say
// differently.
type VaultConfig struct {
	// Address is the URL of the Vault of volumes that name none.
	Address string
	// ReadCA returns the CA bundle of that Vault in PEM form, empty
	// for the system's. It is called for each new volume, so that a bundle that
	// changes on disk is used from then on.
	ReadCA func() (string, error)
	// ReadClusterCA returns a CA certificate of the cluster in PEM form by its name in a
	// container, ca.crt or service-ca.crt; empty if there is none. It may be nil.
	ReadClusterCA func(name string) (string, error)
	// Addresses and Proxies are where volumes may lead the driver: the pod's token
	// is sent there, from the node's network.
	Addresses, Proxies AllowList
	// ForbidSkipVerify refuses volumes that would take any certificate.
	ForbidSkipVerify bool
	// ForbidTokenFile refuses volumes that would hand the Vault token to the pod.
	ForbidTokenFile bool
}

// resolveEndpoint decides which Vault a volume talks to. What is not the administrator's
// own choice must be on a list.
func (c VaultConfig) resolveEndpoint(server volume.Server, secret secretKeys) (provider.Endpoint, error) {
	endpoint := provider.Endpoint{Address: c.Address, Proxy: server.Proxy, ServerName: server.ServerName, SkipVerify: server.SkipVerify}
	if server.Address != "" && server.Address != c.Address {
		if !c.Addresses.Allows(server.Address) {
			return endpoint, invalidAttribute("address", "%s is not on the driver's list (--allow-address), and the pod's token would be sent there; leave it out for %s", limits.Truncate(server.Address, quotedBytes), c.Address)
		}
		endpoint.Address = server.Address
	}
	if server.Proxy != "" && !c.Proxies.Allows(server.Proxy) {
		return endpoint, invalidAttribute("proxy-address", "%s is not on the driver's list (--allow-proxy)", limits.Truncate(server.Proxy, quotedBytes))
	}
	if server.SkipVerify && c.ForbidSkipVerify {
		return endpoint, invalidAttribute("tls-skip-verify", "is forbidden in this cluster (--forbid-tls-skip-verify); give the certificate of the CA that signed Vault's certificate with ca-cert")
	}
	if err := c.certificates(server, secret, &endpoint); err != nil {
		return endpoint, err
	}
	return endpoint, nil
}

// otherAddress is the label of all addresses but the driver's own: with a wildcard
// (--allow-address) the tenants choose them, and each would be a time series.
const otherAddress = "other"

// Labels names the circuit breakers of Vault by the labels of their metric.
func (c VaultConfig) Labels(breakerOpen map[string]bool) map[string]bool {
	labels := map[string]bool{}
	for address, held := range breakerOpen {
		if address != c.Address {
			address = otherAddress
		}
		labels[address] = labels[address] || held
	}
	return labels
}

// foreign returns an address that is not the driver's own Vault, and else "".
func (c VaultConfig) foreign(address string) string {
	if address == c.Address {
		return ""
	}
	return address
}

func (c VaultConfig) certificates(server volume.Server, secret secretKeys, endpoint *provider.Endpoint) (err error) {
	if endpoint.CACert, err = c.caCert(server.CACert, secret); err != nil {
		return err
	}
	if endpoint.ClientCert, err = secret.get("client-cert", server.ClientCert, limits.CABundleBytes); err != nil {
		return err
	}
	if endpoint.ClientKey, err = secret.get("client-key", server.ClientKey, limits.CABundleBytes); err != nil {
		return err
	}
	if endpoint.CACert == "" && endpoint.Address == c.Address && !endpoint.SkipVerify {
		endpoint.CACert, err = c.ReadCA()
	}
	return err
}

// caCert is the CA certificate that a volume trusts: a key of its Secret, or one of the
// cluster.
func (c VaultConfig) caCert(name string, secret secretKeys) (string, error) {
	if !volume.IsClusterCA(name) {
		return secret.get("ca-cert", name, limits.CABundleBytes)
	}
	pem, err := c.clusterCA(name)
	if err == nil && pem == "" {
		err = invalidAttribute("ca-cert", "%s is not known to the driver (--cluster-ca-directory lacks %s); put it into a Secret, and name its key", name, path.Base(name))
	}
	return pem, err
}

// clusterCA is empty for a CA certificate that the driver has not been given.
func (c VaultConfig) clusterCA(name string) (string, error) {
	if c.ReadClusterCA == nil {
		return "", nil
	}
	return c.ReadClusterCA(path.Base(name))
}

func invalidAttribute(key, format string, arguments ...any) error {
	return &volume.AttributeError{Key: key, Problem: fmt.Sprintf(format, arguments...)}
}

// refuseBy keeps the kind of the cause.
func invalidAttributeBecause(key string, cause error) error {
	return &volume.AttributeError{Key: key, Problem: cause.Error(), Err: cause}
}

// secretKeys are the keys of the Secret that nodePublishSecretRef names, less
// what the kubelet adds.
type secretKeys map[string]string

func newSecretKeys(secrets map[string]string) secretKeys {
	keys := secretKeys{}
	for key, value := range secrets {
		if !strings.HasPrefix(key, kubeletPrefix) {
			keys[key] = value
		}
	}
	return keys
}

// get returns the value of the key that an attribute names, empty if it names
// none. The limit is that of the value.
func (s secretKeys) get(attribute, key string, limit limits.Limit) (string, error) {
	if key == "" {
		return "", nil
	}
	if value := s[key]; value != "" {
		if err := limit.Check(len(value)); err != nil {
			return "", invalidAttributeBecause(attribute, fmt.Errorf("names the key %s of the Secret, whose %w", quote(key), err))
		}
		return value, nil
	}
	if len(s) == 0 {
		return "", invalidAttribute(attribute, "names the key %s, but the volume has no Secret; set csi.nodePublishSecretRef", quote(key))
	}
	return "", invalidAttribute(attribute, "names the key %s, which the Secret of csi.nodePublishSecretRef lacks or leaves empty; its keys are %s", quote(key), quoteList(slices.Sorted(maps.Keys(s))))
}

// AllowList says which URLs volumes may name.
type AllowList []allowed

// allowed is a scheme and port with a host, or with the end of one.
type allowed struct {
	scheme, port string
	host         string
	suffix       bool
}

// ParseAllowList reads entries like "https://vault.example.com:8200", or
// "https://*.example.com:8200" for any host whose name ends so.
func ParseAllowList(entries []string) (AllowList, error) {
	var list AllowList
	for _, entry := range entries {
		parsed, err := url.Parse(entry)
		if err != nil || parsed.Scheme != "https" && parsed.Scheme != "http" || parsed.Hostname() == "" || strings.Trim(parsed.Path, "/") != "" || parsed.User != nil {
			return nil, fmt.Errorf("%q is not a URL of scheme, host and port; write it like https://vault.example.com:8200 or https://*.example.com:8200", entry)
		}
		host, suffix := strings.CutPrefix(strings.ToLower(parsed.Hostname()), "*")
		if strings.Contains(host, "*") || suffix && (!strings.HasPrefix(host, ".") || strings.Count(host, ".") < 2) {
			return nil, fmt.Errorf("%q: an asterisk means whole labels at the start of a name with at least two more, like *.example.com", entry)
		}
		list = append(list, allowed{scheme: parsed.Scheme, port: port(parsed), host: host, suffix: suffix})
	}
	return list, nil
}

// Allows tells whether a URL is on the list. Only scheme, host and port count.
func (l AllowList) Allows(address string) bool {
	parsed, err := url.Parse(address)
	if err != nil {
		return false
	}
	host := strings.ToLower(parsed.Hostname())
	for _, a := range l {
		if a.scheme != parsed.Scheme || a.port != port(parsed) {
			continue
		}
		if host == a.host && !a.suffix || a.suffix && strings.HasSuffix(host, a.host) && len(host) > len(a.host) {
			return true
		}
	}
	return false
}

func port(address *url.URL) string {
	switch {
	case address.Port() != "":
		return address.Port()
	case address.Scheme == "https":
		return "443"
	}
	return "80"
}
