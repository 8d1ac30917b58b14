package annotation

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
	// values are the annotations under the prefix, without it; matches are those
	// that the injector knows.
	values  map[string]string
	matches map[string]match
	// attributes are what rows make of single annotations, for every volume.
	attributes map[string]attribute
	warnings   []Notice
	refusals   []Notice
}

// Translate works out what the annotations of a pod ask for. The namespace is the
// one of the request; a pod in admission need not name its own. An empty one
// is not known.
func (t Translator) Translate(pod *corev1.Pod, namespace string) Translation {
	r := t.read(pod, namespace)
	if !r.asks() {
		return r.decide(Skip, Translation{})
	}
	r.treatRows()
	r.reportUnknown()
	files := r.files()
	result := Translation{ShareProcessNamespace: r.sharesProcesses()}
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
	t.Fallback = cmp.Or(t.Fallback, FallbackRefuse)
	t.AuthPath = cmp.Or(t.AuthPath, defaultAuthPath)
	t.DefaultTemplate = cmp.Or(t.DefaultTemplate, volume.Map)
	return t
}

func (t Translator) read(pod *corev1.Pod, namespace string) *reading {
	r := &reading{settings: t.withDefaults(), pod: pod, namespace: namespace, values: map[string]string{}, matches: map[string]match{}, attributes: map[string]attribute{}}
	all := rows()
	for key, value := range pod.Annotations {
		name, ours := strings.CutPrefix(key, r.settings.Prefix)
		if !ours {
			continue
		}
		r.values[name] = value
		if m, ok := find(all, name); ok {
			r.matches[name] = m
		}
	}
	return r
}

func (r *reading) names() []string {
	return slices.Sorted(maps.Keys(r.values))
}

// decide applies the fallback to what was refused.
func (r *reading) decide(decision Decision, result Translation) Translation {
	result.Decision = decision
	result.Warnings, result.Refusals = r.warnings, r.refusals
	if len(r.refusals) > 0 {
		result = r.fallBack(result)
	}
	inOrder(result.Warnings)
	inOrder(result.Refusals)
	return result
}

func (r *reading) fallBack(result Translation) Translation {
	both := slices.Concat(r.warnings, r.refusals)
	switch r.settings.Fallback {
	case FallbackWarn:
		result.Warnings, result.Refusals = both, nil
		return result
	case FallbackLeave:
		return Translation{Decision: Leave, Warnings: both}
	}
	return Translation{Decision: Refuse, Warnings: r.warnings, Refusals: r.refusals}
}
