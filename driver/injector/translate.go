package injector

import (
	"cmp"
	"maps"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/vaultmount/vaultmount/driver/volume"
)

// reading is the work on one pod.
type reading struct {
	settings  Translator
	pod       *corev1.Pod
	namespace string
	// values are the annotations under the prefix, without it; sorted are their
	// names, and matches those that the injector knows.
	values  map[string]string
	sorted  []string
	rows    []row
	matches map[string]match
	// authConfigs are the first annotations of each setting of a login.
	authConfigs map[string]string
	// podVolumes are the pod's own volumes by name.
	podVolumes map[string]*corev1.Volume
	// copied are the mount paths that agent-copy-volume-mounts shows to the agent.
	copied map[string]bool
	// format and directory are the defaults of the pod's files.
	format    volume.Format
	directory string
	// attributes are what rows make of single annotations, for every volume.
	attributes map[string]attribute
	warnings   []Diagnostic
	refusals   []Diagnostic
	// more are annotations with diagnostics above the limit.
	more map[string]bool
}

// Translate works out what the annotations of a pod ask for. The namespace is the
// one of the request; a pod in admission need not name its own. An empty one
// is not known.
func (t Translator) Translate(pod *corev1.Pod, namespace string) Result {
	r := t.read(pod, namespace)
	if !r.asks() {
		return r.decide(Skip, Result{})
	}
	if !r.isWithinLimits() {
		return r.decide(Translate, Result{})
	}
	r.index()
	r.treatRows()
	r.reportUnknown()
	files := r.files()
	result := Result{ShareProcessNamespace: r.sharesProcesses()}
	result.Volumes = r.volumes(files)
	result.Mounts = r.mounts(result.Volumes)
	if len(files) == 0 && len(r.refusals) == 0 {
		r.warn(nameInject, "no annotation asks for a file, so the pod gets no volume and the others have no effect; add agent-inject-secret-FILE or agent-inject-template-FILE")
	}
	return r.decide(Translate, result)
}

func (t Translator) withDefaults() Translator {
	t.Prefix = cmp.Or(t.Prefix, DefaultPrefix)
	t.Driver = cmp.Or(t.Driver, DefaultDriver)
	t.Fallback = cmp.Or(t.Fallback, FallbackReject)
	t.AuthPath = cmp.Or(t.AuthPath, defaultAuthPath)
	t.DefaultTemplate = cmp.Or(t.DefaultTemplate, volume.Map)
	return t
}

func (t Translator) read(pod *corev1.Pod, namespace string) *reading {
	r := &reading{settings: t.withDefaults(), pod: pod, namespace: namespace, values: map[string]string{}, attributes: map[string]attribute{}, more: map[string]bool{}}
	for key, value := range pod.Annotations {
		if name, ours := strings.CutPrefix(key, r.settings.Prefix); ours {
			r.values[name] = value
		}
	}
	r.sorted = slices.Sorted(maps.Keys(r.values))
	return r
}

// index works out once what is looked up for each file, container or annotation.
// The annotations are within the limits.
func (r *reading) index() {
	r.rows = rows()
	r.matches, r.authConfigs = map[string]match{}, map[string]string{}
	for _, name := range r.sorted {
		m, ok := find(r.rows, name)
		if !ok {
			continue
		}
		r.matches[name] = m
		if key := authConfigKey(name); m.family == familyAuthConfig && r.authConfigs[key] == "" {
			r.authConfigs[key] = name
		}
	}
	r.podVolumes = map[string]*corev1.Volume{}
	for i := range r.pod.Spec.Volumes {
		if v := &r.pod.Spec.Volumes[i]; r.podVolumes[v.Name] == nil {
			r.podVolumes[v.Name] = v
		}
	}
	r.format, r.directory = r.defaultTemplate(), r.defaultPath()
	r.copied = r.copiedPaths()
}

// decide applies the fallback to what was refused.
func (r *reading) decide(decision Decision, result Result) Result {
	result.Decision = decision
	inOrder(r.warnings)
	inOrder(r.refusals)
	r.cutWarnings()
	result.Warnings, result.Errors, result.More = r.warnings, r.refusals, len(r.more)
	if len(r.refusals) > 0 {
		result = r.fallBack(result)
	}
	return result
}

func (r *reading) fallBack(result Result) Result {
	both := inOrder(slices.Concat(r.warnings, r.refusals))
	switch r.settings.Fallback {
	case FallbackWarn:
		result.Warnings, result.Errors = both, nil
		return result
	case FallbackLeave:
		return Result{Decision: LeaveToInjector, Warnings: both, More: result.More}
	}
	return Result{Decision: Reject, Warnings: r.warnings, Errors: r.refusals, More: result.More}
}
