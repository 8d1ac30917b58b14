package main

import (
	"strings"
	"testing"

	"github.com/spf13/pflag"

	"github.com/vaultmount/vaultmount/driver/injector"
)

// The driver, the webhook and the command are told alike whose the files are of pods
// that do not say.
func TestSecurityContextFlagChoosesTheOwner(t *testing.T) {
	const flag = "--agent-set-security-context=false"
	settings := map[string]func(t *testing.T, arguments ...string) injector.Translator{
		"driver": func(t *testing.T, arguments ...string) injector.Translator {
			var options driverOptions
			parse(t, options.addFlags, append(arguments, "--node-name=n", "--vault-address=https://vault:8200")...)
			config, err := options.config()
			if err != nil {
				t.Fatal(err)
			}
			return config.Annotations
		},
		"webhook": func(t *testing.T, arguments ...string) injector.Translator {
			var options webhookOptions
			parse(t, options.addFlags, arguments...)
			translator, err := options.translator()
			if err != nil {
				t.Fatal(err)
			}
			return translator
		},
	}
	for name, settings := range settings {
		t.Run(name, func(t *testing.T) {
			if settings(t).NoSecurityContext {
				t.Error("by default files are the pod's user's")
			}
			if !settings(t, flag).NoSecurityContext {
				t.Errorf("%s changes nothing", flag)
			}
		})
	}
	t.Run("translate", func(t *testing.T) {
		pod := strings.Replace(askingPod, "spec: {", "spec: {securityContext: {runAsUser: 5000}, ", 1)
		for want, arguments := range map[string][]string{`uid: "100"`: nil, `uid: "5000"`: {flag}} {
			if stdout, _, err := runTranslate(t, pod, append(arguments, "-f", "-")...); err != nil || !strings.Contains(stdout, want) {
				t.Errorf("%v: %v: %s is not in\n%s", arguments, err, want, stdout)
			}
		}
	})
}

func parse(t *testing.T, addFlags func(*pflag.FlagSet), arguments ...string) {
	t.Helper()
	flags := pflag.NewFlagSet("test", pflag.ContinueOnError)
	addFlags(flags)
	if err := flags.Parse(arguments); err != nil {
		t.Fatal(err)
	}
}
