// Package cluster brings a one-node Kubernetes up in namespaces of its own, and
// takes it down without leaving a process, mount, network interface or control
// group behind. It runs real Kubernetes programs but installs nothing, pulls no
// image, and needs root.
package cluster

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/vaultmount/vaultmount/test/cluster/internal/holder"
	"github.com/vaultmount/vaultmount/test/cluster/internal/process"
	"github.com/vaultmount/vaultmount/test/parts"
)

// Node and NodeIP are the only node's name and address. Pods on the host's
// network are reached at that address.
const (
	Node   = holder.Node
	NodeIP = holder.NodeIP
)

// Options tell Up what to bring up.
type Options struct {
	Parts         *parts.Parts
	RunDir        string        // for kubeconfig and logs; default: DefaultRunDir
	Images        []string      // archives to import before the node is ready
	Forward       []string      // addresses inside to make reachable, as "10.111.0.1:8200"
	SyncFrequency time.Duration // of the kubelet, so of republishing volumes; default: 5 s
	Timeout       time.Duration // until the node is ready; default: 2 min
	Progress      io.Writer     // one line for each stage; default: none
}

// Cluster is a cluster that is up.
type Cluster struct {
	runDir    string
	forwarded map[string]string
	holder    process.ID
	leash     *os.File      // nil if another process brought the cluster up
	done      chan struct{} // closed when the holder has ended; nil likewise
}

// Kubeconfig is the path of a kubeconfig that works on the host.
func (c *Cluster) Kubeconfig() string { return holder.Kubeconfig(c.runDir) }

// Environment is what to add to a kubectl's environment: its kubeconfig, and a
// cache that goes with the cluster instead of staying in the user's home.
func (c *Cluster) Environment() []string {
	return []string{"KUBECONFIG=" + c.Kubeconfig(), "KUBECACHEDIR=" + filepath.Join(c.runDir, kubectlCache)}
}

// Logs is the directory with one log for each program.
func (c *Cluster) Logs() string { return holder.Logs(c.runDir) }

// RunDir is the run directory.
func (c *Cluster) RunDir() string { return c.runDir }

// Forwarded is the address on the host of an address of Options.Forward, and
// empty for any other.
func (c *Cluster) Forwarded(address string) string { return c.forwarded[address] }

// Done is closed when a cluster this process brought up has ended, by Down or
// because one of its programs did.
func (c *Cluster) Done() <-chan struct{} { return c.done }

// Keep lets the cluster live on when this process ends. Without it the cluster
// ends with the process, whatever ends that.
func (c *Cluster) Keep() error {
	if c.leash == nil {
		return nil
	}
	if _, err := c.leash.Write([]byte{1}); err != nil {
		return fmt.Errorf("keep cluster: %w", err)
	}
	return nil
}

// Down ends the cluster and removes its run directory.
func (c *Cluster) Down(ctx context.Context) error {
	if err := c.end(ctx); err != nil {
		return fmt.Errorf("take down cluster: %w", err)
	}
	return Down(ctx, c.runDir)
}

// end ends the holder and collects it, if it is this process's child.
func (c *Cluster) end(ctx context.Context) error {
	err := endHolder(ctx, c.holder)
	if c.leash == nil || err != nil {
		return err
	}
	<-c.done
	return c.leash.Close()
}
