package vault

import (
	"net/http"
	"sync/atomic"
	"time"
)

// offset is how far Vault's clock is ahead of the node's, by the date of its last
// answer to a write: what Vault makes ends by its own clock, and a certificate's
// end is all that it says of that.
type offset struct {
	ahead atomic.Int64 // nanoseconds
}

// agreement is how far two clocks may be apart that agree. A date is of whole
// seconds, and the answer was on its way.
const agreement = 2 * time.Second

// hear reads the date of an answer that came now. Only a write is answered by Vault
// and not by a cache; and what a proxy says of a failure has the proxy's date.
func (o *offset) hear(response *http.Response, now time.Time) {
	if response == nil || response.StatusCode >= http.StatusMultipleChoices || response.Request == nil || response.Request.Method == http.MethodGet {
		return
	}
	date, err := http.ParseTime(response.Header.Get("Date"))
	if err != nil {
		return // without it, the node's clock must do
	}
	ahead := date.Sub(now)
	if ahead.Abs() <= agreement {
		o.ahead.Store(0)
		return
	}
	// By the end of the date's second, so that nothing is taken to last too long.
	o.ahead.Store(int64(ahead + time.Second))
}

// Ahead is how far Vault's clock is ahead of the node's, less than zero if it is
// behind, and 0 if the two agree as closely as an answer of Vault can tell, or if
// none has.
func (s *Session) Ahead() time.Duration { return time.Duration(s.server.offset.ahead.Load()) }
