package driver

import (
	"cmp"
	"slices"

	"github.com/vaultmount/vaultmount/driver/status"
	"github.com/vaultmount/vaultmount/driver/tmpfs"
	"github.com/vaultmount/vaultmount/provider"
	"github.com/vaultmount/vaultmount/provider/limits"
)

// Volumes tells what is known of each volume on the node, in the order of pods.
func (m *Mounts) Volumes(statuses []provider.Status) []status.Volume {
	all := []status.Volume{}
	states := map[string]provider.Status{}
	for _, each := range statuses {
		states[each.VolumeID] = each
	}
	for _, mount := range m.all() {
		v := describeMount(mount)
		v.Capacity = mount.charge() + m.retained(mount.VolumeID)
		if state, ok := states[mount.VolumeID]; ok {
			addStatus(&v, state)
		}
		all = append(all, v)
	}
	slices.SortFunc(all, func(a, b status.Volume) int {
		return cmp.Or(cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Pod, b.Pod), cmp.Compare(a.Name, b.Name), cmp.Compare(a.ID, b.ID))
	})
	return all
}

func describeMount(m mount) status.Volume {
	v := status.Volume{
		ID: m.VolumeID, Name: volumeName(m.Target), Namespace: m.Pod.Namespace, Pod: m.Pod.Name, PodUID: m.Pod.UID,
		Target: m.Target, State: status.Static, Size: m.Size,
	}
	if m.isUnrecorded() {
		v.State = status.Unrecorded
	}
	for _, file := range m.Files {
		v.Files = append(v.Files, file.Path)
	}
	if usage, err := tmpfs.ReadUsage(m.Target); err == nil {
		v.Used = usage.BytesUsed
	}
	return v
}

func addStatus(v *status.Volume, known provider.Status) {
	v.State = status.Fresh
	if known.Err != nil {
		v.State, v.Error = status.Stale, text(known.Err)
	}
	v.Refreshed, v.Next = known.Refreshed, known.Next
	v.Session = describeSession(known.Session)
	if known.Shared != nil {
		v.Shared = describeSession(*known.Shared)
		v.Shared.Pods = known.Shared.Pods
	}
	for _, due := range known.Secrets {
		v.Secrets = append(v.Secrets, status.Secret{
			Path: due.Path, Action: string(due.Verb), Due: due.At, Expires: due.Expires, Renewable: due.Renewable, Error: text(due.Err),
		})
	}
}

func describeSession(s provider.SessionStatus) *status.Session {
	return &status.Session{
		Address: s.Address, Namespace: s.Namespace, Mount: s.Mount, Role: s.Role,
		Since: s.Since, Expires: s.Expires, Logins: s.Logins, Error: text(s.Err),
	}
}

func text(err error) string {
	if err == nil {
		return ""
	}
	return limits.Shorten(err.Error(), limits.ErrorBytes.Max())
}
