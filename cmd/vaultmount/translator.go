package main

import (
	"fmt"
	"net/url"
	"slices"
	"strings"

	"github.com/spf13/pflag"

	"github.com/vaultmount/vaultmount/driver/injector"
	"github.com/vaultmount/vaultmount/driver/volume"
)

// translatorOptions are the settings of a translation. The webhook and the command
// have the same, so that what CI says of a manifest holds in the cluster.
type translatorOptions struct {
	settings injector.Translator
	fallback string
	format   string

	setSecurityContext bool
}

// addSecurityContextFlag is for the driver as well, which translates volumes that
// hold annotations.
func addSecurityContextFlag(flags *pflag.FlagSet, value *bool) {
	flags.BoolVar(value, "agent-set-security-context", true, "default of the annotation: true for files owned by 100:1000, false for files owned by the pod's user, as the injector does on OpenShift")
}

func (o *translatorOptions) addFlags(flags *pflag.FlagSet) {
	flags.StringVar(&o.settings.Prefix, "annotation-prefix", injector.DefaultPrefix, "prefix of the annotations, with the slash")
	flags.StringVar(&o.settings.Driver, "driver-name", injector.DefaultDriver, "name of the CSIDriver object")
	flags.StringVar(&o.fallback, "fallback", string(injector.FallbackReject), "what to do with a pod that cannot be translated in full: reject, leave-to-injector, or warn")
	flags.StringVar(&o.settings.Address, "vault-address", "", "URL of the driver's Vault; pods that name the same URL get no address attribute")
	flags.StringVar(&o.settings.AuthPath, "auth-path", "", "auth-path for pods without one; empty means auth/kubernetes")
	flags.StringVar(&o.format, "default-template", string(volume.Map), "built-in template for pods without one: map or json")
	flags.StringArrayVar(&o.settings.Audiences, "audience", nil, "audience in the CSIDriver's tokenRequests, empty for the API server's; repeatable; other audiences are refused; without the flag the driver decides when the pod starts")
	flags.BoolVar(&o.settings.ForbidSkipVerify, "forbid-tls-skip-verify", false, "refuse tls-skip-verify; set it if the driver has the same flag")
	flags.BoolVar(&o.settings.ForbidToken, "forbid-token-file", false, "refuse agent-inject-token; set it if the driver has the same flag")
	flags.BoolVar(&o.settings.AllowQuit, "allow-quit", false, "warn about agent-enable-quit instead of refusing it")
	flags.BoolVar(&o.settings.AllowUnknownPerms, "allow-unknown-perms", false, "warn about agent-inject-perms-X without a file X instead of refusing it")
	addSecurityContextFlag(flags, &o.setSecurityContext)
}

func (o *translatorOptions) translator() (injector.Translator, error) {
	settings := o.settings
	settings.NoSecurityContext = !o.setSecurityContext
	settings.Fallback = injector.Fallback(o.fallback)
	known := []injector.Fallback{injector.FallbackReject, injector.FallbackLeave, injector.FallbackWarn}
	if !slices.Contains(known, settings.Fallback) {
		return settings, fmt.Errorf("--fallback %q is unknown; use one of %q", o.fallback, known)
	}
	settings.DefaultTemplate = volume.Format(o.format)
	if formats := []volume.Format{volume.Map, volume.JSON}; !slices.Contains(formats, settings.DefaultTemplate) {
		return settings, fmt.Errorf("--default-template %q is unknown; use one of %q", o.format, formats)
	}
	if name, ok := strings.CutSuffix(settings.Prefix, "/"); !ok || name == "" || strings.Contains(name, "/") {
		return settings, fmt.Errorf("--annotation-prefix %q is not a prefix of annotations; write it like %s", settings.Prefix, injector.DefaultPrefix)
	}
	if settings.Driver == "" {
		return settings, fmt.Errorf("--driver-name is empty; omit it for %s", injector.DefaultDriver)
	}
	if address := settings.Address; address != "" {
		parsed, err := url.Parse(address)
		if err != nil || parsed.Host == "" || parsed.Scheme != "https" && parsed.Scheme != "http" {
			return settings, fmt.Errorf("--vault-address %q is not a URL; write it like https://vault.vault.svc:8200", address)
		}
	}
	if settings.AuthPath != "" {
		// The driver's own parser judges, here and not at each pod.
		if _, err := volume.Parse(map[string]string{"role": "any", "secret/any": "any", "auth-path": settings.AuthPath}); err != nil {
			return settings, fmt.Errorf("--auth-path: %w", err)
		}
	}
	return settings, nil
}
