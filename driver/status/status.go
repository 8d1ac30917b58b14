// Package status shows the volumes of a node and refreshes them on request, through
// a unix socket that only root can reach: "vaultmount volumes" and "vaultmount refresh".
//
// It names pods, paths, times and errors. It never shows a token, a secret value or
// a rendered file, and it never talks to Vault or to the file system itself.
// It imports provider/fairqueue and provider/limits.
package status

import (
	"fmt"
	"strings"
	"time"
)

// Volume describes one volume. A zero time means never, or not known.
type Volume struct {
	ID        string   `json:"id"`
	Name      string   `json:"name"`
	Namespace string   `json:"namespace"`
	Pod       string   `json:"pod"`
	PodUID    string   `json:"podUID"`
	Target    string   `json:"target"`
	Files     []string `json:"files"`
	State     State    `json:"state"`
	// Error says why the files may be older than Vault's content.
	Error string `json:"error,omitempty"`
	// Session is the pod's own login, Shared the one that it shares with other pods.
	Session *Session `json:"session,omitempty"`
	Shared  *Session `json:"shared,omitempty"`
	// Refreshed is the time of the last successful refresh, Next of the next planned one.
	Refreshed time.Time `json:"refreshed,omitzero"`
	Next      time.Time `json:"next,omitzero"`
	Secrets   []Secret  `json:"secrets,omitempty"`
	// Used and Size are bytes of the volume's tmpfs.
	Used int64 `json:"usedBytes"`
	Size int64 `json:"sizeBytes"`
	// Capacity is the volume's part of the node's capacity, in bytes: its size, its
	// inodes, and what the driver keeps of Vault's responses.
	Capacity int64 `json:"capacityBytes"`
}

// State says whether a volume is up to date.
type State string

// The states of a volume.
const (
	// Fresh: the files show Vault's content as of the last refresh.
	Fresh State = "fresh"
	// Stale: the last refresh failed, or the token cannot be renewed.
	Stale State = "stale"
	// Unrecorded: mounted before the driver started, which has no record of it. The
	// driver takes it over at the kubelet's next call.
	Unrecorded State = "unrecorded"
	// Static: the volume is not refreshed, as its attributes say.
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
	// Pods is the number of pods that share the token; 0 for a pod's own.
	Pods int `json:"pods,omitempty"`
}

// Secret is a dependency of a volume's templates.
type Secret struct {
	Path   string `json:"path"`
	Action string `json:"action"`
	// Due is the time of the next request to Vault, Expires the end of the lease unless
	// it is renewed.
	Due       time.Time `json:"due,omitzero"`
	Expires   time.Time `json:"expires,omitzero"`
	Renewable bool      `json:"renewable,omitempty"`
	Error     string    `json:"error,omitempty"`
}

// Find returns the volumes that a name selects: pod, namespace/pod,
// namespace/pod/volume, or the first characters of a volume id. The error lists
// names that would match.
func Find(volumes []Volume, name string) ([]Volume, error) {
	var found []Volume
	for _, v := range volumes {
		if v.matches(name) {
			found = append(found, v)
		}
	}
	if len(found) > 0 {
		return found, nil
	}
	const most = 5
	var known []string
	for _, v := range volumes[:min(len(volumes), most)] {
		known = append(known, v.Namespace+"/"+v.Pod+"/"+v.Name)
	}
	switch {
	case len(known) == 0:
		return nil, fmt.Errorf("no volume %q: this node has no volumes", name)
	case len(volumes) > most:
		known = append(known, fmt.Sprintf("and %d more", len(volumes)-most))
	}
	return nil, fmt.Errorf("no volume %q on this node; write a pod, namespace/pod, namespace/pod/volume, or a volume id; this node has %s", name, strings.Join(known, ", "))
}

func (v Volume) matches(name string) bool {
	pod := v.Namespace + "/" + v.Pod
	switch name {
	case v.Pod, pod, pod + "/" + v.Name:
		return true
	}
	const minPrefix = 8 // of an id's 68 characters, "csi-" among them
	return len(name) >= minPrefix && strings.HasPrefix(v.ID, name)
}
