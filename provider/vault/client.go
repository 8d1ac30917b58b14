package vault

import (
	"sync"

	"github.com/hashicorp/vault/api"
)

// clients are those of one server, one for each setting, on the server's transport.
// A session works with a copy that differs in its token: api.Client.Clone builds a
// transport each time only to throw it away, which takes longer than some requests.
type clients struct {
	base *api.Client

	mutex sync.Mutex
	made  map[settings]*api.Client
}

// settings are what a client cannot change without changing its copies.
type settings struct {
	options Options
	login   bool // the back-off of the options is for logins
}

// mostSettings bounds what annotations can have the driver remember.
const mostSettings = 64

func newClients(base *api.Client) *clients {
	return &clients{base: base, made: map[settings]*api.Client{}}
}

// with returns a client for the caller alone, without a token.
func (c *clients) with(options Options, login bool) (*api.Client, error) {
	wanted := settings{options, login}
	wanted.options.Namespace = ""
	if !login {
		wanted.options.MinBackoff, wanted.options.MaxBackoff = 0, 0
	}
	made, err := c.of(wanted)
	if err != nil {
		return nil, err
	}
	// These copy a client and build nothing.
	seen := &state{}
	return made.WithNamespace(options.Namespace).WithRequestCallbacks(seen.require).WithResponseCallbacks(seen.record), nil
}

func (c *clients) of(wanted settings) (*api.Client, error) {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	if made := c.made[wanted]; made != nil {
		return made, nil
	}
	made, err := wanted.newClient(c.base)
	if err != nil {
		return nil, err
	}
	if len(c.made) >= mostSettings {
		clear(c.made)
	}
	c.made[wanted] = made
	return made, nil
}

func (s settings) newClient(base *api.Client) (*api.Client, error) {
	client, err := base.Clone()
	if err != nil {
		return nil, err
	}
	o := s.options
	if o.Timeout > 0 {
		client.SetClientTimeout(o.Timeout)
	}
	if o.MaxRetries != 0 {
		client.SetMaxRetries(max(o.MaxRetries, 0))
	}
	switch {
	case o.MinBackoff > 0:
		client.SetMinRetryWait(o.MinBackoff)
		client.SetMaxRetryWait(max(o.MaxBackoff, o.MinBackoff))
	case o.MaxBackoff > 0:
		client.SetMinRetryWait(min(client.MinRetryWait(), o.MaxBackoff))
		client.SetMaxRetryWait(o.MaxBackoff)
	}
	return client, nil
}

// state is how far the cluster had come when it answered a session last. In a
// cluster of several Vaults, the session so reads what it has written, whichever
// of them answers. (The client's own way to this is a setting that all its copies
// share, and a state that would outlive the restoration of a snapshot.)
type state struct {
	mutex sync.Mutex
	seen  []string
}

func (s *state) require(request *api.Request) {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	api.RequireState(s.seen...)(request)
}

func (s *state) record(response *api.Response) {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	if now := response.Header.Get(api.HeaderIndex); now != "" {
		s.seen = api.MergeReplicationStates(s.seen, now)
	}
}
