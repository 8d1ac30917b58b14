package chart

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/pod-security-admission/api"
	"k8s.io/pod-security-admission/policy"
	"sigs.k8s.io/yaml"
)

// The levels that Kubernetes itself finds the pods to be of.
func TestPodSecurity(t *testing.T) {
	webhook := func(set ...string) corev1.PodTemplateSpec {
		arguments := []string{address, "--set=webhook.enabled=true"}
		for _, value := range set {
			arguments = append(arguments, "--set="+value)
		}
		return object[appsv1.Deployment](t, mustTemplate(t, newest, arguments...), "Deployment", "vaultmount-webhook").Spec.Template
	}
	volumeTest := func(set string) corev1.PodTemplateSpec {
		pod := object[corev1.Pod](t, mustTemplate(t, newest, address, "--set=test.role=a,test.secret=b"+set), "Pod", "vaultmount-test-volume")
		return corev1.PodTemplateSpec{ObjectMeta: pod.ObjectMeta, Spec: pod.Spec}
	}
	for _, test := range []struct {
		name  string
		pod   corev1.PodTemplateSpec
		level api.Level
	}{
		{"webhook", webhook(), api.LevelRestricted},
		{"webhook at a low port", webhook("webhook.port=443"), api.LevelRestricted},
		{"webhook with cert-manager", webhook("webhook.certManager.enabled=true"), api.LevelRestricted},
		{"webhook on OpenShift", webhook("openshift.enabled=true"), api.LevelRestricted},
		{"webhook on the host's network", webhook("webhook.hostNetwork=true"), api.LevelPrivileged},
		{"test of a volume", volumeTest(""), api.LevelRestricted},
		{"test of a volume on OpenShift", volumeTest(",openshift.enabled=true"), api.LevelRestricted},
		{"driver", object[appsv1.DaemonSet](t, mustTemplate(t, newest, address), "DaemonSet", "vaultmount").Spec.Template, api.LevelPrivileged},
	} {
		t.Run(test.name, func(t *testing.T) {
			if got, why := level(t, test.pod); got != test.level {
				t.Errorf("the level is %s, want %s: %s", got, test.level, why)
			}
		})
	}
}

// level is the strictest one that admits a pod, and what the next stricter one says.
func level(t *testing.T, pod corev1.PodTemplateSpec) (api.Level, string) {
	t.Helper()
	evaluator, err := policy.NewEvaluator(policy.DefaultChecks(), nil)
	require.NoError(t, err)
	why := ""
	for _, level := range []api.Level{api.LevelRestricted, api.LevelBaseline, api.LevelPrivileged} {
		results := evaluator.EvaluatePod(api.LevelVersion{Level: level, Version: api.LatestVersion()}, &pod.ObjectMeta, &pod.Spec)
		result := policy.AggregateCheckResults(results)
		if result.Allowed {
			return level, why
		}
		why = strings.TrimSpace(result.ForbiddenDetail())
	}
	t.Fatalf("no level admits the pod: %s", why)
	return "", ""
}

// OpenShift's namespaces have users of their own, and refuse others.
func TestOpenShiftChoosesTheUser(t *testing.T) {
	rendered := mustTemplate(t, oldest, address, "--values="+directory+"/values-openshift.yaml")
	context := object[appsv1.Deployment](t, rendered, "Deployment", "vaultmount-webhook").Spec.Template.Spec.SecurityContext
	if context.RunAsUser != nil || context.RunAsGroup != nil || context.RunAsNonRoot == nil || !*context.RunAsNonRoot {
		t.Errorf("the webhook's user is %v:%v", context.RunAsUser, context.RunAsGroup)
	}
}

// There files belong to the pod's user, as with the injector: all that translate are
// told, and the policy has the driver told who that is.
func TestOpenShiftGivesFilesToThePodsUser(t *testing.T) {
	openShift := "--values=" + directory + "/values-openshift.yaml"
	for _, test := range []struct {
		name, version string
		set           []string
		want          bool
	}{
		{"elsewhere, by webhook", oldest, []string{"--set=webhook.enabled=true"}, false},
		{"elsewhere, by policy", newest, nil, false},
		{"elsewhere, if wanted", newest, []string{"--set=agentSetSecurityContext=false"}, true},
		{"OpenShift, by webhook", oldest, []string{openShift}, true},
		{"OpenShift, by policy", newest, []string{openShift, "--set=webhook.enabled=false"}, true},
		{"OpenShift, unless unwanted", newest, []string{openShift, "--set=webhook.enabled=false,agentSetSecurityContext=true"}, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			rendered := mustTemplate(t, test.version, append([]string{address}, test.set...)...)
			got := map[string]bool{"the driver": slices.Contains(driver(t, rendered).Args, "--agent-set-security-context=false")}
			if strings.Contains(rendered, "\nkind: Deployment\n") {
				webhook := object[appsv1.Deployment](t, rendered, "Deployment", "vaultmount-webhook").Spec.Template.Spec.Containers[0]
				got["the webhook"] = slices.Contains(webhook.Args, "--agent-set-security-context=false")
			} else {
				got["the policy"] = strings.Contains(rendered, "\n  name: vaultmount-identities\n")
			}
			for who, told := range got {
				if told != test.want {
					t.Errorf("%s gives files to the pod's user: %t, want %t", who, told, test.want)
				}
			}
			if len(got) != 2 {
				t.Errorf("only %v", got)
			}
		})
	}
}

// A driver that is taken over must not have the kubelet's certificates and the
// sockets of other plugins. So it sees three directories of the kubelet, and no more.
func TestDriverSeesItsOwnPartOfTheKubeletsDirectory(t *testing.T) {
	for _, test := range []struct{ name, set, root, driver string }{
		{name: "default", set: "driver.verbosity=2", root: "/var/lib/kubelet", driver: "csi.vaultmount.dev"},
		{name: "another root and name", set: "driver.kubeletRoot=/data/kubelet,driver.name=csi.example.com", root: "/data/kubelet", driver: "csi.example.com"},
	} {
		t.Run(test.name, func(t *testing.T) {
			pod := object[appsv1.DaemonSet](t, mustTemplate(t, newest, address, "--set="+test.set), "DaemonSet", "vaultmount").Spec.Template.Spec
			want := []string{
				test.root + "/pods Bidirectional",
				test.root + "/plugins/" + test.driver + " Bidirectional",
				test.root + "/plugins_registry None",
			}
			if got := hostPaths(t, pod); !slices.Equal(got, want) {
				t.Errorf("of the host the driver sees %q, want %q", got, want)
			}
		})
	}
}

// hostPaths are the mounts of the host's directories, with their propagation. Each
// has the path that it has on the host: what the kubelet says goes for both.
func hostPaths(t *testing.T, pod corev1.PodSpec) []string {
	t.Helper()
	var found []string
	for _, volume := range pod.Volumes {
		if volume.HostPath == nil {
			continue
		}
		for _, mount := range pod.Containers[0].VolumeMounts {
			if mount.Name != volume.Name {
				continue
			}
			if mount.MountPath != volume.HostPath.Path {
				t.Errorf("%s of the host is mounted at %s", volume.HostPath.Path, mount.MountPath)
			}
			propagation := corev1.MountPropagationNone
			if mount.MountPropagation != nil {
				propagation = *mount.MountPropagation
			}
			found = append(found, fmt.Sprintf("%s %s", mount.MountPath, propagation))
		}
	}
	return found
}

// What tenants make the driver and the webhook do is bounded in CPU as well.
func TestContainersHaveCPULimits(t *testing.T) {
	rendered := mustTemplate(t, newest, address, "--set=webhook.enabled=true")
	webhook := object[appsv1.Deployment](t, rendered, "Deployment", "vaultmount-webhook").Spec.Template.Spec.Containers[0]
	for name, container := range map[string]corev1.Container{"driver": driver(t, rendered), "webhook": webhook} {
		if container.Resources.Limits.Cpu().IsZero() {
			t.Errorf("the %s has no CPU limit", name)
		}
	}
}

// An upgrade may change the webhook's own certificate for one of cert-manager, and
// back: Helm refuses a Secret that cert-manager has made, and the one that it has made
// itself it deletes at the end.
func TestCertificatesShareNoSecret(t *testing.T) {
	own := mustTemplate(t, oldest, address, "--set=webhook.enabled=true")
	object[corev1.Secret](t, own, "Secret", "vaultmount-webhook-tls")
	managed := mustTemplate(t, oldest, address, "--set=webhook.enabled=true,webhook.certManager.enabled=true")
	secrets := certificateSecrets(t, managed)
	if len(secrets) != 2 {
		t.Fatalf("cert-manager makes the Secrets %q, want one for the CA and one for the webhook", secrets)
	}
	for certificate, secret := range secrets {
		if secret == "vaultmount-webhook-tls" {
			t.Errorf("the Certificate %s is kept in the Secret of the webhook's own", certificate)
		}
	}
	volume := object[appsv1.Deployment](t, managed, "Deployment", "vaultmount-webhook").Spec.Template.Spec.Volumes[0]
	if want := secrets["vaultmount-webhook"]; volume.Secret.SecretName != want {
		t.Errorf("the webhook mounts the Secret %s, want %s of its Certificate", volume.Secret.SecretName, want)
	}
}

// certificateSecrets are the Secrets of cert-manager's Certificates, by their names.
func certificateSecrets(t *testing.T, rendered string) map[string]string {
	t.Helper()
	secrets := map[string]string{}
	for _, document := range documents(rendered) {
		if !strings.Contains(document, "\nkind: Certificate\n") {
			continue
		}
		var certificate struct {
			Metadata struct{ Name string }
			Spec     struct{ SecretName string }
		}
		require.NoError(t, yaml.Unmarshal([]byte(document), &certificate))
		secrets[certificate.Metadata.Name] = certificate.Spec.SecretName
	}
	return secrets
}
