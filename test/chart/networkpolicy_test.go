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
		{"proxy that volumes may name", "vault.address=https://vault.example.com,vault.allowProxies={http://proxy.example.com:3128}", []int32{443, 3128}},
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

// Metrics name pods and namespaces, so not every pod of the cluster may read them.
func TestNetworkPolicyLetsTheMonitoringReadMetrics(t *testing.T) {
	for _, test := range []struct {
		name, argument string
		want           []string
	}{
		{"default", address, []string{"monitoring"}},
		{"another namespace", `--set=networkPolicy.metrics[0].namespaceSelector.matchLabels.kubernetes\.io/metadata\.name=prometheus`, []string{"prometheus"}},
		{"anyone", "--set-json=networkPolicy.metrics=[]", nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			rendered := mustTemplate(t, oldest, address, "--set=webhook.enabled=true", test.argument)
			for policy, port := range map[string]string{"vaultmount": "metrics", "vaultmount-webhook": "health"} {
				if got := mayReach(t, object[networkingv1.NetworkPolicy](t, rendered, "NetworkPolicy", policy).Spec, port); !slices.Equal(got, test.want) {
					t.Errorf("%s is reached by the namespaces %q, want %q", policy, got, test.want)
				}
			}
		})
	}
}

// mayReach are the namespaces that a policy lets in at a port, none for all of them.
func mayReach(t *testing.T, spec networkingv1.NetworkPolicySpec, port string) []string {
	t.Helper()
	for _, rule := range spec.Ingress {
		if rule.Ports[0].Port.String() != port {
			continue
		}
		var names []string
		for _, peer := range rule.From {
			names = append(names, peer.NamespaceSelector.MatchLabels[corev1.LabelMetadataName])
		}
		return names
	}
	t.Fatalf("no rule for port %s", port)
	return nil
}

// networkPolicy is the driver's, which is there unless somebody turns it off.
func networkPolicy(t *testing.T, set string) networkingv1.NetworkPolicySpec {
	t.Helper()
	rendered := mustTemplate(t, oldest, "--set="+set)
	return object[networkingv1.NetworkPolicy](t, rendered, "NetworkPolicy", "vaultmount").Spec
}
