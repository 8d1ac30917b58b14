package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"golang.org/x/sync/errgroup"
	"k8s.io/klog/v2"

	"github.com/vaultmount/vaultmount/driver/webhook"
	"github.com/vaultmount/vaultmount/driver/webhook/certs"
)

type webhookOptions struct {
	translatorOptions

	certificate   certificateOptions
	address       string
	healthAddress string
	verbosity     int
}

func newWebhookCommand() *cobra.Command {
	var options webhookOptions
	command := &cobra.Command{
		Use:   "webhook",
		Short: "Translate the Vault Agent Injector's annotations of new pods (what the Deployment runs)",
		Long: `Translate the Vault Agent Injector's annotations of new pods. The API server sends
reviews to POST /mutate over TLS. /healthz, /readyz and /metrics have an address
of their own, without TLS.

By default the webhook creates its certificate, keeps it in a Secret, renews it,
and sets the caBundle of the MutatingWebhookConfiguration. With --tls-cert-file
whoever issues the files, for example cert-manager, must also set the caBundle.`,
		Args: cobra.NoArgs,
		RunE: func(command *cobra.Command, _ []string) error {
			return options.run(command.Context(), command.ErrOrStderr())
		},
	}
	options.addFlags(command.Flags())
	return command
}

func (o *webhookOptions) addFlags(flags *pflag.FlagSet) {
	flags.SortFlags = false
	o.translatorOptions.addFlags(flags)
	o.certificate.addFlags(flags)
	flags.StringVar(&o.address, "webhook-bind-address", ":8443", "address to serve reviews at")
	flags.StringVar(&o.healthAddress, "metrics-bind-address", ":8080", "address to serve /healthz, /readyz and /metrics at")
	flags.IntVarP(&o.verbosity, "verbosity", "v", 2, "log verbosity: 0 errors and start, 2 each annotated pod, 4 each request")
}

func (o *webhookOptions) run(ctx context.Context, logs io.Writer) error {
	logger := newLogger(logs, o.verbosity)
	ctx = klog.NewContext(ctx, logger)
	translator, err := o.translator()
	if err != nil {
		return err
	}
	limitMemory(logger)
	source, err := o.certificate.source(ctx)
	if err != nil {
		return err
	}
	reviews, err := net.Listen("tcp", o.address)
	if err != nil {
		return fmt.Errorf("--webhook-bind-address: %w", err)
	}
	health, err := net.Listen("tcp", o.healthAddress)
	if err != nil {
		return errors.Join(fmt.Errorf("--metrics-bind-address: %w", err), reviews.Close())
	}
	metrics := webhook.NewMetrics(source)
	server := &webhook.Server{
		Handler:     webhook.NewHandler(webhook.Reviewer{Translator: translator}, metrics),
		Certificate: source,
		Now:         time.Now,
	}
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return server.Serve(ctx, reviews, health) })
	group.Go(func() error {
		certs.Keep(ctx, source, func(err error) {
			metrics.SyncedCertificate(err)
			if err != nil && ctx.Err() == nil {
				logger.Error(err, "Certificate not up to date")
			}
		})
		return nil
	})
	return group.Wait()
}
