package component

import (
	"os"
	"strings"
	"testing"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"github.com/stretchr/testify/require"

	"github.com/vaultmount/vaultmount/test/rig"
)

// Somebody rotates a secret and has the pod's volumes refreshed: the files are new, all of
// them at once.
func TestRefreshOnRequest(t *testing.T) {
	t.Parallel()
	fixture := startLastingVault(t)
	n := startNode(t, fixture.Server.Address, fixture.Vault)
	request := n.request(t, "app", map[string]string{"template/db": connectionTemplate, "secret/app": "old/app"})
	once := n.request(t, "once", map[string]string{"template/db": connectionTemplate, "refresh": "false", "token-file": "token"})
	for _, r := range []*csi.NodePublishVolumeRequest{request, once} {
		n.mustPublish(t, r)
	}
	before, written := identify(t, once.GetTargetPath()), look(t, request, "db")

	// A refresh that finds nothing new leaves everything as it is.
	const path = "internal/data/database/config"
	reads := fixture.requests(t, "read", path)
	n.refresh(t, request)
	if got := fixture.requests(t, "read", path); got <= reads {
		t.Error("the secret is not read again")
	}
	if got := look(t, request, "db"); got != written {
		t.Errorf("a file that did not change was written: %+v became %+v", written, got)
	}

	rotate(t, fixture.Vault)
	n.eventuallyHolds(t, request, "db", rotated)
	if got := look(t, request, "db"); got.generation == written.generation {
		t.Error("the file was changed in place")
	}
	if err := n.kubelet.Refresh(t.Context(), once); err == nil || !strings.Contains(err.Error(), "the volume is static") {
		t.Errorf("the refresh of a volume that is not refreshed: %v", err)
	}
	n.mustPublish(t, once)
	if got := mustRead(t, rig.VolumeFile(once, "db")); got != connection {
		t.Errorf("a volume that is not refreshed holds %q", got)
	}
	if after := identify(t, once.GetTargetPath()); after != before {
		t.Errorf("a volume that is not refreshed was written: %+v became %+v", before, after)
	}
	n.logs.requireNone(t, password, "rotated@", "hvs.")
}

type sight struct {
	generation string
	modified   time.Time
}

func look(t *testing.T, request *csi.NodePublishVolumeRequest, name string) sight {
	t.Helper()
	info, err := os.Stat(rig.VolumeFile(request, name))
	require.NoError(t, err)
	return sight{identify(t, request.GetTargetPath()).generation, info.ModTime()}
}
