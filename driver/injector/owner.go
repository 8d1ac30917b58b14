package injector

import (
	"errors"
	"strconv"
)

// The injector's agent runs as the user of its image and so owns the files.
const (
	agentUser  = "100"
	agentGroup = "1000"
)

// identityRows choose the agent's user. There is no agent, but its user is the
// owner of the files.
func identityRows() []row {
	return []row{
		{[]string{nameRunAsUser}, inDriverTerms, checked(checkID, silent()), "`100`"},
		{[]string{nameRunAsGroup}, inDriverTerms, checked(checkID, silent()), "`1000`"},
		{[]string{nameRunAsSameUser}, inDriverTerms, checked(checkBool, silent()), "`false`; `true` if the container runs as 100"},
		{[]string{nameSetSecurityContext}, inDriverTerms, checked(checkBool, silent()), "the default, `true` unless set otherwise; the other if the pod runs as 100:1000 or says nothing"},
	}
}

func checkID(value string) error {
	if value == "" {
		return errors.New("is empty, for which the injector's agent runs as root; write the number")
	}
	_, err := strconv.ParseInt(value, 10, 64)
	return orWrite(err, "the number of a user or group")
}

// owner returns the attributes uid and gid. The pod's fsGroup, which the kubelet
// hands to the driver, wins over gid.
func (r *reading) owner() map[string]attribute {
	uid, gid := r.numeric(nameRunAsUser, agentUser), r.numeric(nameRunAsGroup, agentGroup)
	switch {
	case r.isOn(nameRunAsSameUser, false):
		uid = r.containerUser(uid)
	case !r.isOn(nameSetSecurityContext, !r.settings.NoSecurityContext) && !r.choosesUser():
		uid, gid = r.podIdentity(uid, gid)
	}
	if !r.isOn(nameSetSecurityContext, true) && r.choosesUser() {
		r.warn(nameSetSecurityContext, "has no effect beside agent-run-as-*; remove it")
	}
	owner := map[string]attribute{"uid": uid, "gid": gid}
	r.applyPatchIdentity(owner)
	return owner
}

func (r *reading) numeric(name, otherwise string) attribute {
	id, err := strconv.ParseInt(r.values[name], 10, 64)
	if err != nil {
		return attribute{otherwise, name}
	}
	return attribute{strconv.FormatInt(id, 10), name}
}

func (r *reading) choosesUser() bool {
	for _, name := range []string{nameRunAsUser, nameRunAsGroup, nameRunAsSameUser} {
		if _, present := r.values[name]; present {
			return true
		}
	}
	return false
}

// containerUser is for agent-run-as-same-user, which looks at the first container
// alone.
func (r *reading) containerUser(otherwise attribute) attribute {
	r.reportUnread(nameRunAsUser, "has no effect beside "+nameRunAsSameUser+"; remove one of them")
	refuse := func(text string) attribute {
		r.refuse(nameRunAsSameUser, "%s; set runAsUser in the container, or use %s", text, nameRunAsUser)
		return otherwise
	}
	containers := r.pod.Spec.Containers
	switch {
	case len(containers) == 0:
		return refuse("No containers found in Pod Spec")
	case containers[0].SecurityContext == nil:
		return refuse("No SecurityContext found for Container 0")
	case containers[0].SecurityContext.RunAsUser == nil:
		return refuse("RunAsUser is nil for Container 0's SecurityContext")
	case *containers[0].SecurityContext.RunAsUser == 0:
		return refuse("container not allowed to run as root")
	}
	return attribute{strconv.FormatInt(*containers[0].SecurityContext.RunAsUser, 10), nameRunAsSameUser}
}

// podIdentity is for an agent without a security context of its own: it runs as
// the pod does. OpenShift has put its choice into the pod by then.
func (r *reading) podIdentity(uid, gid attribute) (attribute, attribute) {
	user, group := (*int64)(nil), (*int64)(nil)
	if c := r.pod.Spec.Containers; len(c) > 0 && c[0].SecurityContext != nil {
		user, group = c[0].SecurityContext.RunAsUser, c[0].SecurityContext.RunAsGroup
	}
	if context := r.pod.Spec.SecurityContext; context != nil {
		user, group = firstOf(context.RunAsUser, user), firstOf(context.RunAsGroup, group)
	}
	if user != nil {
		uid = attribute{strconv.FormatInt(*user, 10), nameSetSecurityContext}
	}
	if group != nil {
		gid = attribute{strconv.FormatInt(*group, 10), nameSetSecurityContext}
	}
	return uid, gid
}

func firstOf(a, b *int64) *int64 {
	if a != nil {
		return a
	}
	return b
}

// sharesProcesses sets what agent-share-process-namespace asks for. Containers of
// the application may rely on seeing each other.
func (r *reading) sharesProcesses() bool {
	if !r.isOn(nameShareProcesses, false) {
		return false
	}
	if pod := r.pod.Spec; pod.ShareProcessNamespace != nil && !*pod.ShareProcessNamespace {
		r.refuse(nameShareProcesses, "shareProcessNamespace explicitly disabled on the pod, refusing to enable it; remove one of the two")
		return false
	}
	if r.hasCommand() {
		r.warn(nameShareProcesses, "there is no agent in the pod to run commands in it; remove it if it was for %sX only", familyCommand)
	}
	return true
}

func (r *reading) hasCommand() bool {
	for _, m := range r.matches {
		if m.family == familyCommand {
			return true
		}
	}
	return false
}
