package vault

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"syscall"

	"github.com/vaultmount/vaultmount/provider/limits"
)

// errRedirect is a redirect that is not followed.
var errRedirect = errors.New("a redirect of Vault leads to another host")

// checkRedirect refuses a redirect that would take the token, or what a login shows,
// to a host that the administrator has not chosen. The api.Client follows the others,
// once: it sends the token and the body again.
func (t *transport) checkRedirect(request *http.Request, response *http.Response) error {
	if response.StatusCode < http.StatusMultipleChoices || response.StatusCode >= http.StatusBadRequest || response.Header.Get("Location") == "" {
		return nil
	}
	target, err := request.URL.Parse(response.Header.Get("Location"))
	if err != nil {
		return fmt.Errorf("%w: its Location is not a URL", errRedirect)
	}
	if origin(target) == origin(request.URL) {
		return nil
	}
	shown := limits.Truncate(origin(target), limits.ErrorBytes.Max()/4)
	switch {
	case request.URL.Scheme == "https" && target.Scheme != "https":
		return fmt.Errorf("%w, %s, without TLS; the driver does not follow it", errRedirect, shown)
	case t.follows == nil || !t.follows(origin(target)):
		return fmt.Errorf("%w, %s, which is not on the driver's list; name it as the address, or list it (--allow-address)", errRedirect, shown)
	case request.ContentLength != 0:
		return fmt.Errorf("%w, %s; the driver shows what it writes, such as the token of a login, to no other host; name that host as the address, or let Vault forward requests", errRedirect, shown)
	}
	return nil
}

// origin is scheme, host and port.
func origin(u *url.URL) string {
	port := u.Port()
	if port == "" {
		port = map[string]string{"http": "80", "https": "443"}[u.Scheme]
	}
	return u.Scheme + "://" + net.JoinHostPort(strings.ToLower(u.Hostname()), port)
}

var errLinkLocal = errors.New("the address is link-local, as that of a cloud's metadata service; the driver connects there only where --vault-address or --allow-address names the IP address itself")

// refuseLinkLocal is for net.Dialer.Control, which is called with the IP address that
// a name has led to. Clouds give out a node's credentials at such an address.
func refuseLinkLocal(_, address string, _ syscall.RawConn) error {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return err
	}
	if isLinkLocal(host) {
		return errLinkLocal
	}
	return nil
}

func isLinkLocal(host string) bool {
	ip, err := netip.ParseAddr(host)
	return err == nil && ip.Unmap().IsLinkLocalUnicast()
}
