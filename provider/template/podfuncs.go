package template

import (
	"fmt"
	"maps"
	"path"
	"reflect"
	"slices"
	"strconv"
)

func (e *execution) envOrDefault(name, otherwise string) (string, error) {
	if checkVariable(name) == nil && e.template.Pod.Environment[name] == "" {
		return otherwise, nil
	}
	return e.variable("envOrDefault", name)
}

func (e *execution) variable(function, name string) (string, error) {
	if err := checkVariable(name); err != nil {
		return "", e.failOnArgument(function, err)
	}
	value := e.template.Pod.Environment[name]
	if value == "" {
		return "", e.failOnData("%s: %s is not known on this node; the driver gets HOST_IP from --host-ip, and the others from the kubelet", function, name)
	}
	return value, nil
}

// checkVariable allows the variables of the injector's agent, and the pod's name. POD_IP
// is the one that the driver cannot know.
func checkVariable(name string) *argumentError {
	switch name {
	case "NAMESPACE", "POD_NAME", "HOST_IP":
		return nil
	case "POD_IP":
		return &argumentError{name, "is not known when the volume is mounted, because the pod gets its address later; use the downward API"}
	}
	return &argumentError{name, "is not available to templates, only NAMESPACE, POD_NAME and HOST_IP are; write the value into the template or into Vault"}
}

// Where the injector's agent has the files that templates may name.
const (
	serviceAccountDirectory = "/var/run/secrets/kubernetes.io/serviceaccount"
	tlsDirectory            = "/vault/tls"
	customDirectory         = "/vault/custom"
)

// file returns the content of the few files that the agent has. It opens no file.
func (e *execution) file(name string) (string, error) {
	if name == "" {
		return "", nil
	}
	if err := checkFile(name); err != nil {
		return "", e.failOnArgument("file", err)
	}
	pod, clean := e.template.Pod, path.Clean(name)
	switch clean {
	case serviceAccountDirectory + "/namespace":
		return e.variable("file", "NAMESPACE")
	case serviceAccountDirectory + "/ca.crt":
		if pod.ClusterCA == "" {
			return "", e.failOnData("file: %q is not known to the driver (--cluster-ca-directory has no ca.crt); every container has it at the same path", clean)
		}
		return pod.ClusterCA, nil
	}
	content, ok := pod.SecretKeys[path.Base(clean)]
	if !ok {
		absent := &argumentError{clean, "is a key of the volume's Secret, and the volume has none; set csi.nodePublishSecretRef"}
		if keys := slices.Sorted(maps.Keys(pod.SecretKeys)); len(keys) > 0 {
			absent.what = fmt.Sprintf("is no key of the Secret of csi.nodePublishSecretRef; its keys are %q", keys)
		}
		return "", e.failOnData("file: %s", absent.text(e.isLiteral(clean)))
	}
	return content, nil
}

func checkFile(name string) *argumentError {
	switch clean := path.Clean(name); {
	case clean == serviceAccountDirectory+"/namespace", clean == serviceAccountDirectory+"/ca.crt":
		return nil
	case path.Dir(clean) == tlsDirectory, path.Dir(clean) == customDirectory:
		return nil
	case clean == serviceAccountDirectory+"/token":
		return &argumentError{name, "is the pod's identity, and templates cannot read it; every container has it at the same path"}
	}
	return &argumentError{name, "cannot be read: templates read no files of the pod; put its content into Vault, or into the volume's Secret as " + customDirectory + "/KEY"}
}

// maxLoop bounds loop. The memory for a million numbers is 8 MiB.
const maxLoop = 1 << 20

// loop counts from 0 to a number, or from one number to another. Consul-template's starts
// a goroutine that never ends unless the template takes all numbers; a closed channel that
// holds them behaves the same.
func (e *execution) loop(limits ...any) (<-chan int64, error) {
	if len(limits) != 1 && len(limits) != 2 {
		return nil, e.fail("loop: takes 1 or 2 numbers and not %d", len(limits))
	}
	var numbers []int64
	for _, limit := range limits {
		number, ok := toInt64(limit)
		if !ok {
			return nil, e.failOnData("loop: an argument of type %T is not an integer", limit)
		}
		numbers = append(numbers, number)
	}
	start, end := int64(0), numbers[len(numbers)-1]
	if len(numbers) == 2 {
		start = numbers[0]
	}
	if start < end && (end-start < 0 || end-start > maxLoop) { // below 0, the difference overflows
		return nil, e.failOnData("loop: more than %d iterations", maxLoop)
	}
	counted := make(chan int64, max(end-start, 0))
	for i := start; i < end; i++ {
		counted <- i
	}
	close(counted)
	return counted, nil
}

func toInt64(value any) (int64, bool) {
	switch v := reflect.ValueOf(value); {
	case v.CanInt():
		return v.Int(), true
	case v.CanUint() && v.Kind() != reflect.Uintptr:
		return int64(v.Uint()), true
	case v.Kind() == reflect.String:
		if v.String() == "" {
			return 0, true
		}
		number, err := strconv.ParseInt(v.String(), 10, 64)
		return number, err == nil
	}
	return 0, false
}
