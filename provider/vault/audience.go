package vault

import (
	"strings"
	"sync"
)

// tastes remember which of a pod's two tokens a role takes, so that one pod of a
// node shows Vault both, and not each. It may be used concurrently.
type tastes struct {
	mutex sync.Mutex
	other map[taker]bool // the role took the second last
}

// taker is a role, as far as the pods of one endpoint tell roles apart.
type taker struct{ namespace, mount, role string }

// maxTastes bounds what the roles of a server that takes any role are remembered for.
const maxTastes = 1024

func newTastes() *tastes { return &tastes{other: map[taker]bool{}} }

func (t *tastes) forOther(role taker) bool {
	t.mutex.Lock()
	defer t.mutex.Unlock()
	return t.other[role]
}

func (t *tastes) note(role taker, other bool) {
	t.mutex.Lock()
	defer t.mutex.Unlock()
	if len(t.other) >= maxTastes {
		clear(t.other)
	}
	t.other[role] = other
}

// swapped shows the tokens in the other order.
func (l Credentials) swapped() Credentials {
	l.JWT, l.FallbackJWT = l.FallbackJWT, l.JWT
	return l
}

// mayTakeOther tells whether a refusal may be for the token's audience. A role that
// is bound to another says so. Vault says nothing where it has the API server review
// tokens with the token that it was shown, and that is for Vault alone.
func mayTakeOther(err error) bool {
	words, refused := refusal(err)
	return refused && (words == noReason || strings.Contains(words, wrongAudience))
}

// What Vault says of a login.
const (
	noReason      = "permission denied"
	wrongAudience = "invalid audience"
)
