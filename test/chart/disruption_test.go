package chart

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"
	appsv1 "k8s.io/api/apps/v1"
	policyv1 "k8s.io/api/policy/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

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
