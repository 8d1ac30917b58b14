package chart

import (
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
)

// Most network plugins hold a policy against the port of the pod behind a Service, so
// that the Service's own port, which addresses have, is not enough.
func TestNetworkPolicyLetsVaultBeReached(t *testing.T) {
	for _, test := range []struct {
		name, set string
		want      []int32
	}{
		{"Service at its pods' port", "vault.address=https://vault.vault.svc:8200", []int32{8200}},
		{"Service at another port", "vault.address=https://vault.vault.svc", []int32{443, 8200}},
		{"Service by its full name", "vault.address=http://vault.vault.svc.cluster.local", []int32{80, 8200}},
		{"Service of the own namespace", "vault.address=https://vault:443", []int32{443, 8200}},
		{"outside the cluster", "vault.address=https://vault.example.com", []int32{443}},
		{"by address", "vault.address=https://10.0.0.1:8201", []int32{8201}},
		{"by address of IPv6", "vault.address=https://[fd00::1]", []int32{443}},
		{"name that begins like a Service's", "vault.address=https://vault.svcs.example.com", []int32{443}},
		{"Service that volumes may name", "vault.address=https://vault.example.com,vault.allowAddresses={https://vault.shop.svc}", []int32{443, 8200}},
		{"ports that are said", "vault.address=https://vault.vault.svc,networkPolicy.vaultPorts={8300,8301}", []int32{8300, 8301}},
	} {
		t.Run(test.name, func(t *testing.T) {
			egress := networkPolicy(t, test.set).Egress
			var got []int32
			for _, port := range egress[1].Ports {
				got = append(got, port.Port.IntVal)
			}
			if !slices.Equal(got, test.want) {
				t.Errorf("Vault may be asked at %d, want %d", got, test.want)
			}
		})
	}
}

// CoreDNS listens at 53, OpenShift's DNS at 5353 behind a Service with port 53.
func TestNetworkPolicyLetsDNSBeReached(t *testing.T) {
	ports := networkPolicy(t, "vault.address=https://vault.vault.svc:8200").Egress[0].Ports
	for _, want := range []int32{53, 5353} {
		for _, protocol := range []corev1.Protocol{corev1.ProtocolUDP, corev1.ProtocolTCP} {
			if !slices.ContainsFunc(ports, func(p networkingv1.NetworkPolicyPort) bool { return *p.Protocol == protocol && p.Port.IntVal == want }) {
				t.Errorf("DNS may not be asked at %d/%s", want, strings.ToLower(string(protocol)))
			}
		}
	}
}

// networkPolicy is the driver's.
func networkPolicy(t *testing.T, set string) networkingv1.NetworkPolicySpec {
	t.Helper()
	rendered := mustTemplate(t, oldest, "--set=networkPolicy.enabled=true", "--set="+set)
	return object[networkingv1.NetworkPolicy](t, rendered, "NetworkPolicy", "vaultmount").Spec
}
