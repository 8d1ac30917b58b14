package template

import (
	"fmt"
	"maps"
	"path"
	"slices"
)

// Where the injector's agent finds the files that templates may name.
const (
	accountDirectory = "/var/run/secrets/kubernetes.io/serviceaccount"
	tlsDirectory     = "/vault/tls"
	customDirectory  = "/vault/custom"
)

// file returns what the agent would find in one of a few files. No file is read.
func (e *execution) file(name string) (string, error) {
	if name == "" {
		return "", nil
	}
	if problem := checkFile(name); problem != nil {
		return "", e.failBy("file", problem)
	}
	name = path.Clean(name)
	if name == accountDirectory+"/namespace" {
		return e.variable("file", variableNamespace)
	}
	if name == accountDirectory+"/ca.crt" {
		if e.template.Pod.ClusterCA == "" {
			return "", e.failOnData("file: %q is not known to the driver (--cluster-ca-directory lacks ca.crt); every container has it at the same path", name)
		}
		return e.template.Pod.ClusterCA, nil
	}
	content, ok := e.template.Pod.SecretKeys[path.Base(name)]
	if !ok {
		return "", e.failOnData("file: %s", e.absentKey(name).text(e.isAuthors))
	}
	return content, nil
}

func (e *execution) absentKey(name string) *problem {
	keys := slices.Sorted(maps.Keys(e.template.Pod.SecretKeys))
	if len(keys) == 0 {
		return &problem{name, "is a key of the volume's Secret, and the volume has none; set csi.nodePublishSecretRef"}
	}
	return &problem{name, fmt.Sprintf("is no key of the Secret of csi.nodePublishSecretRef; its keys are %q", keys)}
}

// checkFile says whether file offers a path.
func checkFile(name string) *problem {
	switch clean := path.Clean(name); {
	case clean == accountDirectory+"/namespace", clean == accountDirectory+"/ca.crt":
		return nil
	case isSecretKey(clean):
		return nil
	case clean == accountDirectory+"/token":
		return &problem{name, "is the pod's identity and not for templates; every container has it at the same path"}
	}
	return &problem{name, "is a file that there is no agent to read; put its content into Vault, or into the volume's Secret as " + customDirectory + "/KEY"}
}

func isSecretKey(clean string) bool {
	directory := path.Dir(clean)
	return directory == tlsDirectory || directory == customDirectory
}
