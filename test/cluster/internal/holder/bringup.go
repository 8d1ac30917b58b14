package holder

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/vaultmount/vaultmount/test/cluster/internal/cgroup"
)

// bringUp makes a Ready node out of fresh namespaces. ctx ends with the cluster.
func (h *holder) bringUp(ctx context.Context) error {
	if err := h.prepare(); err != nil {
		return fmt.Errorf("prepare namespaces: %w", err)
	}
	h.reached("namespaces")
	api, err := h.writeCredentials()
	if err != nil {
		return fmt.Errorf("write credentials: %w", err)
	}
	if err := h.writeConfigs(); err != nil {
		return fmt.Errorf("write configs: %w", err)
	}
	if err := h.startServers(ctx, api); err != nil {
		return err
	}
	if err := h.startNode(ctx, api); err != nil {
		return err
	}
	if err := h.openDoors(ctx); err != nil {
		return fmt.Errorf("open doors: %w", err)
	}
	return nil
}

// prepare makes what only exists inside, and the one control group that exists
// outside too.
func (h *holder) prepare() error {
	group, err := cgroup.New(h.Cgroup) // before the mounts change what it finds
	if err != nil {
		return err
	}
	h.group = group
	if err := group.Create(); err != nil {
		return err
	}
	if err := unix.Sethostname([]byte(Node)); err != nil {
		return fmt.Errorf("set host name: %w", err)
	}
	if err := setUpMounts(); err != nil {
		return err
	}
	if err := setUpNetwork(); err != nil {
		return err
	}
	return h.setEnvironment()
}

// setEnvironment changes the holder's own environment: all that runs inside
// inherits it.
func (h *holder) setEnvironment() error {
	runtime := h.Parts.Runtime
	path := h.Parts.Kubernetes + ":" + runtime.Bin + ":" + filepath.Dir(runtime.Runc)
	for name, value := range map[string]string{
		"PATH":            path + ":/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
		"LD_LIBRARY_PATH": runtime.Libraries,
		"TMPDIR":          filepath.Join(state, "tmp"), // containerd leaves mount points behind when killed
		"KUBECONFIG":      pkiFile("admin.kubeconfig"),
	} {
		if err := os.Setenv(name, value); err != nil {
			return fmt.Errorf("set environment: %w", err)
		}
	}
	return nil
}

// startServers starts etcd, the API server, which asks for etcd until it is
// there, and containerd; while the API server comes up the images are imported.
func (h *holder) startServers(ctx context.Context, api *apiClient) error {
	if _, err := h.start(h.etcd()); err != nil {
		return err
	}
	apiserver, err := h.start(h.apiserver())
	if err != nil {
		return err
	}
	containerd, err := h.start(h.containerd())
	if err != nil {
		return err
	}
	if err := h.await(ctx, containerd, dialContainerd); err != nil {
		return err
	}
	h.reached("containerd")
	for i, archive := range h.images {
		if err := h.importImage(ctx, archive); err != nil {
			return fmt.Errorf("import image %s: %w", h.Images[i], err)
		}
	}
	h.reached("images")
	if err := h.await(ctx, apiserver, api.ready); err != nil {
		return err
	}
	h.reached("API server")
	return nil
}

func dialContainerd(ctx context.Context) error {
	var dialer net.Dialer
	conn, err := dialer.DialContext(ctx, "unix", containerdSocket)
	if err != nil {
		return err
	}
	return conn.Close()
}

// startNode starts the rest and waits for what a first pod needs: a Ready node,
// and what the controllers put into the namespace it is in.
func (h *holder) startNode(ctx context.Context, api *apiClient) error {
	controllers, err := h.start(h.controllerManager())
	if err != nil {
		return err
	}
	if _, err := h.start(h.scheduler()); err != nil {
		return err
	}
	kubelet, err := h.start(h.kubelet())
	if err != nil {
		return err
	}
	if err := h.await(ctx, kubelet, api.nodeReady); err != nil {
		return err
	}
	h.reached("node")
	for _, path := range []string{"serviceaccounts/default", "configmaps/kube-root-ca.crt"} {
		if err := h.await(ctx, controllers, func(ctx context.Context) error {
			return api.get(ctx, "/api/v1/namespaces/default/"+path, nil)
		}); err != nil {
			return err
		}
	}
	return nil
}

// openDoors lets the outside in: the forwarded addresses and commands. The
// Service kubernetes is one more door, for the pods.
func (h *holder) openDoors(ctx context.Context) error {
	for i, listener := range h.listeners {
		h.forward(ctx, listener, h.Forward[i])
	}
	service, err := net.Listen("tcp", net.JoinHostPort(serviceIP, "443"))
	if err != nil {
		return err
	}
	h.forward(ctx, service, APIAddress)
	return h.serveCommands(ctx)
}

// reached tells of a stage on the way to a Ready node.
func (h *holder) reached(stage string) { report(h.report, Report{Stage: stage}) }
