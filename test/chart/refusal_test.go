package chart

import (
	"strings"
	"testing"
)

// What the chart refuses, by its schema or by its templates: the message names the
// value, and says what to write.
func TestRefusedValues(t *testing.T) {
	for _, test := range []struct {
		name, version string // newest by default
		set           []string
		want          []string
	}{
		{name: "no address", set: []string{"vault.address="}, want: []string{"vault.address is missing", "--set vault.address=https://vault.vault.svc:8200"}},
		{name: "address without scheme", set: []string{"vault.address=vault:8200"}, want: []string{`vault.address: "vault:8200" is not a URL`, "like https://vault.vault.svc:8200"}},
		{name: "address with path", set: []string{"vault.address=https://vault:8200/v1"}, want: []string{`vault.address: "https://vault:8200/v1" is not a URL`}},
		{name: "unknown section", set: []string{"drivers.name=x"}, want: []string{"additional properties 'drivers' not allowed"}},
		{name: "misspelt key", set: []string{"driver.volumecapacity=1Gi"}, want: []string{"/driver", "'volumecapacity' not allowed"}},
		{name: "capacity without unit", set: []string{"driver.volumeCapacity=128"}, want: []string{"/driver/volumeCapacity", "want string"}},
		{name: "capacity in decimal units", set: []string{"driver.volumeCapacity=128M"}, want: []string{`driver.volumeCapacity: "128M"`, "like 128Mi"}},
		{name: "capacity with a fraction", set: []string{"driver.volumeCapacity=1.5Gi"}, want: []string{`driver.volumeCapacity: "1.5Gi"`, "like 128Mi"}},
		{name: "no capacity", set: []string{"driver.volumeCapacity=0Mi"}, want: []string{`driver.volumeCapacity: "0Mi"`}},
		{name: "volume beyond the capacity", set: []string{"driver.volumeCapacity=8Mi"}, want: []string{"driver.maxVolumeSize: 16Mi is more than the 8Mi of driver.volumeCapacity"}},
		{name: "volume beyond the share of a namespace", set: []string{"driver.volumeCapacity=31Mi"}, want: []string{"driver.maxVolumeSize: 16Mi is more than the 15872Ki that a namespace may take"}},
		{name: "no share", set: []string{"driver.namespaceShare=0"}, want: []string{"/driver/namespaceShare"}},
		{name: "usual size beyond the largest", set: []string{"driver.volumeSize=1Gi"}, want: []string{"driver.volumeSize: 1Gi is more than the 16Mi of driver.maxVolumeSize"}},
		{name: "port", set: []string{"driver.port=99999"}, want: []string{"/driver/port"}},
		{name: "driver name", set: []string{"driver.name=CSI_"}, want: []string{"/driver/name", "'CSI_'"}},
		{name: "kubelet root", set: []string{"driver.kubeletRoot=/var/lib/kubelet/"}, want: []string{"/driver/kubeletRoot"}},
		{name: "no audience", set: []string{"driver.tokenAudiences=null"}, want: []string{"driver.tokenAudiences is empty", `[vault, ""]`}},
		{name: "interval", set: []string{"driver.staticSecretRenderInterval=5 minutes"}, want: []string{"/driver/staticSecretRenderInterval", "'5 minutes'"}},
		{name: "argument that is none", set: []string{"driver.extraArgs={verbosity=3}"}, want: []string{"/driver/extraArgs/0", "'verbosity=3'"}},
		{name: "allowed address", set: []string{"vault.allowAddresses={vault:8200}"}, want: []string{"/vault/allowAddresses/0", "'vault:8200'"}},
		{name: "prefix without slash", set: []string{"annotationPrefix=vault.hashicorp.com"}, want: []string{"/annotationPrefix", "'vault.hashicorp.com'"}},
		{name: "digest", set: []string{"image.digest=abc"}, want: []string{"/image/digest", "'abc'"}},
		{name: "two CA bundles", set: []string{"vault.ca.configMap=a", "vault.ca.certificate=b"}, want: []string{"vault.ca.certificate and vault.ca.configMap", "set one of them"}},
		{name: "CA certificate as a path", set: []string{"vault.ca.certificate=ca.pem"}, want: []string{"vault.ca.certificate holds no certificate", "--set-file"}},
		{name: "policy mode", set: []string{"policy.enabled=maybe"}, want: []string{"/policy/enabled", "'auto', true, false"}},
		{name: "policy and webhook", set: []string{"policy.enabled=true", "webhook.enabled=true"}, want: []string{"policy.enabled and webhook.enabled are both true", "enable one of them"}},
		{name: "policy where there is none", version: "1.35", set: []string{"policy.enabled=true"}, want: []string{"policy.enabled: Kubernetes v1.35 has no MutatingAdmissionPolicy", "--set webhook.enabled=true"}},
		{name: "fallback", set: []string{"webhook.fallback=ignore"}, want: []string{"/webhook/fallback", "'reject', 'leave-to-injector', 'warn'"}},
		{name: "timeout", set: []string{"webhook.timeoutSeconds=31"}, want: []string{"/webhook/timeoutSeconds"}},
		{name: "low port on the host", set: []string{"webhook.enabled=true", "webhook.hostNetwork=true", "webhook.port=443"}, want: []string{"webhook.port: 443 is below 1024", "webhook.hostNetwork"}},
		{name: "one port twice", set: []string{"webhook.port=8080"}, want: []string{"webhook.port and webhook.healthPort are both 8080"}},
		{name: "issuer without name", set: []string{"webhook.enabled=true", "webhook.certManager.enabled=true", "webhook.certManager.issuerRef.kind=ClusterIssuer"}, want: []string{"webhook.certManager.issuerRef has no name"}},
		{name: "two monitors", set: []string{"monitoring.podMonitor.enabled=true", "monitoring.serviceMonitor.enabled=true"}, want: []string{"monitoring.podMonitor.enabled and monitoring.serviceMonitor.enabled", "enable one of them"}},
		{name: "test without secret", set: []string{"test.role=app"}, want: []string{"test.secret is missing", "such as secret/data/test"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			version := test.version
			if version == "" {
				version = newest
			}
			arguments := []string{address}
			for _, value := range test.set {
				arguments = append(arguments, "--set="+value)
			}
			rendered, err := template(t, version, arguments...)
			if err == nil {
				t.Fatalf("it renders\n%s", rendered)
			}
			for _, want := range test.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("the message lacks %q:\n%v", want, err)
				}
			}
		})
	}
}

// What takes other people's kinds is refused where they are not installed.
func TestMissingOperators(t *testing.T) {
	for value, want := range map[string]string{
		"monitoring.podMonitor.enabled":                    "the cluster has no PodMonitor",
		"monitoring.serviceMonitor.enabled":                "the cluster has no ServiceMonitor",
		"monitoring.rules.enabled":                         "the cluster has no PrometheusRule",
		"webhook.enabled=true,webhook.certManager.enabled": "the cluster has no cert-manager",
	} {
		t.Run(value, func(t *testing.T) {
			_, err := helm(t, "template", "vaultmount", directory, "--kube-version="+newest, address, "--set="+value+"=true")
			if err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "install it first") {
				t.Errorf("the message is %v; want %q", err, want)
			}
		})
	}
}

func TestOlderKubernetesIsRefused(t *testing.T) {
	if _, err := template(t, "1.29", address); err == nil || !strings.Contains(err.Error(), "requires kubeVersion: >=1.30.0-0") {
		t.Errorf("the message is %v", err)
	}
}
