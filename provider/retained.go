package provider

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/vaultmount/vaultmount/provider/limits"
	render "github.com/vaultmount/vaultmount/provider/template"
	"github.com/vaultmount/vaultmount/provider/vault"
)

// RetainedBytes is about how many bytes of memory a published volume holds besides its
// files: what Vault said, and the templates and certificates that it came with. It is
// 0 for a volume that is not published. It waits for no Vault.
func (p *Provider) RetainedBytes(volumeID string) int64 {
	v := p.find(volumeID)
	if v == nil {
		return 0
	}
	return v.retained.Load()
}

// retain counts the memory of a volume again. It is for whoever fetches for the volume.
func (v *volume) retain() {
	endpoint, _ := v.way()
	total := v.answers.size().Memory() + v.answers.acceptedSize().Memory()
	for _, output := range v.outputs {
		total += int64(len(output.Template.Text) + len(output.Template.Name))
	}
	total += int64(len(endpoint.CACert) + len(endpoint.ClientCert) + len(endpoint.ClientKey))
	v.retained.Store(total)
}

// namespaceOf takes a pod as Request.Pod has it.
func namespaceOf(pod string) string {
	namespace, _, _ := strings.Cut(pod, "/")
	return namespace
}

// checkDependencies refuses to ask for more than a volume may have. Those that are not
// used any more after a refresh do not count.
func (a *access) checkDependencies(more int) error { return checkDependencies(a.learnt + more) }

func checkDependencies(count int) error {
	if err := limits.Dependencies.Check(count); err != nil {
		return fmt.Errorf("%w: the templates of the volume together: %w; split the volume", ErrTemplate, err)
	}
	return nil
}

// size is that of all answers.
func (a answers) size() vault.Size {
	var total vault.Size
	for _, each := range a {
		total = total.Add(sizeOf(each.said))
	}
	return total
}

// acceptedSize is that of the values which the files show in the place of candidates. It
// counts for the memory, and not against what a volume may read: the secret that replaces
// a candidate could not be read otherwise.
func (a answers) acceptedSize() vault.Size {
	var total vault.Size
	for _, each := range a {
		if each.isCandidate && each.accepted != nil {
			total = total.Add(sizeOf(*each.accepted))
		}
	}
	return total
}

// sizeOf is about the size that an answer has as JSON.
func sizeOf(said render.Value) vault.Size {
	var size vault.Size
	for _, name := range said.Names {
		size = size.Add(sizeOfValue(name))
	}
	if said.Secret == nil {
		return size
	}
	size = size.Add(sizeOfValue(said.Secret.Data))
	size.Bytes += 256 // request id, lease and the like
	for _, warning := range said.Secret.Warnings {
		size = size.Add(sizeOfValue(warning))
	}
	if auth := said.Secret.Auth; auth != nil {
		for _, text := range slices.Concat(auth.Policies, []string{auth.ClientToken, auth.Accessor}) {
			size = size.Add(sizeOfValue(text))
		}
		for key, value := range auth.Metadata {
			size = size.Add(sizeOfValue(key)).Add(sizeOfValue(value))
		}
	}
	return size
}

func sizeOfValue(value any) vault.Size {
	size := vault.Size{Bytes: 3, Values: 1}
	switch v := value.(type) {
	case string:
		size.Bytes += len(v)
	case json.Number:
		size.Bytes += len(v)
	case []any:
		for _, each := range v {
			size = size.Add(sizeOfValue(each))
		}
	case map[string]any:
		size.Objects++
		for key, each := range v {
			size.Bytes += len(key) + 3
			size = size.Add(sizeOfValue(each))
		}
	}
	return size
}
