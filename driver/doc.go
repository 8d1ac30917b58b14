// Package driver serves CSI: the Identity and Node services for inline volumes, as far as
// messages, checks, gRPC codes and the administrator's policy go. Package volumes mounts, and
// the provider talks to Vault.
//
// It never talks to Vault or mounts by itself. It needs no permission in Kubernetes: what it
// knows of a pod comes with the kubelet's call. It imports injector, volume, volumes, tmpfs,
// and of the provider its types, limits and recovery.
//
// # Map
//
//   - server.go: the gRPC server, its interceptors (log lines, metrics, panics), IdentityServer
//   - nodeserver.go: NodeServer
//   - request.go: a publish becomes a volumes.Volume and a provider.Request
//   - errors.go: all gRPC codes
//   - vaultpolicy.go: the addresses, proxies and certificates that a volume may name
//   - config.go: what the administrator sets
//
// # Flows
//
// Publish: NodeServer.NodePublishVolume, checkPublish, decode, volumes.Manager.Publish, add
// (capacity), provider.Manager.Publish (log in, read, render), entry.Save (record),
// entry.mount, tmpfs.Mounter.Create, provider.Volume.Start.
//
// Republish: NodeServer.NodePublishVolume, requestHash; if it says something new: decode,
// volumes.Manager.Republish, provider.Volume.UpdateCredentials.
//
// Refresh: provider.Volume's goroutine, entry.Replace, tmpfs.Mounter.Replace, entry.Save,
// entry.Refreshed (metrics, Events).
//
// Unpublish: NodeServer.NodeUnpublishVolume, volumes.Manager.Unpublish, entry.unmount,
// tmpfs.Remove, provider.Volume.Close (the token is revoked in the background).
//
// Restart (cmd/vaultmount/run.go): kubeletplugin.Plugin.Activate (standby until the lock is
// free), Serve, checkpoint.Open, provider.Manager.RestoreSessions, volumes.Manager.Restore,
// NodeServer.Start, Plugin.Register; and at the end Plugin.BeginStop, Server.Stop,
// provider.Manager.Shutdown, checkpoint.Store.Close, Plugin.Stop, Plugin.Release.
//
// The order of locks is in the comment of volumes.Manager.
package driver
