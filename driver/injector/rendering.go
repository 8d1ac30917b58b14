package injector

import "strconv"

// renderingRows say when files are written and what becomes of leases.
func renderingRows() []row {
	return []row{
		// The driver's own interval may be another than the agent's five minutes.
		{[]string{nameStaticInterval}, honoured, checked(checkDurationOrSeconds, unless(emitInterval, "")), "empty"},
		{[]string{nameRenewal}, honoured, checked(checkThreshold, unless(emit("lease-renewal-threshold"), "0.9", "0.90")), "`0.90`"},
		// Before the first rendering the kubelet retries, as a restarted agent would;
		// the driver has no process in the pod that could exit.
		{[]string{"template-config-exit-on-retry-failure"}, inDriverTerms, checked(checkBool, silent()), "`true`, `false`"},
		// A CSI volume is there before any init container runs.
		{[]string{"agent-init-first"}, honoured, checked(checkBool, silent()), "`true`, `false`"},
		{[]string{namePrePopulate}, inDriverTerms, checked(checkBool, checkPrePopulate), "`true`"},
		{[]string{namePrePopulateOnly}, inDriverTerms, checked(checkBool, unlessFalse(emitNoRefresh)), "`false`"},
		{[]string{nameRevoke}, inDriverTerms, checked(checkBool, emitRevoke), ""},
		{[]string{"agent-revoke-grace"}, warnedAbout, checked(checkSeconds, unless(moot("has no effect: the Vault token is revoked after the containers have ended; remove it"), "5")), "`5`"},
		{[]string{"agent-cache-enable"}, refusedOutright, checked(checkBool, unlessFalse(checkCache)), "`false`"},
		{[]string{"agent-cache-use-auto-auth-token"}, warnedAbout, checked(checkList("true", "false", "force"), unless(mootCache(), "true")), "`true`"},
		{[]string{"agent-cache-listener-port"}, warnedAbout, unless(mootCache(), "8200"), "`8200`"},
		{[]string{"agent-cache-exit-on-err"}, warnedAbout, checked(checkBool, unlessFalse(mootCache())), "`false`"},
		{[]string{"agent-enable-quit"}, refusedOutright, checked(checkBool, unlessFalse(checkQuit)), "`false`"},
	}
}

// emitNoRefresh: the injector's init agent writes files once and ends.
func emitNoRefresh(r *reading, name, _ string) {
	emit("refresh")(r, name, "false")
}

// emitRevoke passes on both answers: a pod that does not say has the driver's.
func emitRevoke(r *reading, name, value string) {
	revoke, _ := parseBool(value) // checked
	emit("revoke-on-unpublish")(r, name, strconv.FormatBool(revoke))
}

// checkPrePopulate: a pod that gets its files late is one that the driver cannot
// make, and one that never gets any is a mistake.
func checkPrePopulate(r *reading, name, value string) {
	if r.isOn(name, true) {
		return
	}
	if r.isOn(namePrePopulateOnly, false) {
		r.refuse(name, "with %s the injector would render nothing at all; remove one of them", namePrePopulateOnly)
		return
	}
	r.warn(name, "secrets are always present before start, so while Vault is down the pod waits; remove it")
}

// checkCache refuses what the application would miss: the agent's listener. An
// init agent never opens it.
func checkCache(r *reading, name, _ string) {
	if r.isOn(namePrePopulateOnly, false) {
		r.warn(name, "has no effect with %s; remove it", namePrePopulateOnly)
		return
	}
	r.refuse(name, "nothing listens at localhost in the pod; remove it, and let the application talk to Vault or read files")
}

func mootCache() treatment {
	return moot("has no effect: there is no agent in the pod and so no cache; remove it")
}

// checkQuit: a Job that ends with a call to the agent would fail and run again.
func checkQuit(r *reading, name, _ string) {
	const text = "there is no agent to quit and the pod ends by itself; remove it together with the call to /agent/v1/quit, which would fail"
	if r.settings.AllowQuit {
		r.warn(name, text)
		return
	}
	r.refuse(name, text)
}
