package chart

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// The container's memory follows from what its volumes may take: 64 MiB more are
// requested, and 492 MiB more are the limit.
func TestMemoryFollowsFromTheCapacity(t *testing.T) {
	for _, test := range []struct {
		name, request, limit string
		set                  string
	}{
		{name: "default", request: "192Mi", limit: "620Mi"},
		{name: "mebibytes", set: "driver.volumeCapacity=300Mi", request: "364Mi", limit: "792Mi"},
		{name: "gibibytes", set: "driver.volumeCapacity=2Gi", request: "2112Mi", limit: "2540Mi"},
		{name: "kibibytes are rounded up", set: "driver.volumeCapacity=40961Ki", request: "105Mi", limit: "533Mi"},
		{name: "own limit", set: "driver.resources.limits.memory=1Gi", request: "192Mi", limit: "1Gi"},
		{name: "own request", set: "driver.resources.requests.memory=1Gi", request: "1Gi", limit: "620Mi"},
		{name: "limit of something else", set: "driver.resources.limits.cpu=2", request: "192Mi", limit: "620Mi"},
	} {
		t.Run(test.name, func(t *testing.T) {
			arguments := []string{address}
			if test.set != "" {
				arguments = append(arguments, "--set="+test.set)
			}
			resources := driver(t, mustTemplate(t, newest, arguments...)).Resources
			if got := resources.Requests.Memory().String(); !resources.Requests.Memory().Equal(quantity(t, test.request)) {
				t.Errorf("the request is %s; want %s", got, test.request)
			}
			if got := resources.Limits.Memory().String(); !resources.Limits.Memory().Equal(quantity(t, test.limit)) {
				t.Errorf("the limit is %s; want %s", got, test.limit)
			}
			if resources.Requests.Cpu().String() != "10m" {
				t.Errorf("the request of processors is %s", resources.Requests.Cpu())
			}
		})
	}
}

// What the program is told and what it is given are one value.
func TestProgramGetsTheCapacity(t *testing.T) {
	container := driver(t, mustTemplate(t, newest, address, "--set=driver.volumeCapacity=1Gi"))
	if want := "--volume-capacity=1Gi"; !slices.Contains(container.Args, want) {
		t.Errorf("%s is not in %q", want, container.Args)
	}
}

// Rights and tokens are there for what is enabled, and not otherwise.
func TestRights(t *testing.T) {
	for _, test := range []struct {
		events, taint bool
		want          string
	}{
		{want: "[]"},
		{events: true, want: "[{[create patch] [] [events] [] []}]"},
		{taint: true, want: "[{[get patch] [] [nodes] [] []}]"},
		{events: true, taint: true, want: "[{[create patch] [] [events] [] []} {[get patch] [] [nodes] [] []}]"},
	} {
		name := fmt.Sprintf("events %t, taint %t", test.events, test.taint)
		t.Run(name, func(t *testing.T) {
			rendered := mustTemplate(t, oldest, address, fmt.Sprintf("--set=events.enabled=%t,startupTaint.enabled=%t", test.events, test.taint))
			if got := fmt.Sprint(rules(t, rendered)); got != test.want {
				t.Errorf("the driver may %s; want %s", got, test.want)
			}
			mounts := object[appsv1.DaemonSet](t, rendered, "DaemonSet", "vaultmount").Spec.Template.Spec.AutomountServiceAccountToken
			if mounts == nil || *mounts != (test.events || test.taint) {
				t.Errorf("a token is mounted: %v", mounts)
			}
		})
	}
}

func driver(t *testing.T, rendered string) corev1.Container {
	t.Helper()
	containers := object[appsv1.DaemonSet](t, rendered, "DaemonSet", "vaultmount").Spec.Template.Spec.Containers
	if len(containers) != 1 {
		t.Fatalf("the driver's pods have %d containers", len(containers))
	}
	return containers[0]
}

// rules are what the ClusterRole of the driver allows, if there is one.
func rules(t *testing.T, rendered string) []rbacv1.PolicyRule {
	t.Helper()
	if !strings.Contains(rendered, "\nkind: ClusterRole\n") {
		return nil
	}
	return object[rbacv1.ClusterRole](t, rendered, "ClusterRole", "vaultmount").Rules
}

func quantity(t *testing.T, text string) resource.Quantity {
	t.Helper()
	parsed, err := resource.ParseQuantity(text)
	require.NoError(t, err)
	return parsed
}

// A node can be drained whatever the number of replicas, and of several no more than
// one is evicted at a time.
func TestWebhookCanBeEvicted(t *testing.T) {
	for _, replicas := range []int{1, 2, 3} {
		t.Run(fmt.Sprintf("%d replicas", replicas), func(t *testing.T) {
			rendered := mustTemplate(t, oldest, address, "--set=webhook.enabled=true", fmt.Sprintf("--set=webhook.replicas=%d", replicas))
			deployment := object[appsv1.Deployment](t, rendered, "Deployment", "vaultmount-webhook")
			pdb := object[policyv1.PodDisruptionBudget](t, rendered, "PodDisruptionBudget", "vaultmount-webhook").Spec
			if got := evictable(t, pdb, int(*deployment.Spec.Replicas)); got != 1 {
				t.Errorf("of %d pods that are well %d may be evicted, want 1", replicas, got)
			}
			// By default such a pod is evicted only while enough others are well.
			if policy := pdb.UnhealthyPodEvictionPolicy; policy == nil || *policy != policyv1.AlwaysAllow {
				t.Errorf("a pod that is not ready may hold its node up: %v", policy)
			}
		})
	}
}

// evictable is how many of so many pods, all of them well, a PodDisruptionBudget lets go, by the
// rule of Kubernetes' disruption controller.
func evictable(t *testing.T, pdb policyv1.PodDisruptionBudgetSpec, pods int) int {
	t.Helper()
	scaled := func(value *intstr.IntOrString) int {
		count, err := intstr.GetScaledValueFromIntOrPercent(value, pods, true)
		require.NoError(t, err)
		return count
	}
	if pdb.MaxUnavailable != nil {
		return min(scaled(pdb.MaxUnavailable), pods)
	}
	return pods - scaled(pdb.MinAvailable)
}
