package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"k8s.io/klog/v2"

	admission "github.com/vaultmount/vaultmount/driver/webhook"
	certificate "github.com/vaultmount/vaultmount/driver/webhook/certs"
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
		Short: "Translate the Vault Agent Injector's annotations of pods as they are made (what the Deployment runs)",
		Long: `Translate the Vault Agent Injector's annotations of pods as they are made. The
API server asks at POST /mutate, over TLS; /healthz, /readyz and /metrics are
served apart, without TLS.

The certificate is the webhook's own: it is kept in a Secret, renewed, and put
into the MutatingWebhookConfiguration. Or it comes in files, from cert-manager
for example, and who makes them sees to the configuration.`,
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
	flags.IntVarP(&o.verbosity, "verbosity", "v", 2, "log verbosity: 0 errors and start, 2 each pod that asks, 4 each request")
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
	metrics := admission.NewMetrics(source)
	server := &admission.Server{
		Handler:     admission.NewHandler(admission.Reviewer{Translator: translator}, metrics),
		Certificate: source,
		Now:         time.Now,
	}
	keeping, stop := context.WithCancel(ctx)
	var kept sync.WaitGroup
	kept.Go(func() {
		certificate.Keep(keeping, source, func(err error) {
			metrics.SyncedCertificate(err)
			if err != nil && keeping.Err() == nil {
				logger.Error(err, "Certificate not up to date")
			}
		})
	})
	err = server.Serve(ctx, reviews, health)
	stop()
	kept.Wait()
	return err
}
