package monitor

import (
	"fmt"
	"strings"
)

// Find returns the volumes that a name means: a pod, a pod with its namespace, one
// of its volumes (namespace/pod/volume), or the beginning of a volume's id. The
// error says what would have been found.
func Find(volumes []Volume, name string) ([]Volume, error) {
	var found []Volume
	for _, v := range volumes {
		if v.isCalled(name) {
			found = append(found, v)
		}
	}
	if len(found) > 0 {
		return found, nil
	}
	const most = 5
	var known []string
	for _, v := range volumes[:min(len(volumes), most)] {
		known = append(known, v.Namespace+"/"+v.Pod+"/"+v.Name)
	}
	switch {
	case len(known) == 0:
		return nil, fmt.Errorf("no volume %q: there is none on this node", name)
	case len(volumes) > most:
		known = append(known, fmt.Sprintf("and %d more", len(volumes)-most))
	}
	return nil, fmt.Errorf("no volume %q on this node; write a pod, namespace/pod, namespace/pod/volume, or a volume id; there are %s", name, strings.Join(known, ", "))
}

func (v Volume) isCalled(name string) bool {
	pod := v.Namespace + "/" + v.Pod
	switch name {
	case v.Pod, pod, pod + "/" + v.Name:
		return true
	}
	const least = 8 // of an id's 68 characters, "csi-" among them
	return len(name) >= least && strings.HasPrefix(v.ID, name)
}
