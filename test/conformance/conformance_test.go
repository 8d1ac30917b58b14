// Package conformance holds the program against csi-sanity, the suite of the CSI
// project, as a process on its socket with a real Vault behind it. It tests only
// what that suite knows of: arguments, repeated calls and the removal of target
// paths.
package conformance

import (
	"slices"
	"strings"
	"testing"

	"github.com/kubernetes-csi/csi-test/v5/pkg/sanity"
	"github.com/onsi/ginkgo/v2"
	"github.com/onsi/ginkgo/v2/types"
	"github.com/onsi/gomega"
	"google.golang.org/grpc"

	"github.com/vaultmount/vaultmount/test/tally"
)

// passing are all specs of the suite that a driver with these capabilities can
// be compared with: a spec that the suite leaves out without a word is missed.
var passing = []string{
	"Identity Service GetPluginCapabilities should return appropriate capabilities",
	"Identity Service GetPluginInfo should return appropriate information",
	"Identity Service Probe should return appropriate information",
	"Node Service NodeGetCapabilities should return appropriate capabilities",
	"Node Service NodeGetInfo should return appropriate values",
	"Node Service NodeGetVolumeStats should fail when no volume id is provided",
	"Node Service NodeGetVolumeStats should fail when no volume path is provided",
	"Node Service NodeGetVolumeStats should fail when volume does not exist on the specified path",
	"Node Service NodeGetVolumeStats should fail when volume is not found",
	"Node Service NodePublishVolume should fail when no target path is provided",
	"Node Service NodePublishVolume should fail when no volume capability is provided",
	"Node Service NodePublishVolume should fail when no volume id is provided",
	"Node Service NodeUnpublishVolume should fail when no target path is provided",
	"Node Service NodeUnpublishVolume should fail when no volume id is provided",
	"Node Service NodeUnpublishVolume should remove target path",
	"Node Service should be idempotent",
	"Node Service should work",
}

// inapplicable are the specs of what the driver neither has nor advertises, by
// parts of their names.
var inapplicable = []string{
	"[Controller Server]",
	"[GroupController Server]",
	"[GroupController VolumeGroupSnapshots]",
	"Node Service NodeExpandVolume ",
	"Node Service NodeGetStorageHealth ",
	"Node Service NodeGetVolumeHealth ",
	"Node Service NodePublishVolume with single node multi writer capability ",
	"Node Service NodeStageVolume ",
	"Node Service NodeUnstageVolume ",
}

// Ginkgo runs its specs once in a process, so this test fails with -count=2.
func TestSanity(t *testing.T) {
	p := startProgram(t)
	config := sanity.NewTestConfig()
	config.Address = p.socket
	config.TargetPath = p.targetParent()
	config.StagingPath = "" // for drivers that stage
	config.SecretsFile = p.secretsFile(t)
	config.DialOptions = append(config.DialOptions, grpc.WithUnaryInterceptor(controller{p.request.GetVolumeContext()}.intercept))
	suite := sanity.GinkgoTest(&config)
	defer suite.Finalize()

	var report ginkgo.Report
	ginkgo.ReportAfterSuite("keep the report", func(r ginkgo.Report) { report = r })
	gomega.RegisterFailHandler(ginkgo.Fail)
	how, output := ginkgo.GinkgoConfiguration()
	// There is no controller but the test's own.
	how.SkipStrings = []string{"Controller Server", "GroupController"}
	how.RandomSeed = 1
	output.NoColor = true
	ginkgo.RunSpecs(t, "csi-sanity", how, output)
	checkReport(t, report)
	p.requireNoSecretShown(t)
}

func checkReport(t *testing.T, report ginkgo.Report) {
	t.Helper()
	specs := report.SpecReports.WithLeafNodeType(types.NodeTypeIt)
	var passed []string
	for _, spec := range specs {
		switch name := spec.FullText(); {
		case spec.State == types.SpecStatePassed:
			passed = append(passed, name)
		case spec.State.Is(types.SpecStateSkipped|types.SpecStatePending) && isInapplicable(name):
		default:
			t.Errorf("%s: %s", name, spec.State)
		}
	}
	slices.Sort(passed)
	if !slices.Equal(passed, passing) {
		t.Errorf("want these specs:\n%s\npassed are:\n%s", strings.Join(passing, "\n"), strings.Join(passed, "\n"))
	}
	tally.Record(t, "specs of csi-sanity", len(passing), max(len(passing)-len(passed), 0))
	t.Logf("csi-sanity: %d of %d passed; the other %d specs are of what the driver does not have", len(passed), len(passing), len(specs)-len(passing))
}

func isInapplicable(name string) bool {
	return slices.ContainsFunc(inapplicable, func(part string) bool { return strings.Contains(name, part) })
}
