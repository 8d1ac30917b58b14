package chart

import (
	"os/exec"
	"slices"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"

	"github.com/vaultmount/vaultmount/test/rig"
)

// The program takes the arguments that the chart writes: names, and values too.
func TestArgumentsAreTheProgram(t *testing.T) {
	for name, set := range valueSets() {
		t.Run(name, func(t *testing.T) {
			rendered := mustTemplate(t, set[0], set[1:]...)
			requireAccepted(t, driver(t, rendered).Args)
			if strings.Contains(rendered, "\nkind: Deployment\n") {
				requireAccepted(t, object[appsv1.Deployment](t, rendered, "Deployment", "vaultmount-webhook").Spec.Template.Spec.Containers[0].Args)
			}
			for _, test := range []string{"vaultmount-test-driver", "vaultmount-test-volume"} {
				if strings.Contains(rendered, "\n  name: "+test+"\n") {
					requireAccepted(t, object[corev1.Pod](t, rendered, "Pod", test).Spec.Containers[0].Args)
				}
			}
		})
	}
}

// Each value that is an argument is one: with the values named everything, that are
// other than the defaults, all of them are there.
func TestEverythingIsAnArgument(t *testing.T) {
	rendered := mustTemplate(t, newest, values("everything"))
	for _, test := range []struct {
		name string
		args []string
		want []string
	}{
		{"driver", driver(t, rendered).Args, []string{
			"--vault-address=https://vault.example.com", "--vault-ca-file=/etc/vaultmount/bundle.pem", "--volume-capacity=2Gi", "--namespace-share=25", "--volume-size=512Ki", "--max-volume-size=64Mi",
			"--metrics-bind-address=:9808", "--startup-taint=example.com/not-ready", "--driver-name=csi.example.com", "--kubelet-root=/var/snap/kubelet", "--annotation-prefix=openbao.openbao.org/",
			"--allow-address=https://*.example.com:8201", "--allow-address=http://10.0.0.1", "--allow-proxy=http://proxy.example.com:3128", "--forbid-tls-skip-verify", "--forbid-token-file",
			"--static-secret-render-interval=1m30s", "--template-cpu-limit=500ms", "--revoke-on-unpublish=false", "--share-logins=serviceaccount", "--log-format=json", "--allow-unknown-perms", "--allow-quit", "--agent-set-security-context=false", "--verbosity=4", "--host-ip=10.0.0.1",
		}},
		{"webhook", object[appsv1.Deployment](t, rendered, "Deployment", "vaultmount-webhook").Spec.Template.Spec.Containers[0].Args, []string{
			"--vault-address=https://vault.example.com", "--fallback=leave-to-injector", "--annotation-prefix=openbao.openbao.org/", "--driver-name=csi.example.com", "--auth-path=auth/cluster",
			"--default-template=json", "--forbid-tls-skip-verify", "--forbid-token-file", "--allow-unknown-perms", "--allow-quit", "--agent-set-security-context=false", "--webhook-bind-address=:443", "--metrics-bind-address=:9809", "--tls-cert-file=/etc/vaultmount/tls/tls.crt",
			"--tls-key-file=/etc/vaultmount/tls/tls.key", "--verbosity=4", "--log-format=json", "--audience=",
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			for _, want := range test.want {
				if !slices.Contains(test.args, want) {
					t.Errorf("%s is not in %q", want, test.args)
				}
			}
		})
	}
}

// The check itself: it finds a flag that is none, and a value that is none.
func TestArgumentsThatAreRefused(t *testing.T) {
	for _, set := range []string{"driver.extraArgs={--no-such-flag}", "driver.extraArgs={--verbosity=loud}"} {
		if printed, err := accepted(t, driver(t, mustTemplate(t, newest, address, "--set="+set)).Args); err == nil {
			t.Errorf("%s is accepted: %s", set, printed)
		}
	}
}

func requireAccepted(t *testing.T, arguments []string) {
	t.Helper()
	if printed, err := accepted(t, arguments); err != nil {
		t.Errorf("%q: %v\n%s", arguments, err, printed)
	}
}

// accepted has the program parse its arguments and then print its help, as --help at
// their end makes it do.
func accepted(t *testing.T, arguments []string) (string, error) {
	t.Helper()
	printed, err := exec.CommandContext(t.Context(), rig.Program(t), append(slices.Clone(arguments), "--help")...).CombinedOutput()
	return string(printed), err
}
