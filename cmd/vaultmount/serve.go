package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"time"

	"golang.org/x/sync/errgroup"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/klog/v2"

	"github.com/vaultmount/vaultmount/driver"
	apiserver "github.com/vaultmount/vaultmount/driver/kube"
	"github.com/vaultmount/vaultmount/driver/metrics"
)

// stopTimeout is what the processes that run templates get to end.
const stopTimeout = 10 * time.Second

func (o *driverOptions) run(ctx context.Context, logs io.Writer) (err error) {
	if err := forbidDumps(); err != nil {
		return err
	}
	if err := clearVaultEnvironment(); err != nil {
		return err
	}
	// consul-template logs through the global logger, with words of its own choice.
	log.SetOutput(io.Discard)
	logger := newLogger(logs, o.verbosity)
	ctx = klog.NewContext(ctx, logger)
	n, err := o.node(logger)
	if err != nil {
		return err
	}
	o.vault.warn(logger)
	plugin, err := driver.NewPlugin(n.config, o.socket(), n.open, n.metrics)
	if err != nil {
		return err
	}
	n.metrics.RegisterNode(plugin.Numbers)
	// Where templates cannot be confined, none is run.
	if err := n.renderers.Start(ctx); err != nil {
		return err
	}
	defer func() {
		stopping, cancel := context.WithTimeout(context.Background(), stopTimeout)
		defer cancel()
		err = errors.Join(err, n.renderers.Stop(stopping))
	}()
	return o.serve(ctx, n, plugin)
}

func (o *driverOptions) serve(ctx context.Context, n *node, plugin *driver.Plugin) error {
	group, ctx := errgroup.WithContext(ctx)
	if o.listen != "" {
		listener, err := net.Listen("tcp", o.listen)
		if err != nil {
			return fmt.Errorf("--metrics-bind-address: %w", err)
		}
		n.logger.Info("Serving health and metrics", "address", listener.Addr().String())
		routes := metrics.Handler(metrics.Checks{Alive: plugin.Alive, Ready: plugin.Ready}, n.metrics)
		group.Go(func() error { return metrics.Serve(ctx, listener, routes) })
	}
	if o.startupTaint != "" {
		group.Go(func() error { o.untaint(ctx, n, plugin); return nil })
	}
	group.Go(func() error { return plugin.Run(ctx) })
	return group.Wait()
}

// untaint removes the start-up taint as soon as pods with volumes can start here.
// It tries until it succeeds: without it, no pod comes to the node.
func (o *driverOptions) untaint(ctx context.Context, n *node, plugin *driver.Plugin) {
	if plugin.AwaitReady(ctx) != nil {
		return // the process ends
	}
	backoff := wait.Backoff{Duration: time.Second, Factor: 2, Jitter: 0.2, Steps: 6, Cap: time.Minute}
	_ = backoff.DelayFunc().Until(ctx, true, true, func(ctx context.Context) (bool, error) { // ends with ctx at the latest
		err := apiserver.RemoveTaint(ctx, n.api, n.config.NodeName, o.startupTaint)
		if err != nil {
			n.logger.Error(err, "Start-up taint not removed; trying again", "taint", o.startupTaint)
			return false, nil
		}
		n.logger.Info("Start-up taint is not on the node any more", "taint", o.startupTaint)
		return true, nil
	})
}

func (o *driverOptions) socket() string {
	if o.endpoint == "" {
		return driver.DefaultEndpoint(o.kubeletRoot, o.driverName)
	}
	return o.endpoint
}
