package vault

import (
	"errors"
	"io"
	"net/http"
)

// errEmpty is an answer that says OK, or not found, and nothing else. Vault says 204
// then, or lists no errors, so this is a proxy's or a load balancer's; taken for
// Vault's, it would be a login without a token, a secret that is not there, or a list
// without names.
var errEmpty = errors.New("the answer is empty, which none of Vault's is but with status 204")

// refuseEmpty has reading an answer fail if there is none.
func refuseEmpty(response *http.Response) {
	if response == nil || response.Body == nil || response.StatusCode == http.StatusNoContent {
		return
	}
	if response.StatusCode < http.StatusBadRequest || response.StatusCode == http.StatusNotFound {
		response.Body = &notEmpty{ReadCloser: response.Body}
	}
}

// notEmpty is a body that must not end where it begins.
type notEmpty struct {
	io.ReadCloser

	begun bool
}

// Read implements io.Reader.
func (n *notEmpty) Read(p []byte) (int, error) {
	read, err := n.ReadCloser.Read(p)
	n.begun = n.begun || read > 0
	if errors.Is(err, io.EOF) && !n.begun {
		return read, errEmpty
	}
	return read, err
}
