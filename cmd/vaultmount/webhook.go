package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"golang.org/x/sync/errgroup"
	"k8s.io/client-go/rest"
	"k8s.io/klog/v2"

	"github.com/vaultmount/vaultmount/driver/webhook"
	"github.com/vaultmount/vaultmount/driver/webhook/certs"
)

type webhookOptions struct {
	translatorOptions

	certificate   certificateOptions
	address       string
	healthAddress string
	log           logOptions
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
	o.log.addFlags(flags, "0 errors and start, 2 each annotated pod, 4 each request")
}

func (o *webhookOptions) run(ctx context.Context, logs io.Writer) error {
	logger, err := o.log.newLogger(logs)
	if err != nil {
		return err
	}
	ctx = klog.NewContext(ctx, logger)
	translator, err := o.translator()
	if err != nil {
		return usageError{err}
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

// apiTimeout bounds one call to the API server.
const apiTimeout = 10 * time.Second

// certificateOptions say where the certificate comes from.
type certificateOptions struct {
	certFile, keyFile                         string
	secret, namespace, service, configuration string
	extraNames                                []string
}

func (o *certificateOptions) addFlags(flags *pflag.FlagSet) {
	flags.StringVar(&o.certFile, "tls-cert-file", "", "PEM file of the certificate, read again when it changes; empty for a certificate that the webhook creates")
	flags.StringVar(&o.keyFile, "tls-key-file", "", "PEM file of the certificate's key")
	flags.StringVar(&o.secret, "tls-secret", "vaultmount-webhook-tls", "Secret that holds the webhook's own certificate; created if missing")
	flags.StringVar(&o.configuration, "webhook-configuration", "vault-agent-annotations", "MutatingWebhookConfiguration whose caBundle the webhook sets")
	flags.StringVar(&o.service, "service", "vaultmount-webhook", "Service in front of the webhook, for the names in its own certificate")
	flags.StringVar(&o.namespace, "namespace", os.Getenv("POD_NAMESPACE"), "namespace of the Secret and the Service; defaults to $POD_NAMESPACE")
	flags.StringArrayVar(&o.extraNames, "tls-san", nil, "another DNS name or IP address in the webhook's own certificate, for a configuration with a url; repeatable")
}

// source returns the certificate of the files, read once so that a wrong path
// shows at the start; without files, the webhook's own.
func (o *certificateOptions) source(ctx context.Context) (certs.Source, error) {
	if o.certFile == "" && o.keyFile == "" {
		return o.rotator()
	}
	if o.certFile == "" || o.keyFile == "" {
		return nil, errors.New("--tls-cert-file and --tls-key-file belong together; set both or neither")
	}
	files := certs.NewFiles(o.certFile, o.keyFile)
	return files, files.Sync(ctx)
}

func (o *certificateOptions) rotator() (certs.Source, error) {
	for flag, value := range map[string]string{"tls-secret": o.secret, "webhook-configuration": o.configuration, "service": o.service} {
		if value == "" {
			return nil, fmt.Errorf("--%s is empty; omit it for the default", flag)
		}
	}
	if o.namespace == "" {
		return nil, errors.New("--namespace and $POD_NAMESPACE are empty; set one of them")
	}
	config, err := rest.InClusterConfig()
	if err != nil {
		return nil, fmt.Errorf("find the API server, for the webhook's own certificate (not needed with --tls-cert-file): %w", err)
	}
	config.Timeout = apiTimeout
	config.UserAgent = "vaultmount-webhook/" + version
	secrets, configurations, err := certs.NewClients(config, o.namespace)
	if err != nil {
		return nil, err
	}
	name := o.service + "." + o.namespace
	return certs.NewRotator(certs.Options{
		Secrets:        secrets,
		Configurations: configurations,
		Secret:         o.secret,
		Configuration:  o.configuration,
		Names:          append([]string{o.service, name, name + ".svc"}, o.extraNames...),
		Now:            time.Now,
	}), nil
}
