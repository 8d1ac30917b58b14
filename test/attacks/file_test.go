package attacks

import (
	"fmt"
	"strings"
	"testing"

	"github.com/container-storage-interface/spec/lib/go/csi"
)

// fileAttacks are about the names of files: each directory takes memory of the kernel.
func fileAttacks() []attack {
	return []attack{
		{name: "1,250 file names of 510 directories each", requests: directoryRequests},
		{name: "a template writes 3,000 files in 250 directories each", requests: writtenRequests},
		{name: "capacity is taken by one pod", requests: capacityRequests},
		{name: "40 pods render almost 4 MiB each", requests: outputRequests},
	}
}

func directoryRequests(t *testing.T, s *stage) []*csi.NodePublishVolumeRequest {
	t.Helper()
	attributes := map[string]string{}
	for i := range 1250 {
		attributes[fmt.Sprintf("template/%04d%s/f", i, strings.Repeat("/a", 509))] = "{{/**/}}"
	}
	return s.tenantRequests(t, 1, func(int) map[string]string { return attributes })
}

func writtenRequests(t *testing.T, s *stage) []*csi.NodePublishVolumeRequest {
	t.Helper()
	const text = `{{ $d := sprig_repeat 250 "/a" }}{{ range $i := loop 3000 }}{{ writeToFile (printf "%d%s/f" $i $d) "" "" "0600" "" }}{{ end }}`
	return s.tenantRequests(t, 1, func(int) map[string]string { return map[string]string{"template/a": text} })
}

// capacityRequests are 16 volumes of the largest size, twice what the chart gives.
func capacityRequests(t *testing.T, s *stage) []*csi.NodePublishVolumeRequest {
	t.Helper()
	return s.tenantRequests(t, 16, func(int) map[string]string { return map[string]string{"template/a": "x", "size": "16Mi"} })
}

// outputRequests are more at one time than the driver's memory could hold.
func outputRequests(t *testing.T, s *stage) []*csi.NodePublishVolumeRequest {
	t.Helper()
	const text = `{{ $x := sprig_repeat 70000 "x" }}{{ range loop 55 }}{{ $x }}{{ end }}`
	return s.tenantRequests(t, 40, func(int) map[string]string { return map[string]string{"template/a": text, "size": "8Mi"} })
}
