package holder

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"text/template"
)

func configFile(name string) string { return filepath.Join(state, name) }

// writeConfigs writes the configuration files of the programs that take one.
func (h *holder) writeConfigs() error {
	for name, text := range map[string]string{
		"containerd.toml":     containerdConfig,
		"cni/bridge.conflist": networkConfig,
		"crun":                crunScript,
		"kubelet.yaml":        kubeletConfig,
		"resolv.conf":         "nameserver 127.0.0.1\n", // nobody answers: the cluster has no DNS
	} {
		parsed, err := template.New(name).Option("missingkey=error").Parse(text)
		if err != nil {
			return err
		}
		var content bytes.Buffer
		if err := parsed.Execute(&content, h.configValues()); err != nil {
			return err
		}
		if err := os.WriteFile(configFile(name), content.Bytes(), 0o644); err != nil {
			return fmt.Errorf("write %s: %w", name, err)
		}
	}
	if err := os.Chmod(configFile("crun"), 0o755); err != nil {
		return fmt.Errorf("make the script of crun a program: %w", err)
	}
	return nil
}

func (h *holder) configValues() map[string]any {
	return map[string]any{
		"Socket": containerdSocket, "State": state, "PKI": pkiFile(""), "Runtime": h.Parts.Runtime,
		"NodeIP": NodeIP, "Pods": podNetwork, "PluginDir": pluginDir,
		"Cgroup": h.Cgroup, "SyncFrequency": h.SyncFrequency,
	}
}

// containerdConfig differs from containerd's defaults where those need rights
// or kernel features that a container or a small virtual machine may lack.
// Its root and state stay /var/lib/containerd and /run/containerd: both are the
// cluster's own. Version 2 of the format is read by containerd 1 and 2.
const containerdConfig = `version = 2
disabled_plugins = [
  "io.containerd.internal.v1.tracing",
  "io.containerd.snapshotter.v1.aufs",
  "io.containerd.snapshotter.v1.btrfs",
  "io.containerd.snapshotter.v1.devmapper",
  "io.containerd.snapshotter.v1.zfs",
]
[grpc]
  address = "{{.Socket}}"
[plugins."io.containerd.internal.v1.opt"]
  path = "/var/lib/containerd/opt"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "docker.io/vaultmount/pause:test"
  # Lowering a process's OOM score takes CAP_SYS_RESOURCE.
  restrict_oom_score_adj = true
  disable_apparmor = true
  disable_hugetlb_controller = true
  tolerate_missing_hugetlb_controller = true
  # The default, /var/run/netns, is shared with ip-netns(8).
  netns_mounts_under_state_dir = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "{{.Runtime.CNI}}"
    conf_dir = "{{.State}}/cni"
  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
      BinaryName = "{{.Runtime.Runc}}"
      SystemdCgroup = false
{{- if .Runtime.Crun}}
  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.crun]
    runtime_type = "io.containerd.runc.v2"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.crun.options]
      BinaryName = "{{.State}}/crun"
      SystemdCgroup = false
{{- end}}
`

// crunScript starts crun for the shim of containerd. Debian's crun 1.8.1 refuses a
// bundle whose version of the OCI runtime specification is not 1.0, with "unknown
// version specified". containerd 2 writes 1.1 or later, and has no setting for it that
// the sandbox's bundle follows. What crun 1.8.1 does not know in it, it ignores.
const crunScript = `#!/bin/sh
set -e
for argument; do
	if [ "$previous" = --bundle ]; then
		sed -i 's/"ociVersion": *"[^"]*"/"ociVersion":"1.0.2"/' "$argument/config.json"
	fi
	previous=$argument
done
exec "{{.Runtime.Crun}}" "$@"
`

// networkConfig does not masquerade: that would take iptables, and there is
// nothing outside to reach.
const networkConfig = `{
  "cniVersion": "0.4.0",
  "name": "pods",
  "plugins": [{
    "type": "bridge",
    "bridge": "cni0",
    "isGateway": true,
    "hairpinMode": true,
    "ipam": {
      "type": "host-local",
      "ranges": [[{"subnet": "{{.Pods}}"}]],
      "routes": [{"dst": "0.0.0.0/0"}]
    }
  }]
}
`

// kubeletConfig: failCgroupV1 lets the kubelet start under version 1 and means
// nothing under version 2.
const kubeletConfig = `apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
containerRuntimeEndpoint: unix://{{.Socket}}
address: {{.NodeIP}}
authentication:
  anonymous: {enabled: false}
  webhook: {enabled: true}
  x509: {clientCAFile: {{.PKI}}/ca.crt}
authorization: {mode: Webhook}
tlsCertFile: {{.PKI}}/kubelet.crt
tlsPrivateKeyFile: {{.PKI}}/kubelet.key
cgroupDriver: cgroupfs
cgroupRoot: /{{.Cgroup}}
failCgroupV1: false
failSwapOn: false
oomScoreAdj: 0
resolvConf: {{.State}}/resolv.conf
clusterDomain: cluster.local
volumePluginDir: {{.PluginDir}}
imageGCHighThresholdPercent: 100
evictionHard: {memory.available: 100Mi, nodefs.available: 1%, imagefs.available: 1%}
nodeStatusUpdateFrequency: 5s
syncFrequency: {{.SyncFrequency}}
`
