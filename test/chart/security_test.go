package chart

import (
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/pod-security-admission/api"
	"k8s.io/pod-security-admission/policy"
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
