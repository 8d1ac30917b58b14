package template

// The variables that the Vault Agent Injector gives to its agent, and the pod's
// name, which it does not. POD_IP is the one that cannot be had.
const (
	variableNamespace = "NAMESPACE"
	variablePodName   = "POD_NAME"
	variableHostIP    = "HOST_IP"
	variablePodIP     = "POD_IP"
)

func (e *execution) env(name string) (string, error) {
	return e.variable("env", name)
}

func (e *execution) mustEnv(name string) (string, error) {
	return e.variable("mustEnv", name)
}

func (e *execution) envOrDefault(name, otherwise string) (string, error) {
	if checkVariable(name) == nil && e.template.Pod.Environment[name] == "" {
		return otherwise, nil
	}
	return e.variable("envOrDefault", name)
}

func (e *execution) variable(function, name string) (string, error) {
	if problem := checkVariable(name); problem != nil {
		return "", e.failBy(function, problem)
	}
	value := e.template.Pod.Environment[name]
	if value == "" {
		return "", e.failOnData("%s: %s is not known on this node; the driver gets HOST_IP from --host-ip, and the others from the kubelet", function, name)
	}
	return value, nil
}

func checkVariable(name string) *problem {
	switch name {
	case variableNamespace, variablePodName, variableHostIP:
		return nil
	case variablePodIP:
		return &problem{name, "is not known yet when the volume is made, since the pod gets its address afterwards; take it from the downward API"}
	}
	return &problem{name, "is no variable of templates, which have NAMESPACE, POD_NAME and HOST_IP; write the value into the template or into Vault"}
}
