package injector

import (
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
)

const (
	nameInject = "agent-inject"
	nameStatus = "agent-inject-status"
	// statusDone is the only value of agent-inject-status that means something.
	statusDone = "injected"
	// volumeName is the injector's, and so is the rest of the names of further
	// volumes: pods mount them by name with a subPath.
	volumeName       = "vault-secrets"
	customVolumeName = volumeName + "-custom-"
)

// asks says whether the pod is to be translated, in the injector's order: the
// switch, the mark, the phase, and only then the namespace.
func (r *reading) asks() bool {
	value, present := r.values[nameInject]
	if !present {
		return false
	}
	inject, err := parseBool(value)
	if err != nil {
		r.refuse(nameInject, "%v", err)
		return false
	}
	if !inject || r.isDone() || !isNew(r.pod) {
		return false
	}
	if slices.Contains([]string{"kube-system", "kube-public"}, r.namespace) {
		r.refuse(nameInject, "cannot inject into system namespaces: %s", r.namespace)
		return false
	}
	if r.pod.Spec.OS != nil && r.pod.Spec.OS.Name == corev1.Windows {
		r.refuse(nameInject, "the driver runs on Linux nodes only; leave the annotation out of pods for Windows")
		return false
	}
	return true
}

// isDone recognises a pod that the injector or this package has been at. A
// manifest that was exported from a live pod carries the mark as well.
func (r *reading) isDone() bool {
	marked := r.values[nameStatus] == statusDone
	translated := slices.ContainsFunc(r.pod.Spec.Volumes, r.isOurs)
	switch {
	case marked && !translated && !hasAgent(r.pod):
		r.warn(nameStatus, "the pod is marked as injected but has no secrets volume; leave the annotation out to have one")
	case translated && !marked:
		r.warn(nameInject, "the pod has a volume of %s already, so its annotations are not read; leave the volume or the annotations out", r.settings.Driver)
	}
	return marked || translated
}

func (r *reading) isOurs(v corev1.Volume) bool {
	if v.CSI == nil || v.CSI.Driver != r.settings.Driver {
		return false
	}
	return v.Name == volumeName || strings.HasPrefix(v.Name, customVolumeName)
}

// hasAgent looks for the containers that the injector adds.
func hasAgent(pod *corev1.Pod) bool {
	isAgent := func(c corev1.Container) bool { return c.Name == "vault-agent" || c.Name == "vault-agent-init" }
	return slices.ContainsFunc(pod.Spec.Containers, isAgent) || slices.ContainsFunc(pod.Spec.InitContainers, isAgent)
}

func isNew(pod *corev1.Pod) bool {
	return pod.Status.Phase == "" || pod.Status.Phase == corev1.PodPending
}
