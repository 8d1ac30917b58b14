package monitor

import "time"

// Volume is what the driver knows of one volume. Times that are zero are never, or
// not known.
type Volume struct {
	ID        string   `json:"id"`
	Name      string   `json:"name"`
	Namespace string   `json:"namespace"`
	Pod       string   `json:"pod"`
	PodUID    string   `json:"podUID"`
	Target    string   `json:"target"`
	Files     []string `json:"files"`
	State     State    `json:"state"`
	// Error is why the files may be older than Vault's content.
	Error string `json:"error,omitempty"`
	// Session is the pod's own, which has no token before one is needed; Shared is the
	// one that it shares with other pods.
	Session *Session `json:"session,omitempty"`
	Shared  *Session `json:"shared,omitempty"`
	// Refreshed is when all was well last, Next when something is due.
	Refreshed time.Time `json:"refreshed,omitzero"`
	Next      time.Time `json:"next,omitzero"`
	Secrets   []Secret  `json:"secrets,omitempty"`
	// Used and Size are bytes of memory.
	Used int64 `json:"usedBytes"`
	Size int64 `json:"sizeBytes"`
	// Capacity is what the volume takes of the node's capacity, in bytes: its size, its
	// inodes, and what the driver keeps of Vault's responses.
	Capacity int64 `json:"capacityBytes"`
}

// State is how a volume fares.
type State string

// The states of a volume.
const (
	// Fresh files are those that Vault's content makes, as of the last look.
	Fresh State = "fresh"
	// Failing files may be older than Vault's content, or their token is not renewed.
	Failing State = "failing"
	// Unrecorded volumes were mounted before the driver started, which knows no more of
	// them until the kubelet's next call.
	Unrecorded State = "unrecorded"
	// Static files are not looked after any more.
	Static State = "static"
)

// Session is the Vault token of a pod, or of several.
type Session struct {
	Address   string    `json:"address"`
	Namespace string    `json:"namespace,omitempty"`
	Mount     string    `json:"mount"`
	Role      string    `json:"role,omitempty"`
	Since     time.Time `json:"since,omitzero"`
	Expires   time.Time `json:"expires,omitzero"`
	Logins    int       `json:"logins"`
	Error     string    `json:"error,omitempty"`
	// Pods is how many share the token; 0 for a pod's own.
	Pods int `json:"pods,omitempty"`
}

// Secret is something in Vault that a volume is made of.
type Secret struct {
	Path string `json:"path"`
	Verb string `json:"verb"`
	// Due is when Vault is asked about it next, Expires when its lease ends unless it
	// is renewed.
	Due       time.Time `json:"due,omitzero"`
	Expires   time.Time `json:"expires,omitzero"`
	Renewable bool      `json:"renewable,omitempty"`
	Error     string    `json:"error,omitempty"`
}
