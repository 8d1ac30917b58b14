package injector

// agentRows are settings of the agent container, which the pod no longer has.
func agentRows() []row {
	const (
		noAgent   = "has no effect: there is no agent container in the pod; remove it"
		resources = "has no effect: the pod has no agent container, which also lowers what ResourceQuota and LimitRange count; remove it"
		log       = "has no effect: the driver's log has one setting for the cluster; remove it"
	)
	quantity := checked(checkQuantity, unless(moot(resources), ""))
	return []row{
		{[]string{nameExtraSecret}, inDriverTerms, unless(checkSecretName, ""), "empty"},
		{[]string{"agent-copy-volume-mounts"}, warnedAbout, unless(moot("has no effect: there is no agent container to copy mounts into; remove it"), ""), "empty"},
		{[]string{"agent-image"}, warnedAbout, unless(moot(noAgent), ""), "empty"},
		{[]string{"agent-limits-cpu"}, warnedAbout, quantity, "empty"},
		{[]string{"agent-limits-mem"}, warnedAbout, quantity, "empty"},
		{[]string{"agent-limits-ephemeral"}, warnedAbout, quantity, "empty"},
		{[]string{"agent-requests-cpu"}, warnedAbout, quantity, "empty"},
		{[]string{"agent-requests-mem"}, warnedAbout, quantity, "empty"},
		{[]string{"agent-requests-ephemeral"}, warnedAbout, quantity, "empty"},
		{[]string{"go-max-procs"}, warnedAbout, unless(moot(noAgent), ""), "empty"},
		{[]string{"log-level"}, warnedAbout, unless(moot(log), "", "info"), "`info`, empty"},
		{[]string{"log-format"}, warnedAbout, unless(moot(log), "", "standard"), "`standard`, empty"},
		{[]string{familyTelemetry + "Y"}, warnedAbout, checkTelemetry, ""},
		{[]string{namePatch}, warnedAbout, checkPatch, "empty, `null`, `[]`"},
		{[]string{nameInitPatch}, warnedAbout, checkPatch, "empty, `null`, `[]`"},
	}
}

func checkTelemetry(r *reading, name, value string) {
	if err := checkJSON(value); err != nil {
		r.warn(name, "%v", err)
		return
	}
	r.warn(name, "has no effect: the driver has metrics of its own; remove it")
}

func checkNamespace(r *reading, name, value string) {
	if value != r.namespace {
		r.warn(name, "has no effect: the pod acts in its own namespace; remove it")
	}
}
