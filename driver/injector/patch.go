package injector

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// operation is one of a JSON patch of the agent container.
type operation struct {
	Op    string          `json:"op"`
	Path  string          `json:"path"`
	From  string          `json:"from"`
	Value json.RawMessage `json:"value"`
}

// identity is the part of a security context that decides who owns the files.
type identity struct {
	RunAsUser  *int64 `json:"runAsUser"`
	RunAsGroup *int64 `json:"runAsGroup"`
}

func parsePatch(value string) ([]operation, error) {
	if value == "" {
		return nil, nil
	}
	var operations []operation
	err := json.Unmarshal([]byte(value), &operations)
	var wrongType *json.UnmarshalTypeError
	if errors.As(err, &wrongType) {
		return nil, fmt.Errorf("a patch is an array of operations with op and path, not a %s", wrongType.Value)
	}
	return operations, err
}

// checkPatch refuses a patch that changes what the agent does: its environment,
// its arguments, its image. The rest is moot, but for the owner of the files.
func checkPatch(r *reading, name, value string) {
	operations, err := parsePatch(value)
	if err != nil {
		r.refuse(name, "error parsing JSON patch for annotation %s%s: %v", r.settings.Prefix, name, err)
		return
	}
	for _, o := range operations {
		if !slices.Contains([]string{"add", "replace", "remove", "test", "move", "copy"}, o.Op) {
			r.refuse(name, "failed to apply JSON patch: unexpected operation %s", quote(o.Op))
			return
		}
		if !o.isUnderstood() {
			r.refuse(name, "changes %s of the agent container, which the pod does not have; remove the operation", quote(o.Path))
			return
		}
	}
	r.reportMoot(name, operations)
}

// reportMoot warns of the operations that change nothing.
func (r *reading) reportMoot(name string, operations []operation) {
	moot := func(o operation) bool { return !o.setsIdentity() || name != r.writersPatch() }
	switch {
	case !slices.ContainsFunc(operations, moot):
	case slices.ContainsFunc(operations, func(o operation) bool { return !moot(o) }):
		r.warn(name, "sets the owner of the files and has no other effect: there is no agent container in the pod; remove the other operations")
	default:
		r.warn(name, "has no effect: there is no agent container in the pod; remove it")
	}
}

// isUnderstood says whether nothing is lost without the agent container.
func (o operation) isUnderstood() bool {
	harmless := []string{"resources", "readinessProbe", "livenessProbe", "startupProbe", "lifecycle", "name", "restartPolicy"}
	field := func(pointer string) string {
		part, _, _ := strings.Cut(strings.TrimPrefix(pointer, "/"), "/")
		return part
	}
	switch {
	case o.Op == "test":
		return true
	case o.Op == "move" || o.Op == "copy":
		return slices.Contains(harmless, field(o.From)) && slices.Contains(harmless, field(o.Path))
	case slices.Contains([]string{"/securityContext", "/securityContext/runAsUser", "/securityContext/runAsGroup"}, o.Path):
		_, err := o.identity()
		return err == nil
	}
	return field(o.Path) == "securityContext" || slices.Contains(harmless, field(o.Path))
}

func (o operation) setsIdentity() bool {
	found, err := o.identity()
	return err == nil && o.Op != "test" && (found.RunAsUser != nil || found.RunAsGroup != nil)
}

// identity returns what the operation sets. It is an error to take an id away:
// the agent would run as the user of an image that is not there.
func (o operation) identity() (identity, error) {
	var found identity
	switch o.Path {
	case "/securityContext":
		err := json.Unmarshal(o.Value, &found)
		return found, err
	case "/securityContext/runAsUser":
		id, err := o.id()
		return identity{RunAsUser: id}, err
	case "/securityContext/runAsGroup":
		id, err := o.id()
		return identity{RunAsGroup: id}, err
	}
	return identity{}, nil
}

func (o operation) id() (*int64, error) {
	var id *int64
	if err := json.Unmarshal(o.Value, &id); err != nil {
		return nil, err
	}
	if id == nil || o.Op == "remove" {
		return nil, fmt.Errorf("%s takes an id away", o.Op)
	}
	return id, nil
}

// writersPatch names the patch of the container that writes the files first and
// so owns them; a later one leaves the owner as it is.
func (r *reading) writersPatch() string {
	if r.isOn(namePrePopulate, true) {
		return nameInitPatch
	}
	return namePatch
}

func (r *reading) applyPatchIdentity(owner map[string]attribute) {
	name := r.writersPatch()
	operations, err := parsePatch(r.values[name])
	if err != nil {
		return
	}
	for _, o := range operations {
		found, err := o.identity()
		if err != nil || !o.setsIdentity() {
			continue
		}
		if found.RunAsUser != nil {
			r.reportUnread(owner["uid"].origin, "has no effect beside "+name+"; remove one of them")
			owner["uid"] = attribute{strconv.FormatInt(*found.RunAsUser, 10), name}
		}
		if found.RunAsGroup != nil {
			r.reportUnread(owner["gid"].origin, "has no effect beside "+name+"; remove one of them")
			owner["gid"] = attribute{strconv.FormatInt(*found.RunAsGroup, 10), name}
		}
	}
}
