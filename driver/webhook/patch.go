package webhook

import (
	"encoding/json"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"

	admissionv1 "k8s.io/api/admission/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func allow() *admissionv1.AdmissionResponse {
	return &admissionv1.AdmissionResponse{Allowed: true}
}

// deny says no more than the injector does: what the API server adds to a message
// is the same for both.
func deny(message string) *admissionv1.AdmissionResponse {
	return &admissionv1.AdmissionResponse{Result: &metav1.Status{Message: message}}
}

// operation is one of a JSON patch (RFC 6902).
type operation struct {
	Op    string `json:"op"`
	Path  string `json:"path"`
	Value any    `json:"value"`
}

// patch brings the pod from one state to the other. It looks only at what Apply
// changes, so the pod keeps all other fields, those of a newer Kubernetes too.
func (o *Outcome) patch(before, after *corev1.Pod) {
	operations := diff(before, after)
	if len(operations) == 0 {
		return
	}
	patch, err := json.Marshal(operations)
	if err != nil {
		o.Result, o.Reason = Rejected, reasonUnreadable
		o.Response = deny("write the patch: " + err.Error())
		return
	}
	o.Response.Patch, o.Response.PatchType = patch, new(admissionv1.PatchTypeJSONPatch)
}

func diff(before, after *corev1.Pod) []operation {
	var all []operation
	pointer := strings.NewReplacer("~", "~0", "/", "~1")
	for _, key := range slices.Sorted(maps.Keys(after.Annotations)) {
		if value, ok := before.Annotations[key]; !ok || value != after.Annotations[key] {
			all = append(all, operation{"add", "/metadata/annotations/" + pointer.Replace(key), after.Annotations[key]})
		}
	}
	for i, c := range after.Spec.Containers {
		all = append(all, diffList(fmt.Sprintf("/spec/containers/%d/volumeMounts", i), before.Spec.Containers[i].VolumeMounts, c.VolumeMounts)...)
	}
	for i, c := range after.Spec.InitContainers {
		all = append(all, diffList(fmt.Sprintf("/spec/initContainers/%d/volumeMounts", i), before.Spec.InitContainers[i].VolumeMounts, c.VolumeMounts)...)
	}
	if after.Spec.ShareProcessNamespace != nil && before.Spec.ShareProcessNamespace == nil {
		all = append(all, operation{"add", "/spec/shareProcessNamespace", *after.Spec.ShareProcessNamespace})
	}
	return append(all, diffList("/spec/volumes", before.Spec.Volumes, after.Spec.Volumes)...)
}

// diffList replaces the items that differ and appends the new ones. A list that is
// empty may be absent.
func diffList[T any](path string, before, after []T) []operation {
	if len(before) == 0 && len(after) > 0 {
		return []operation{{"add", path, after}}
	}
	var all []operation
	for i, item := range after {
		switch {
		case i >= len(before):
			all = append(all, operation{"add", path + "/-", item})
		case !reflect.DeepEqual(before[i], item):
			all = append(all, operation{"replace", fmt.Sprint(path, "/", i), item})
		}
	}
	return all
}
