package injector

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"path"
	"reflect"
	"slices"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	kjson "sigs.k8s.io/json"

	"github.com/vaultmount/vaultmount/driver/volume"
	"github.com/vaultmount/vaultmount/provider/limits"
)

// PodInfo is the part of a pod, or of the template of one, that a translation reads.
// DecodePod makes it from the pod; TranslateVolume makes it from a volume's attributes.
type PodInfo struct {
	Metadata struct {
		Name         string            `json:"name"`
		GenerateName string            `json:"generateName"`
		Namespace    string            `json:"namespace"`
		Annotations  map[string]string `json:"annotations"`
	} `json:"metadata"`
	Spec struct {
		Volumes               []PodVolume    `json:"volumes"`
		InitContainers        []PodContainer `json:"initContainers"`
		Containers            []PodContainer `json:"containers"`
		SecurityContext       *PodIdentity   `json:"securityContext"`
		ShareProcessNamespace *bool          `json:"shareProcessNamespace"`
		OS                    *corev1.PodOS  `json:"os"`
	} `json:"spec"`
	Status struct {
		Phase corev1.PodPhase `json:"phase"`
	} `json:"status"`
}

// PodIdentity is the user and group of a security context.
type PodIdentity struct {
	RunAsUser  *int64 `json:"runAsUser"`
	RunAsGroup *int64 `json:"runAsGroup"`
}

// PodContainer is a container or an init container.
type PodContainer struct {
	Name            string       `json:"name"`
	VolumeMounts    []PodMount   `json:"volumeMounts"`
	SecurityContext *PodIdentity `json:"securityContext"`
}

// PodMount is a volume mount of a container.
type PodMount struct {
	Name        string `json:"name"`
	MountPath   string `json:"mountPath"`
	SubPath     string `json:"subPath"`
	SubPathExpr string `json:"subPathExpr"`
}

// PodVolume is a volume of the pod. At most one of its sources is set.
type PodVolume struct {
	Name string `json:"name"`
	CSI  *struct {
		Driver   string `json:"driver"`
		ReadOnly bool   `json:"readOnly"`
	} `json:"csi"`
	EmptyDir  *struct{}     `json:"emptyDir"`
	Projected *PodProjected `json:"projected"`
}

// PodProjected is a projected volume.
type PodProjected struct {
	Sources []PodProjection `json:"sources"`
}

// PodProjection is a source of a projected volume.
type PodProjection struct {
	ServiceAccountToken *corev1.ServiceAccountTokenProjection `json:"serviceAccountToken"`
}

// token returns the first token of a projected volume, or nil. The volume may be nil.
func (v *PodVolume) token() *corev1.ServiceAccountTokenProjection {
	if v == nil || v.Projected == nil {
		return nil
	}
	for _, source := range v.Projected.Sources {
		if token := source.ServiceAccountToken; token != nil && token.Path != "" {
			return token
		}
	}
	return nil
}

// PodPath returns the keys that lead from an object of a kind to its pod, or to the
// template of its pods. It returns false for a kind without pods.
func PodPath(kind string) (keys []string, ok bool) {
	switch kind {
	case "Pod":
		return nil, true
	case "PodTemplate":
		return []string{"template"}, true
	case "Deployment", "StatefulSet", "DaemonSet", "ReplicaSet", "ReplicationController", "Job":
		return []string{"spec", "template"}, true
	case "CronJob":
		return []string{"spec", "jobTemplate", "spec", "template"}, true
	}
	return nil, false
}

// DecodePod decodes the pod of an object from JSON as the API server does: "Annotations"
// is not "annotations". It decodes only the fields that a translation reads: the types of
// the API take 400 bytes for the three of "{},", and a quantity like 1e-10000000 takes
// seconds. An object without a template has an empty PodInfo.
func DecodePod(kind string, object []byte) (PodInfo, error) {
	keys, _ := PodPath(kind)
	for _, key := range keys {
		var fields map[string]json.RawMessage
		if err := kjson.UnmarshalCaseSensitivePreserveInts(object, &fields); err != nil {
			return PodInfo{}, describeJSONError(err)
		}
		if object = fields[key]; object == nil {
			return PodInfo{}, nil
		}
	}
	var pod PodInfo
	if err := kjson.UnmarshalCaseSensitivePreserveInts(object, &pod); err != nil {
		return PodInfo{}, cmp.Or(annotationError(object), describeJSONError(err))
	}
	items := len(pod.Spec.Volumes) + len(pod.Spec.InitContainers) + len(pod.Spec.Containers)
	return pod, limits.PodItems.Check(items)
}

// describeJSONError says which field has the wrong type, without the types of Go.
func describeJSONError(err error) error {
	var wrong *json.UnmarshalTypeError
	if !errors.As(err, &wrong) {
		return err
	}
	want := "an object"
	switch wrong.Type.Kind() {
	case reflect.String:
		want = "a string, in quotes"
	case reflect.Slice:
		want = "a list"
	case reflect.Bool, reflect.Int64:
		want = "a " + wrong.Type.Kind().String()
	}
	return fmt.Errorf("%s is of the type %s; write %s", cmp.Or(wrong.Field, "it"), wrong.Value, want)
}

// annotationError names the annotation whose value is not a string, if there is one.
func annotationError(pod []byte) error {
	var object struct {
		Metadata struct{ Annotations map[string]json.RawMessage }
	}
	_ = json.Unmarshal(pod, &object) // the caller has the error
	for _, key := range slices.Sorted(maps.Keys(object.Metadata.Annotations)) {
		if value := object.Metadata.Annotations[key]; value[0] != '"' && string(value) != "null" {
			return fmt.Errorf("annotation %s is not a string; write its value in quotes", limits.Truncate(key, limits.HostBytes.Max()))
		}
	}
	return nil
}

// The attributes that tell the driver about the pod, which it does not see.
const (
	keyPodUser        = "pod-run-as-user"
	keyPodGroup       = "pod-run-as-group"
	keyContainerUser  = "container-run-as-user"
	keyContainerGroup = "container-run-as-group"
	// keyTokenAudience is followed by the name of a projected volume, and by the path of
	// the token in a container if one mounts it.
	keyTokenAudience = "token-audience/"
)

// IsPassthrough is true if annotations describe a volume in place of the driver's own
// attributes. The admission policy passes them through from the pod.
func (s Translator) IsPassthrough(attributes map[string]string) bool {
	prefix := s.withDefaults().Prefix
	for key := range attributes {
		if strings.HasPrefix(key, prefix) {
			return true
		}
	}
	return false
}

// TranslateVolume is Translate for the driver, which sees one volume: its attributes are
// the annotations of the pod and what else they say about it. An error is always one,
// whatever the fallback, since the pod is admitted already. The error is a
// *volume.AttributeError.
func (s Translator) TranslateVolume(attributes map[string]string, namespace string) (Volume, []Diagnostic, error) {
	s = s.withDefaults()
	s.Fallback = FallbackReject
	if err := volume.CheckSize(attributes); err != nil {
		return Volume{}, nil, err
	}
	pod, err := s.podInfo(attributes)
	if err != nil {
		return Volume{}, nil, err
	}
	result := s.Translate(pod, namespace)
	if len(result.Errors) > 0 {
		return Volume{}, nil, errorOf(result)
	}
	if len(result.Volumes) == 0 {
		const problem = "no annotation asks for a file; add agent-inject-secret-FILE or agent-inject-template-FILE"
		return Volume{}, nil, &volume.AttributeError{Key: s.Prefix + nameInject, Problem: problem}
	}
	v, err := pickVolume(result.Volumes, attributes)
	return v, result.Warnings, err
}

// errorOf has the first error in full and names the others: the message is an Event.
func errorOf(result Result) error {
	const enough = 3
	var names []string
	for _, d := range result.Errors {
		names = append(names, d.Annotation)
	}
	first, others := result.Errors[0], slices.Compact(names)[1:] // they are sorted
	problem, more := first.Text, result.More+max(0, len(others)-enough)
	if len(others) > 0 {
		problem += "; rejected as well: " + strings.Join(others[:min(len(others), enough)], ", ")
	}
	if more > 0 {
		problem += fmt.Sprintf(", and %d more", more)
	}
	return &volume.AttributeError{Key: first.Annotation, Problem: problem}
}

// pickVolume finds the volume by its mount path. If the path is not one of the
// translation's, the files would be in the wrong place.
func pickVolume(volumes []Volume, attributes map[string]string) (Volume, error) {
	wanted, chosen := attributes[keyMountPath]
	var paths []string
	for _, v := range volumes {
		if paths = append(paths, v.MountPath); chosen && v.MountPath == path.Clean(wanted) {
			return v, nil
		}
	}
	problem := fmt.Sprintf("the annotations make no volume at %s, but at %s; write one of these", quote(wanted), quoteAll(paths))
	if !chosen {
		problem = fmt.Sprintf("is missing: the annotations make a volume for each of %s; name the one that this is", quoteAll(paths))
	}
	if !chosen && len(volumes) == 1 {
		return volumes[0], nil
	}
	return Volume{}, &volume.AttributeError{Key: keyMountPath, Problem: problem}
}

// podInfo reads what the attributes say about the pod. Attributes of the driver's own
// vocabulary are rejected beside annotations: two roles would contradict each other.
func (s Translator) podInfo(attributes map[string]string) (PodInfo, error) {
	// The volume itself asks, whatever the pod's mark says. The contexts are there, so
	// that what is missing is the user in them.
	var pod passedPod
	pod.Metadata.Annotations = map[string]string{s.Prefix + nameInject: "true"}
	pod.Spec.SecurityContext = &PodIdentity{}
	pod.Spec.Containers = []PodContainer{{SecurityContext: &PodIdentity{}}}
	pod.tokens = map[string]corev1.ServiceAccountTokenProjection{}
	for _, key := range slices.Sorted(maps.Keys(attributes)) {
		var err error
		if name, ours := strings.CutPrefix(key, s.Prefix); !ours {
			err = pod.addAttribute(key, attributes[key])
		} else if err = checkPassthrough(name, attributes[key]); err == nil && name != nameStatus {
			pod.Metadata.Annotations[key] = attributes[key]
		}
		if err != nil {
			return PodInfo{}, &volume.AttributeError{Key: key, Problem: err.Error()}
		}
	}
	return pod.PodInfo, nil
}

// passedPod is the pod as far as the attributes of a volume describe it, with the tokens
// of its projected volumes by name.
type passedPod struct {
	PodInfo
	tokens map[string]corev1.ServiceAccountTokenProjection
}

// checkPassthrough rejects annotations that change the pod, which no volume can do. The
// policy that adds the volume applies them and leaves them out.
func checkPassthrough(name, value string) error {
	on, err := parseBoolean(value)
	isOff := err == nil && on == "false"
	switch {
	case name == nameContainers:
		return errors.New("is about the pod, not the volume; remove it and write volumeMounts into the containers")
	case name == nameShareProcesses && !isOff:
		return errors.New("is about the pod, not the volume; remove it and write shareProcessNamespace into the pod")
	case name == nameInject && isOff:
		return errors.New("is off, but it is in a volume; remove one of the two")
	}
	return nil
}

// addAttribute reads one attribute about the pod.
func (p *passedPod) addAttribute(key, value string) error {
	if token, ok := strings.CutPrefix(key, keyTokenAudience); ok {
		return p.addToken(token, value)
	}
	container := &p.Spec.Containers[0]
	ids := map[string]**int64{
		keyPodUser:        &p.Spec.SecurityContext.RunAsUser,
		keyPodGroup:       &p.Spec.SecurityContext.RunAsGroup,
		keyContainerUser:  &container.SecurityContext.RunAsUser,
		keyContainerGroup: &container.SecurityContext.RunAsGroup,
	}
	if field, ok := ids[key]; ok {
		id, err := strconv.ParseInt(value, 10, 64)
		*field = &id
		if err != nil || id < 0 {
			return fmt.Errorf("%s is not a numeric ID; write for example \"1000\"", quote(value))
		}
		return nil
	}
	if key == keyMountPath {
		return checkMountPath(value)
	}
	return errors.New("does not go with the annotations beside it; remove it, or write the whole volume without annotations")
}

// addToken adds a projected volume, and its mount if the token has a path. One volume may
// be mounted several times.
func (p *passedPod) addToken(token, audience string) error {
	name, file, mounted := strings.Cut(token, "/")
	file = path.Clean("/" + file)
	if name == "" || mounted && file == "/" {
		return fmt.Errorf("is not of the form %sVOLUME or %sVOLUME/PATH", keyTokenAudience, keyTokenAudience)
	}
	projection := corev1.ServiceAccountTokenProjection{Path: path.Base(file), Audience: audience}
	known, found := p.tokens[name]
	switch {
	case !found:
		p.tokens[name] = projection
		p.Spec.Volumes = append(p.Spec.Volumes, PodVolume{Name: name, Projected: &PodProjected{[]PodProjection{{&projection}}}})
	case known != projection:
		return fmt.Errorf(
			"differs from another %s of the volume %s; write the same path in the volume and the same audience",
			keyTokenAudience, quote(name))
	}
	if mounted {
		container := &p.Spec.Containers[0]
		container.VolumeMounts = append(container.VolumeMounts, PodMount{Name: name, MountPath: path.Dir(file)})
	}
	return nil
}
