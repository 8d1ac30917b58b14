package chart

import (
	"strings"
	"testing"
)

// TestManifests renders the manifests for kubectl from the chart. With -update, as
// make manifests runs it, it writes them.
func TestManifests(t *testing.T) {
	for _, manifest := range manifests() {
		t.Run(manifest.path, func(t *testing.T) {
			arguments := []string{address}
			for _, template := range manifest.templates {
				arguments = append(arguments, "--show-only=templates/"+template+".yaml")
			}
			rendered := mustTemplate(t, manifest.version, append(arguments, manifest.values...)...)
			compare(t, deploy+"/"+manifest.path, manifest.head+strings.Join(documents(rendered), "---\n"))
		})
	}
}

// manifest is one file, and how the chart makes it.
type manifest struct {
	path      string
	version   string // of Kubernetes; the oldest, so that the file is for all
	values    []string
	templates []string // in the order of the file
	head      string
}

func manifests() []manifest {
	const made = "# Made from the chart by make manifests.\n"
	webhook := []string{"--set=webhook.enabled=true"}
	certManager := append(webhook, "--set=webhook.certManager.enabled=true")
	return []manifest{{
		path:      "vaultmount.yaml",
		version:   oldest,
		values:    []string{"--set=namespace.create=true", "--set=networkPolicy.vaultPorts={443,8200}"},
		templates: []string{"namespace", "csidriver", "rbac", "daemonset", "networkpolicy"},
		head: `# vaultmount for one cluster: kubectl apply -f vaultmount.yaml
# Set --vault-address below first. If Vault has another port than 443 or 8200, or
# Prometheus is not in the namespace monitoring, change the NetworkPolicy too.
` + made,
	}, {
		path:      "policy/mutating.yaml",
		version:   newest,
		templates: []string{"policy"},
		head: `# Gives pods with the Vault Agent Injector's annotations their volumes, in the API
# server itself: no pod, no certificate, nothing that could be down. Kubernetes 1.36
# and later. The annotations go into the volumes as they are; the driver translates
# them, with the code that the webhook runs. README.md says what differs.
#
# For another prefix or driver name, change them in matchConditions and in the first
# variables, in ../guard/guard.yaml, and in the driver's flags --annotation-prefix
# and --driver-name. The expressions compute what driver/injector computes of mounts,
# containers and Secrets; a test holds the two together, pod by pod.
` + made,
	}, {
		path:      "guard/guard.yaml",
		version:   oldest,
		values:    []string{"--set=guard.enabled=true"},
		templates: []string{"guard"},
		head: `# Rejects a pod that asks for secrets by the Vault Agent Injector's annotations and
# that nothing has translated: the pod would start without them, and nobody would
# know. It belongs beside whatever translates: the policy of ../policy, vaultmount's
# webhook, or the injector. Kubernetes 1.30 and later.
#
# It runs after all that changes pods. A pod has been translated if it has a volume
# of the driver or a container of the Vault Agent. So a pod that the webhook leaves to
# the injector (fallback leave-to-injector) passes where the injector runs, and is
# rejected where it does not. The API server acts on a new policy after up to a few
# seconds, and on the guard perhaps first: until then annotated pods are rejected, and
# controllers try again.
#
# It also rejects a pod with a volume of the driver that is not read-only.
#
# For another prefix or driver name, change them in the expressions.
` + made,
	}, {
		path:      "webhook/webhook.yaml",
		version:   oldest,
		values:    webhook,
		templates: []string{"webhook-rbac", "webhook", "webhook-networkpolicy"},
		head: `# The webhook that translates the Vault Agent Injector's annotations. It needs the
# driver (../vaultmount.yaml), and Kubernetes 1.30 or newer.
` + made,
	}, {
		path:      "webhook/configuration.yaml",
		version:   oldest,
		values:    webhook,
		templates: []string{"webhook-configuration"},
		head:      configurationHead + made,
	}, {
		path:      "webhook-cert-manager/webhook.yaml",
		version:   oldest,
		values:    certManager,
		templates: []string{"webhook-rbac", "webhook", "webhook-networkpolicy"},
		head: `# The webhook with a certificate of cert-manager in place of its own. It then needs
# no permission at all.
` + made,
	}, {
		path:      "webhook-cert-manager/configuration.yaml",
		version:   oldest,
		values:    certManager,
		templates: []string{"webhook-configuration"},
		head:      configurationHead + made,
	}, {
		path:      "webhook-cert-manager/certificate.yaml",
		version:   oldest,
		values:    certManager,
		templates: []string{"webhook-certificate"},
		head:      made,
	}}
}

const configurationHead = `# Which objects the API server asks the webhook about.
#
# The API server asks in the order of the configurations' names. This one sorts before
# vault-agent-injector-cfg: a pod comes here first, and an injector that runs beside
# leaves alone what is done. Where the injector's release has another name, keep it
# so, and tell the webhook (--webhook-configuration) and its ClusterRole.
`
