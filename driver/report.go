package driver

import (
	"cmp"
	"slices"

	"github.com/vaultmount/vaultmount/driver/monitor"
	"github.com/vaultmount/vaultmount/driver/tmpfs"
	"github.com/vaultmount/vaultmount/provider"
	"github.com/vaultmount/vaultmount/provider/limits"
)

// Volumes tells what is known of each volume on the node, in the order of pods.
func (p *Plugin) Volumes() []monitor.Volume {
	charge := p.current()
	all := []monitor.Volume{}
	if charge == nil {
		return all
	}
	states := map[string]provider.Status{}
	for _, each := range charge.Reporter.Volumes() {
		states[each.VolumeID] = each
	}
	for _, mount := range charge.Driver.mounts.all() {
		v := describeMount(mount)
		v.Capacity = mount.charge() + charge.Driver.mounts.retained(mount.VolumeID)
		if state, ok := states[mount.VolumeID]; ok {
			addStatus(&v, state)
		}
		all = append(all, v)
	}
	slices.SortFunc(all, func(a, b monitor.Volume) int {
		return cmp.Or(cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Pod, b.Pod), cmp.Compare(a.Name, b.Name), cmp.Compare(a.ID, b.ID))
	})
	return all
}

func describeMount(m mount) monitor.Volume {
	v := monitor.Volume{
		ID: m.VolumeID, Name: volumeName(m.Target), Namespace: m.Pod.Namespace, Pod: m.Pod.Name, PodUID: m.Pod.UID,
		Target: m.Target, State: monitor.Static, Size: m.Size,
	}
	if m.isUnrecorded() {
		v.State = monitor.Unrecorded
	}
	for _, file := range m.Files {
		v.Files = append(v.Files, file.Path)
	}
	if usage, err := tmpfs.ReadUsage(m.Target); err == nil {
		v.Used = usage.BytesUsed
	}
	return v
}

func addStatus(v *monitor.Volume, status provider.Status) {
	v.State = monitor.Fresh
	if status.Err != nil {
		v.State, v.Error = monitor.Failing, text(status.Err)
	}
	v.Refreshed, v.Next = status.Refreshed, status.Next
	v.Session = describeSession(status.Session)
	if status.Shared != nil {
		v.Shared = describeSession(*status.Shared)
		v.Shared.Pods = status.Shared.Pods
	}
	for _, due := range status.Plan {
		v.Secrets = append(v.Secrets, monitor.Secret{
			Path: due.Path, Verb: string(due.Verb), Due: due.At, Expires: due.Expires, Renewable: due.Renewable, Error: text(due.Err),
		})
	}
}

func describeSession(s provider.SessionStatus) *monitor.Session {
	return &monitor.Session{
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
