package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/spf13/pflag"
	"k8s.io/client-go/rest"

	certificate "github.com/vaultmount/vaultmount/driver/webhook/certs"
)

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
func (o *certificateOptions) source(ctx context.Context) (certificate.Source, error) {
	if o.certFile == "" && o.keyFile == "" {
		return o.managed()
	}
	if o.certFile == "" || o.keyFile == "" {
		return nil, errors.New("--tls-cert-file and --tls-key-file belong together; set both or neither")
	}
	files := certificate.NewFiles(o.certFile, o.keyFile)
	return files, files.Sync(ctx)
}

func (o *certificateOptions) managed() (certificate.Source, error) {
	for flag, value := range map[string]string{"tls-secret": o.secret, "webhook-configuration": o.configuration, "service": o.service} {
		if value == "" {
			return nil, fmt.Errorf("--%s is empty; leave it out for the default", flag)
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
	secrets, configurations, err := certificate.NewClients(config, o.namespace)
	if err != nil {
		return nil, err
	}
	name := o.service + "." + o.namespace
	return certificate.NewManaged(certificate.Options{
		Secrets:        secrets,
		Configurations: configurations,
		Secret:         o.secret,
		Configuration:  o.configuration,
		Names:          append([]string{o.service, name, name + ".svc"}, o.extraNames...),
		Now:            time.Now,
	}), nil
}
