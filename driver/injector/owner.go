package injector

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
)

// The user and group of the injector's agent, which owns the files under the injector.
const (
	agentUser  = "100"
	agentGroup = "1000"
)

// setOwner sets the attributes uid and gid to what the agent would run as. The pod's
// fsGroup, which the kubelet passes to the driver, takes precedence over gid.
func (t *translation) setOwner() {
	uid, gid := t.agentID(nameRunAsUser, agentUser), t.agentID(nameRunAsGroup, agentGroup)
	switch {
	case t.isOn(nameRunAsSameUser, false):
		uid = t.containerUser(uid)
	case !t.isOn(nameSetSecurityContext, !t.settings.NoSecurityContext) && !t.choosesUser():
		uid, gid = t.podOwner(uid, gid)
	}
	if !t.isOn(nameSetSecurityContext, true) && t.choosesUser() {
		t.warn(nameSetSecurityContext, "has no effect beside agent-run-as-*; remove it")
	}
	t.attributes["uid"], t.attributes["gid"] = uid, gid
	for key, patched := range t.owner {
		t.warnUnread(t.attributes[key].source, "has no effect beside "+patched.source+"; remove one of them")
		t.attributes[key] = patched
	}
}

func (t *translation) agentID(name, otherwise string) attribute {
	if value, present := t.values[name]; present {
		otherwise = value
	}
	return attribute{otherwise, name}
}

func (t *translation) choosesUser() bool {
	return t.has(nameRunAsUser) || t.has(nameRunAsGroup) || t.has(nameRunAsSameUser)
}

// containerUser is for agent-run-as-same-user, which reads the first container only.
func (t *translation) containerUser(otherwise attribute) attribute {
	t.warnUnread(nameRunAsUser, "has no effect beside "+nameRunAsSameUser+"; remove one of them")
	var problem string
	switch containers := t.pod.Spec.Containers; {
	case len(containers) == 0:
		problem = "No containers found in Pod Spec"
	case containers[0].SecurityContext == nil:
		problem = "No SecurityContext found for Container 0"
	case containers[0].SecurityContext.RunAsUser == nil:
		problem = "RunAsUser is nil for Container 0's SecurityContext"
	case *containers[0].SecurityContext.RunAsUser == 0:
		problem = "container not allowed to run as root"
	default:
		return attribute{strconv.FormatInt(*containers[0].SecurityContext.RunAsUser, 10), nameRunAsSameUser}
	}
	t.reject(nameRunAsSameUser, "%s; set runAsUser in the container, or use %s", problem, nameRunAsUser)
	return otherwise
}

// podOwner is for an agent without a security context of its own: it runs as the pod
// does. By then OpenShift has set the user in the pod.
func (t *translation) podOwner(uid, gid attribute) (attribute, attribute) {
	contexts := []*PodIdentity{t.pod.Spec.SecurityContext}
	if c := t.pod.Spec.Containers; len(c) > 0 {
		contexts = []*PodIdentity{c[0].SecurityContext, t.pod.Spec.SecurityContext}
	}
	for _, context := range contexts {
		if context != nil && context.RunAsUser != nil {
			uid = attribute{strconv.FormatInt(*context.RunAsUser, 10), nameSetSecurityContext}
		}
		if context != nil && context.RunAsGroup != nil {
			gid = attribute{strconv.FormatInt(*context.RunAsGroup, 10), nameSetSecurityContext}
		}
	}
	return uid, gid
}

// operation is one of a JSON patch of the agent's container.
type operation struct {
	Op    string          `json:"op"`
	Path  string          `json:"path"`
	Value json.RawMessage `json:"value"`
}

// jsonPatch reads the owner of the files out of a patch. The container that writes the
// files first owns them; a later writer does not change the owner.
func jsonPatch(t *translation, name, value string) {
	var operations []operation
	if err := json.Unmarshal([]byte(value), &operations); err != nil {
		var wrongType *json.UnmarshalTypeError
		if errors.As(err, &wrongType) {
			err = errors.New("a patch is an array of objects with the strings op and path")
		}
		t.reject(name, "error parsing JSON patch: %v; correct or remove it", err)
		return
	}
	isWriter := (name == nameInitPatch) == t.isOn(namePrePopulate, true)
	owner, others := map[string]attribute{}, false
	for _, o := range operations {
		if err := o.check(); err != nil {
			t.reject(name, "%v", err)
			return
		}
		key := ownerAttributes()[o.Path]
		if key != "" && isWriter {
			owner[key] = attribute{string(o.Value), name}
		}
		others = others || key == "" || !isWriter
	}
	maps.Copy(t.owner, owner)
	switch {
	case others && len(owner) > 0:
		t.warn(name,
			"sets the owner of the files and has no other effect: there is no agent container in the pod; remove the "+
				"other operations")
	case others:
		t.warn(name, "has no effect: there is no agent container in the pod; remove it")
	}
}

// ownerAttributes are the attributes by the paths that set them.
func ownerAttributes() map[string]string {
	return map[string]string{"/securityContext/runAsUser": "uid", "/securityContext/runAsGroup": "gid"}
}

// check rejects what the agent or the owner of its files would need: its environment,
// arguments and image, or a user that only the image knows.
func (o operation) check() error {
	field, rest, _ := strings.Cut(strings.TrimPrefix(o.Path, "/"), "/")
	harmless := []string{
		"resources", "readinessProbe", "livenessProbe", "startupProbe", "lifecycle", "name", "restartPolicy", "securityContext",
	}
	switch {
	case !slices.Contains([]string{"add", "replace", "remove"}, o.Op):
		return fmt.Errorf("the operation %s is not supported; write add, replace or remove", quote(o.Op))
	case ownerAttributes()[o.Path] != "" && o.Op == "remove":
		return fmt.Errorf("%s needs a number; replace it with one", o.Path)
	case field == "securityContext" && rest == "":
		return fmt.Errorf("%s as a whole is not supported; write an operation for each of its fields", quote(o.Path))
	case !slices.Contains(harmless, field):
		return fmt.Errorf("changes %s of the agent container, which the pod does not have; remove the operation", quote(o.Path))
	}
	return nil
}

// sharesProcesses is true if agent-share-process-namespace changes the pod. Containers of
// the application may depend on seeing each other.
func (t *translation) sharesProcesses() bool {
	shared := t.pod.Spec.ShareProcessNamespace
	if !t.isOn(nameShareProcesses, false) {
		return false
	}
	if shared != nil && !*shared {
		t.reject(nameShareProcesses, "shareProcessNamespace explicitly disabled on the pod, refusing to enable it; remove one of the two")
		return false
	}
	if slices.ContainsFunc(t.names, func(name string) bool { return strings.HasPrefix(name, familyCommand) }) {
		t.warn(nameShareProcesses, "there is no agent in the pod to run commands in it; remove it if it was for %sX only", familyCommand)
	}
	return shared == nil
}
