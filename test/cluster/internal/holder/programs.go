package holder

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

const (
	etcdURL          = "http://127.0.0.1:2379"
	containerdSocket = "/run/containerd/containerd.sock" // containerd's default, and ctr's
	serviceIssuer    = "https://kubernetes.default.svc.cluster.local"
	pluginDir        = "/var/lib/kubelet/volumeplugins" // the default lies below /usr, and is made if missing
)

func (h *holder) etcd() program {
	return program{"etcd", h.Parts.Runtime.Etcd, []string{
		"--data-dir=/var/lib/etcd",
		"--listen-client-urls=" + etcdURL,
		"--advertise-client-urls=" + etcdURL,
		"--listen-peer-urls=http://127.0.0.1:2380",
	}}
}

func (h *holder) containerd() program {
	return program{"containerd", filepath.Join(h.Parts.Runtime.Bin, "containerd"), []string{
		"--config=" + configFile("containerd.toml"),
	}}
}

// apiserver finds the pods of a webhook's Service itself: there is no kube-proxy
// that would lead it there.
func (h *holder) apiserver() program {
	return h.kubernetes("kube-apiserver",
		"--etcd-servers="+etcdURL,
		"--bind-address=0.0.0.0",
		"--secure-port=6443",
		"--advertise-address="+NodeIP,
		"--client-ca-file="+pkiFile("ca.crt"),
		"--tls-cert-file="+pkiFile("apiserver.crt"),
		"--tls-private-key-file="+pkiFile("apiserver.key"),
		"--service-account-issuer="+serviceIssuer,
		"--service-account-key-file="+pkiFile("service-account.pub"),
		"--service-account-signing-key-file="+pkiFile("service-account.key"),
		"--service-cluster-ip-range="+serviceNetwork,
		"--authorization-mode=Node,RBAC",
		"--enable-admission-plugins=NodeRestriction",
		"--enable-aggregator-routing=true",
		"--allow-privileged=true",
		"--kubelet-certificate-authority="+pkiFile("ca.crt"),
		"--kubelet-client-certificate="+pkiFile("apiserver.crt"),
		"--kubelet-client-key="+pkiFile("apiserver.key"),
		"--kubelet-preferred-address-types=InternalIP",
	)
}

// controllerManager: each controller needs its own service account, as the
// RBAC roles are bound to those; the rates are for tests that start many pods.
func (h *holder) controllerManager() program {
	return h.kubernetes("kube-controller-manager",
		"--kubeconfig="+pkiFile("controller-manager.kubeconfig"),
		"--service-account-private-key-file="+pkiFile("service-account.key"),
		"--root-ca-file="+pkiFile("ca.crt"),
		"--use-service-account-credentials=true",
		"--leader-elect=false",
		"--secure-port=0",
		"--flex-volume-plugin-dir="+pluginDir,
		"--kube-api-qps=500",
		"--kube-api-burst=1000",
	)
}

func (h *holder) scheduler() program {
	return h.kubernetes("kube-scheduler",
		"--kubeconfig="+pkiFile("scheduler.kubeconfig"),
		"--leader-elect=false",
		"--secure-port=0",
	)
}

func (h *holder) kubelet() program {
	return h.kubernetes("kubelet",
		"--config="+configFile("kubelet.yaml"),
		"--kubeconfig="+pkiFile("kubelet.kubeconfig"),
		"--hostname-override="+Node,
		"--node-ip="+NodeIP,
		"--v=2",
	)
}

func (h *holder) kubernetes(name string, args ...string) program {
	return program{name, filepath.Join(h.Parts.Kubernetes, name), args}
}

// importImage hands an image archive to containerd, in the namespace where the
// kubelet looks for images.
func (h *holder) importImage(ctx context.Context, archive *os.File) error {
	defer archive.Close()
	messages, err := os.CreateTemp("", "import")
	if err != nil {
		return err
	}
	defer messages.Close()
	args := ImportCommand()
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = archive, messages, messages
	_, exited, err := h.children.start(cmd)
	if err != nil {
		return err
	}
	select {
	case <-ctx.Done():
		return context.Cause(ctx) // the end of the cluster kills ctr
	case status := <-exited:
		if exitCode(status) == 0 {
			return nil
		}
		output, err := os.ReadFile(messages.Name())
		if err != nil {
			return err
		}
		return fmt.Errorf("ctr: %s: %s", describe(status), strings.TrimSpace(string(output)))
	}
}

// ImportCommand imports an image archive from its standard input.
func ImportCommand() []string {
	return []string{"ctr", "--namespace=k8s.io", "images", "import", "-"}
}
