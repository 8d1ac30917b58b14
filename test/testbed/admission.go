package testbed

import (
	"context"
	"strings"
)

// Admission is what the API server does with annotated pods now. It acts
// on a policy some time after it has stored it, and on each policy for itself: the
// guard may reject a pod that the mutating policy does not translate yet.
type Admission struct {
	Translates bool // the policy of deploy/policy gives pods their volumes
	Guards     bool // the guard of deploy/guard rejects what is not translated
}

// ProbeAdmission creates pods by dry run and returns what becomes of them.
func (t *Testbed) ProbeAdmission(ctx context.Context) Admission {
	const pod = `
apiVersion: v1
kind: Pod
metadata:
  name: probe
  annotations: {vault.hashicorp.com/agent-inject: "true", vault.hashicorp.com/role: app, FILE}
spec: {containers: [{name: app, image: app}]}`
	create := func(file string) (string, error) {
		return t.KubectlWithInput(ctx, strings.Replace(pod, "FILE", file, 1), "create", "--dry-run=server", "--filename=-", "--output=yaml")
	}
	translated, _ := create("vault.hashicorp.com/agent-inject-secret-db: kv/db")
	// The policy leaves a pod without a secret alone, so only the guard can reject it.
	_, err := create("vault.hashicorp.com/log-level: info")
	return Admission{
		Translates: strings.Contains(translated, "volumeAttributes"),
		Guards:     err != nil && strings.Contains(err.Error(), "vaultmount-guard"),
	}
}
