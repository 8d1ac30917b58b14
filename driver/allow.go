package driver

import (
	"fmt"
	"net/url"
	"strings"
)

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
			return nil, fmt.Errorf("%q: an asterisk stands for whole labels at the start of a name with at least two more, like *.example.com", entry)
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
