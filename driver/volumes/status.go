package volumes

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"k8s.io/apimachinery/pkg/util/wait"

	"github.com/vaultmount/vaultmount/driver/status"
	"github.com/vaultmount/vaultmount/driver/tmpfs"
	"github.com/vaultmount/vaultmount/provider"
	"github.com/vaultmount/vaultmount/provider/limits"
)

// Statuses returns the provider's status of each volume that it refreshes.
func (m *Manager) Statuses() []provider.Status {
	var all []provider.Status
	for _, e := range m.all() {
		if secrets := e.secrets.Load(); secrets != nil {
			all = append(all, secrets.Status())
		}
	}
	return all
}

// refreshPoll is the time between two looks at a refresh in progress.
const refreshPoll = 20 * time.Millisecond

// Refresh reads the static secrets of a volume now. It waits until its files are up to date,
// until the refresh has failed, or for ctx.
func (m *Manager) Refresh(ctx context.Context, volumeID string) error {
	e := m.find(volumeID)
	if e == nil {
		return fmt.Errorf("refresh the volume: %w", provider.ErrClosed)
	}
	secrets := e.secrets.Load()
	if secrets == nil {
		return errors.New("refresh the volume: it has no record before the kubelet's next call for it")
	}
	secrets.Refresh()
	err := wait.PollUntilContextCancel(ctx, refreshPoll, false, func(context.Context) (bool, error) {
		next := secrets.Status().Next
		return next.IsZero() || next.After(time.Now()), nil
	})
	if err != nil {
		return fmt.Errorf("wait for the refresh of the volume: %w", err)
	}
	return secrets.Status().Err
}

// List returns what is known of each volume, in the order of pods.
func (m *Manager) List() []status.Volume {
	all := []status.Volume{}
	for _, e := range m.all() {
		all = append(all, m.describeStatus(e))
	}
	slices.SortFunc(all, func(a, b status.Volume) int {
		return cmp.Or(cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Pod, b.Pod), cmp.Compare(a.Name, b.Name), cmp.Compare(a.ID, b.ID))
	})
	return all
}

func (m *Manager) describeStatus(e *entry) status.Volume {
	m.mutex.Lock()
	v, secrets, capacity := e.volume, e.secrets.Load(), e.volume.bytes()+e.retained()
	m.mutex.Unlock()
	described := status.Volume{
		ID: v.ID, Name: v.Name(), Namespace: v.Pod.Namespace, Pod: v.Pod.Name, PodUID: v.Pod.UID,
		Target: v.Target, State: status.Unrecorded, Size: v.Size, Capacity: capacity,
	}
	for _, file := range v.Files {
		described.Files = append(described.Files, file.Path)
	}
	if usage, err := tmpfs.ReadUsage(v.Target); err == nil {
		described.Used = usage.BytesUsed
	}
	if secrets != nil {
		addStatus(&described, secrets.Status())
		if v.IsStatic && described.State == status.Fresh {
			described.State = status.Static
		}
	}
	return described
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
