package injector

import (
	"slices"
	"strings"

	"github.com/vaultmount/vaultmount/driver/volume"
)

// Level says how close a translated pod comes to an injected one.
type Level string

// The support levels.
const (
	Supported Level = "supported" // the same effect
	Mapped    Level = "mapped"    // the same purpose, by means of the driver
	Ignored   Level = "ignored"   // no meaning without an agent
	Rejected  Level = "rejected"
)

// row is one annotation of the table.
type row struct {
	// name ends in -X for a file and in -Y for a setting: such a row is a
	// family, one annotation for each of them.
	name  string
	level Level
	// parse returns the value in its usual form, or an error for a value that the
	// injector rejects too. It is nil where any value is right, or the driver's parser
	// checks it.
	parse func(value string) (string, error)
	// noop are values that state a default: they change nothing and need no diagnostic.
	noop []string
	// attribute is set to the value, or note is reported, or handle does what the value
	// needs. Without any of the three, other code reads the annotation together with
	// related ones.
	attribute string
	note      string
	handle    func(t *translation, name, value string)
}

// Annotations that other code reads by name.
const (
	nameInject             = "agent-inject"
	nameStatus             = "agent-inject-status"
	nameContainers         = "agent-inject-containers"
	nameVolumePath         = "secret-volume-path"
	nameDefaultTemplate    = "agent-inject-default-template"
	namePreserveCase       = "preserve-secret-case"
	nameShareProcesses     = "agent-share-process-namespace"
	nameConfigMap          = "agent-configmap"
	nameToken              = "agent-inject-token"
	nameRole               = "role"
	nameAuthType           = "auth-type"
	nameAuthPath           = "auth-path"
	nameTokenVolume        = "agent-service-account-token-volume-name"
	nameSkipVerify         = "tls-skip-verify"
	nameTLSSecret          = "tls-secret"
	nameCACert             = "ca-cert"
	nameClientCert         = "client-cert"
	nameClientKey          = "client-key"
	namePrePopulate        = "agent-pre-populate"
	namePrePopulateOnly    = "agent-pre-populate-only"
	nameRunAsUser          = "agent-run-as-user"
	nameRunAsGroup         = "agent-run-as-group"
	nameRunAsSameUser      = "agent-run-as-same-user"
	nameSetSecurityContext = "agent-set-security-context"
	nameExtraSecret        = "agent-extra-secret"
	nameCopyMounts         = "agent-copy-volume-mounts"
	namePatch              = "agent-json-patch"
	nameInitPatch          = "agent-init-json-patch"

	familySecret       = "agent-inject-secret-"
	familyTemplate     = "agent-inject-template-"
	familyTemplateFile = "agent-inject-template-file-"
	familyFile         = "agent-inject-file-"
	familyPerms        = "agent-inject-perms-"
	familyCommand      = "agent-inject-command-"
	familyMissingKey   = "error-on-missing-key-"
	familyLeftDelim    = "agent-template-left-delim-"
	familyRightDelim   = "agent-template-right-delim-"
	familyVolumePath   = "secret-volume-path-"
	familyPreserveCase = "preserve-secret-case-"
	familyAuthConfig   = "auth-config-"
	familyTelemetry    = "agent-telemetry-"
)

// annotationTable are all annotations that the injector reads, in the order of its
// documentation. README.md has a line for each, which a test compares with this table.
func annotationTable() []row {
	return slices.Concat(podRows(), fileRows(), loginRows(), connectionRows(), renderingRows(), ownerRows(), agentRows())
}

// Why an annotation has no effect.
const (
	noAgent     = "has no effect: there is no agent container in the pod; remove it"
	noCache     = "has no effect: there is no agent in the pod and so no cache; remove it"
	noResources = "has no effect: the pod has no agent container, which also lowers what ResourceQuota and LimitRange count; remove it"
	noLog       = "has no effect: the driver's log has one setting for the cluster; remove it"
	noMounts    = "has no effect: there is no agent container to copy mounts into; remove it"
	failedLogin = "a failed login keeps the pod from starting, and the kubelet tries again; remove it"
	lateRevoke  = "has no effect: the Vault token is revoked after the containers have ended; remove it"
	sharedPool  = "has no effect: the driver's connections serve all pods of the node; remove it"
	ownMetrics  = "has no effect: the driver has its own metrics; remove it"
)

// podRows are about the pod.
func podRows() []row {
	empty := []string{""}
	return []row{
		{name: nameInject, level: Supported},
		{name: nameStatus, level: Supported},
		{name: nameContainers, level: Supported},
		{name: nameVolumePath, level: Supported},
		{name: nameDefaultTemplate, level: Supported, noop: []string{"map"}, attribute: "default-template"},
		{name: namePreserveCase, level: Supported, parse: parseBoolean},
		{name: nameShareProcesses, level: Supported, parse: parseBoolean},
		{name: "agent-request-namespace", level: Ignored, handle: requestNamespace},
		{name: nameConfigMap, level: Rejected, noop: empty, note: "is not supported; move its templates to agent-inject-template-FILE"},
	}
}

// fileRows are about its files.
func fileRows() []row {
	off := []string{"false"}
	return []row{
		{name: familySecret + "X", level: Supported},
		{name: familyTemplate + "X", level: Supported},
		{name: familyTemplateFile + "X", level: Mapped},
		{name: familyFile + "X", level: Supported},
		{name: familyPerms + "X", level: Supported},
		{name: familyCommand + "X", level: Rejected},
		{name: familyMissingKey + "X", level: Supported},
		{name: familyLeftDelim + "X", level: Supported},
		{name: familyRightDelim + "X", level: Supported},
		{name: familyVolumePath + "X", level: Supported},
		{name: familyPreserveCase + "X", level: Supported, parse: parseBoolean},
		{name: nameToken, level: Mapped, parse: parseBoolean, noop: off, handle: token},
	}
}

// loginRows are about the login.
func loginRows() []row {
	empty, off := []string{""}, []string{"false"}
	return []row{
		{name: nameRole, level: Supported},
		{name: nameAuthType, level: Supported, noop: []string{string(volume.Kubernetes)}, handle: authType},
		{name: nameAuthPath, level: Supported},
		{name: familyAuthConfig + "Y", level: Mapped, handle: authConfig},
		{name: "auth-min-backoff", level: Mapped, noop: []string{"1s"}, handle: clamped("auth-min-backoff", volume.Backoffs())},
		{name: "auth-max-backoff", level: Mapped, noop: []string{"5m"}, handle: clamped("auth-max-backoff", volume.Backoffs())},
		{name: "agent-auto-auth-exit-on-err", level: Ignored, parse: parseBoolean, noop: off, note: failedLogin},
		{name: nameTokenVolume, level: Mapped, noop: empty},
	}
}

// connectionRows are about the connection to Vault.
func connectionRows() []row {
	empty, off, connections := []string{""}, []string{"false"}, oneOf("auto-auth", "caching", "templating")
	return []row{
		{name: "namespace", level: Supported, noop: []string{"", "/"}, attribute: "namespace"},
		{name: "service", level: Mapped, handle: service},
		{name: "proxy-address", level: Mapped, noop: empty, attribute: "proxy-address"},
		{name: nameSkipVerify, level: Supported, parse: parseBoolean, noop: off, handle: skipVerify},
		{name: nameTLSSecret, level: Mapped, noop: empty, handle: secretName},
		{name: nameCACert, level: Mapped, noop: empty, handle: caCert},
		{name: "ca-key", level: Mapped, noop: empty, handle: caDirectory},
		{name: nameClientCert, level: Mapped, noop: empty, handle: clientCert},
		{name: nameClientKey, level: Mapped, noop: empty, handle: clientCert},
		{name: "tls-server-name", level: Supported, noop: empty, attribute: "tls-server-name"},
		{name: "client-max-retries", level: Mapped, noop: []string{"2", ""}, handle: maxRetries},
		{name: "client-timeout", level: Mapped, noop: empty, handle: clamped("client-timeout", volume.ClientTimeouts())},
		{name: "template-max-connections-per-host", level: Ignored, parse: parseInteger, noop: []string{"10", ""}, note: sharedPool},
		{name: "agent-disable-idle-connections", level: Ignored, parse: connections, noop: empty, note: noAgent},
		{name: "agent-disable-keep-alives", level: Ignored, parse: connections, noop: empty, note: noAgent},
	}
}

// renderingRows are about rendering and leases.
func renderingRows() []row {
	empty, off := []string{""}, []string{"false"}
	cacheToken := oneOf("true", "false", "force")
	interval := clamped("static-secret-render-interval", volume.StaticIntervals())
	return []row{
		{name: "template-static-secret-render-interval", level: Supported, noop: empty, handle: interval},
		{name: "template-lease-renewal-threshold", level: Supported, noop: []string{"0.9", "0.90"}, attribute: "lease-renewal-threshold"},
		// The kubelet repeats a failed first rendering, as a restarted agent would. Later
		// there is no process in the pod that could exit.
		{name: "template-config-exit-on-retry-failure", level: Mapped, parse: parseBoolean, noop: []string{"true", "false"}},
		// A CSI volume is mounted before any init container starts.
		{name: "agent-init-first", level: Supported, parse: parseBoolean, noop: []string{"true", "false"}},
		{name: namePrePopulate, level: Mapped, parse: parseBoolean, noop: []string{"true"}, handle: prePopulate},
		{name: namePrePopulateOnly, level: Mapped, parse: parseBoolean, noop: off, handle: prePopulateOnly},
		{name: "agent-revoke-on-shutdown", level: Mapped, parse: parseBoolean, attribute: "revoke-on-unpublish"},
		{name: "agent-revoke-grace", level: Ignored, parse: parseSeconds, noop: []string{"5"}, note: lateRevoke},
		{name: "agent-cache-enable", level: Rejected, parse: parseBoolean, noop: off, handle: cacheEnable},
		{name: "agent-cache-use-auto-auth-token", level: Ignored, parse: cacheToken, noop: []string{"true"}, note: noCache},
		{name: "agent-cache-listener-port", level: Ignored, noop: []string{"8200"}, note: noCache},
		{name: "agent-cache-exit-on-err", level: Ignored, parse: parseBoolean, noop: off, note: noCache},
		{name: "agent-enable-quit", level: Rejected, parse: parseBoolean, noop: off, handle: enableQuit},
	}
}

// ownerRows are about the owner of the files.
func ownerRows() []row {
	return []row{
		{name: nameRunAsUser, level: Mapped, noop: []string{agentUser}},
		{name: nameRunAsGroup, level: Mapped, noop: []string{agentGroup}},
		{name: nameRunAsSameUser, level: Mapped, parse: parseBoolean},
		{name: nameSetSecurityContext, level: Mapped, parse: parseBoolean},
	}
}

// agentRows are about the agent's container.
func agentRows() []row {
	empty := []string{""}
	return []row{
		{name: nameExtraSecret, level: Mapped, noop: empty, handle: secretName},
		{name: nameCopyMounts, level: Ignored, noop: empty, note: noMounts},
		{name: "agent-image", level: Ignored, noop: empty, note: noAgent},
		{name: "agent-limits-cpu", level: Ignored, parse: parseQuantity, noop: empty, note: noResources},
		{name: "agent-limits-mem", level: Ignored, parse: parseQuantity, noop: empty, note: noResources},
		{name: "agent-limits-ephemeral", level: Ignored, parse: parseQuantity, noop: empty, note: noResources},
		{name: "agent-requests-cpu", level: Ignored, parse: parseQuantity, noop: empty, note: noResources},
		{name: "agent-requests-mem", level: Ignored, parse: parseQuantity, noop: empty, note: noResources},
		{name: "agent-requests-ephemeral", level: Ignored, parse: parseQuantity, noop: empty, note: noResources},
		{name: "go-max-procs", level: Ignored, noop: empty, note: noAgent},
		{name: "log-level", level: Ignored, noop: []string{"info", ""}, note: noLog},
		{name: "log-format", level: Ignored, noop: []string{"standard", ""}, note: noLog},
		{name: familyTelemetry + "Y", level: Ignored, note: ownMetrics},
		{name: namePatch, level: Ignored, noop: []string{"", "[]", "null"}, handle: jsonPatch},
		{name: nameInitPatch, level: Ignored, noop: []string{"", "[]", "null"}, handle: jsonPatch},
	}
}

// family returns the part of the name before the X or the Y, or none.
func (r row) family() string {
	if strings.HasSuffix(r.name, "-X") || strings.HasSuffix(r.name, "-Y") {
		return r.name[:len(r.name)-1]
	}
	return ""
}

// match is the row of an annotation. Of a family, the suffix is what replaces the X or
// the Y.
type match struct {
	row
	family, suffix string
}

// findRow returns the row of a name without the prefix. Of two families,
// agent-inject-template-file-X is of the longer one.
func findRow(table []row, name string) (found match, ok bool) {
	for _, r := range table {
		if r.name == name {
			return match{row: r}, true
		}
		suffix, matches := strings.CutPrefix(name, r.family())
		if matches && suffix != "" && len(r.family()) > len(found.family) && name != familyTemplateFile {
			found, ok = match{r, r.family(), suffix}, true
		}
	}
	return found, ok
}

// Family returns the name of an annotation's row in the table, with X for a file and Y
// for a setting, or "unknown". There are few of them, so it suits the label of a metric.
func (s Translator) Family(key string) string {
	found, ok := findRow(annotationTable(), strings.TrimPrefix(key, s.withDefaults().Prefix))
	if !ok {
		return "unknown"
	}
	return found.name
}

// handleAnnotations evaluates the table for each annotation of the pod.
func (t *translation) handleAnnotations() {
	for _, name := range t.names {
		m, ok := t.rows[name]
		if !ok {
			t.reportUnknown(name)
			continue
		}
		t.handleAnnotation(m, name, t.values[name])
	}
}

func (t *translation) handleAnnotation(r match, name, value string) {
	if slices.Contains(r.noop, value) {
		return
	}
	if r.parse != nil {
		// A value that the injector rejects is rejected even where it has no meaning for
		// the driver: a manifest is good for both or for none.
		parsed, err := r.parse(value)
		if err != nil {
			t.reject(name, "%v", err)
			return
		}
		if value = parsed; slices.Contains(r.noop, value) {
			return
		}
	}
	switch {
	case r.handle != nil:
		r.handle(t, name, value)
	case r.attribute != "":
		t.setAttribute(r.attribute, value, name)
	case r.note != "" && r.level == Rejected:
		t.reject(name, "%s", r.note)
	case r.note != "":
		t.warn(name, "%s", r.note)
	}
}

// setAttribute leaves the check of the value to the driver's own parser.
func (t *translation) setAttribute(key, value, source string) {
	t.attributes[key] = attribute{value, source}
}

func (t *translation) has(name string) bool {
	_, present := t.values[name]
	return present
}

// isOn reads a switch whose value the table checks.
func (t *translation) isOn(name string, otherwise bool) bool {
	on, err := parseBoolean(t.values[name])
	if err != nil || !t.has(name) {
		return otherwise
	}
	return on == "true"
}

// reportUnknown warns of an annotation that the injector ignores too. It rejects one
// that ends where the name of its file belongs: Kubernetes accepts no such annotation of
// a pod, so that somebody wrote it into a volume or a manifest by hand.
func (t *translation) reportUnknown(name string) {
	if slices.ContainsFunc(t.table, func(r row) bool { return r.name == name+"X" }) {
		t.reject(name, "names no file; add the name, for example %sdb", name)
		return
	}
	t.warn(name, "is unknown and ignored; %s", lazy(func() string {
		if nearest, ok := volume.Nearest(name, candidates(t.table, name)); ok {
			return "did you mean \"" + nearest + "\"?"
		}
		return "remove it"
	}))
}

// candidates are the names that a misspelt one may mean: those that only have one more
// word in front, or else all. A family continues after as many dashes as it has.
func candidates(table []row, name string) []string {
	var all []string
	for _, r := range table {
		if strings.HasSuffix(r.name, "-"+name) {
			return []string{r.name}
		}
		candidate, dashes := r.name, strings.Count(r.family(), "-")
		if parts := strings.SplitN(name, "-", dashes+1); dashes > 0 && len(parts) > dashes && parts[dashes] != "" {
			candidate = r.family() + parts[dashes]
		}
		all = append(all, candidate)
	}
	return all
}
