package conformance

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"github.com/stretchr/testify/require"
	"sigs.k8s.io/yaml"

	"github.com/vaultmount/vaultmount/test/rig"
	"github.com/vaultmount/vaultmount/test/tally"
)

// program is a driver in a process of its own, and what the kubelet sends for the
// pod whose volumes it is asked for.
type program struct {
	*rig.Process
	kubelet *rig.Kubelet
	socket  string
	request *csi.NodePublishVolumeRequest
}

func startProgram(t *testing.T) *program {
	t.Helper()
	vault, kubelet := rig.StartVault(t), rig.NewKubelet(t)
	p := &program{kubelet: kubelet, socket: kubelet.Endpoint(), request: kubelet.Request(t, vault, "conformance", map[string]string{
		"template/db": `{{ with secret "internal/database/config" }}{{ .Data.data.password }}{{ end }}`,
	})}
	// The suite makes the parent of the target path, before each spec.
	require.NoError(t, os.RemoveAll(p.targetParent()))
	p.Process = rig.StartProcess(t, kubelet, vault.Server.Address)
	t.Cleanup(func() { p.Stop(t) })
	return p
}

// requireNoSecretShown looks at all that the driver shows after the suite has been
// through with it, and while a volume is there.
func (p *program) requireNoSecretShown(t *testing.T) {
	t.Helper()
	require.NoError(t, os.MkdirAll(p.targetParent(), 0o750))
	calls := rig.Calls(p.socket)
	if _, err := calls.NodePublishVolume(t.Context(), p.request); err != nil {
		t.Fatal(err)
	}
	looked := rig.Planted().RequireNoneOf(t, p.Shown(t, p.kubelet, p.request.GetTargetPath()))
	tally.AtEnd(t, "texts and files searched for secrets", looked)
	if _, err := calls.NodeUnpublishVolume(t.Context(), rig.Unpublish(p.request)); err != nil {
		t.Error(err)
	}
}

func (p *program) targetParent() string { return filepath.Dir(p.request.GetTargetPath()) }

// secretsFile holds what the kubelet sends under serviceAccount.tokens, for the
// suite.
func (p *program) secretsFile(t *testing.T) string {
	t.Helper()
	text, err := yaml.Marshal(map[string]any{"NodePublishVolumeSecret": p.request.GetSecrets()})
	require.NoError(t, err)
	path := filepath.Join(t.TempDir(), "secrets.yaml")
	require.NoError(t, os.WriteFile(path, text, 0o600))
	return path
}
