package bench

import (
	"fmt"
	"math"
	"os"
	"testing"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/vaultmount/vaultmount/test/rig"
)

// kept is one connection to the driver for many calls: what a call itself costs is
// seen without the connection that the kubelet makes for each.
func (n *node) kept(b testing.TB) csi.NodeClient {
	b.Helper()
	connection, err := grpc.NewClient("unix://"+n.Endpoint(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	require.NoError(b, err)
	b.Cleanup(func() { _ = connection.Close() })
	return csi.NewNodeClient(connection)
}

// driverTime is the driver's CPU time for one of a number of calls.
func (n *node) driverTime(b testing.TB, count int, call func(i int) error) time.Duration {
	b.Helper()
	before := cpuTime(b, n.Process.Process.Pid)
	for i := range count {
		require.NoError(b, call(i))
	}
	return (cpuTime(b, n.Process.Process.Pid) - before) / time.Duration(count)
}

// republishTime is for volumes that are published: the driver has heard it all before.
func (n *node) republishTime(b testing.TB, requests []*csi.NodePublishVolumeRequest, count int) time.Duration {
	b.Helper()
	calls := n.kept(b)
	return n.driverTime(b, count, func(i int) error {
		_, err := calls.NodePublishVolume(b.Context(), requests[i%len(requests)])
		return err
	})
}

// processor measures what a node with many volumes costs while nothing happens to
// them.
func processor(b *testing.B, r *Report, vault *rig.Vault, size size) {
	quiet := startNode(b, vault)
	requests := quiet.requests(b, "quiet", size.idle, 1)
	inParallel(b, len(requests), 8, func(i int) error { _, err := quiet.publish(b.Context(), requests[i], 1); return err })
	calls := quiet.kept(b)
	asked := quiet.asked(b)
	republish := quiet.republishTime(b, requests, size.republishes)
	capabilities := quiet.driverTime(b, size.republishes, func(int) error {
		_, err := calls.NodeGetCapabilities(b.Context(), &csi.NodeGetCapabilitiesRequest{})
		return err
	})
	connected := quiet.driverTime(b, size.republishes, func(i int) error {
		_, err := quiet.Calls.NodePublishVolume(b.Context(), requests[i%len(requests)])
		return err
	})
	r.Put(RepublishRequests, quiet.asked(b)-asked, Lower)
	r.Put(RepublishTime, float64(republish.Nanoseconds())/1000, Lower)
	r.Put("republish: CPU time over that of a call that does nothing", Over(republish, capabilities), Lower)
	r.Put(RepublishMountTable, quiet.mountTableReads(b, requests), Lower)
	idle := share(b, quiet, size.watch)
	quiet.remove(b, requests)
	quiet.end(b)
	refreshDriver, refreshRenderers, refreshes := measureRefreshes(b, vault, size)
	refresh := refreshDriver + refreshRenderers

	// At the default interval of five minutes, less jitter, and republishes every 75 s.
	const perSecond = 1 / 270.0
	busy := idle + float64(size.idle)*(refresh.Seconds()*perSecond+republish.Seconds()/75)
	r.Put(IdleShare, 100*busy*1000/float64(size.idle), Lower)
	r.Sections = append(r.Sections, Section{
		After: fmt.Sprintf("Of a republish, %s are the driver's own; the rest is what any gRPC call costs.", Microseconds(republish-capabilities)),
		Title: "CPU time",
		Text: fmt.Sprintf("%d volumes, one static secret each, a read of it every 10 s in one process and every 5 min in the other. A republish is the kubelet's\n"+
			"call for a volume that is mounted, which it makes for each every 60 to 90 s.", size.idle),
		Head: []string{"what", "CPU time"},
		Rows: [][]string{
			{"1,000 republishes on one connection", Milliseconds(1000 * republish)},
			{"1,000 republishes, each on a connection of its own, as the kubelet makes them", Milliseconds(1000 * connected)},
			{"1,000 calls that do nothing (NodeGetCapabilities), on one connection", Milliseconds(1000 * capabilities)},
			{fmt.Sprintf("1,000 refreshes of an unchanged secret (of %.0f), driver", refreshes), Milliseconds(1000 * refreshDriver)},
			{"1,000 refreshes of an unchanged secret, renderers", Milliseconds(1000 * refreshRenderers)},
			{fmt.Sprintf("%d idle volumes between refreshes, %% of a core", size.idle), fmt.Sprintf("%.3f", 100*idle)},
			{fmt.Sprintf("%d idle volumes with their refreshes and republishes at the usual intervals, %% of a core", size.idle), fmt.Sprintf("%.3f", 100*busy)},
		},
	})
}

// asked is how many requests to Vault the driver has made.
func (n *node) asked(b testing.TB) float64 {
	b.Helper()
	total := 0.0
	for name, value := range n.metrics(b) {
		if isRequestCount(name) {
			total += value
		}
	}
	return total
}

// mountTableReads is how often the driver can have read its mount table for one
// republish, by the bytes that it reads at all: with many volumes, the table is much
// longer than everything else.
func (n *node) mountTableReads(b testing.TB, requests []*csi.NodePublishVolumeRequest) float64 {
	b.Helper()
	table, err := os.ReadFile(fmt.Sprintf("/proc/%d/mountinfo", n.Process.Process.Pid))
	require.NoError(b, err)
	before := bytesRead(b, n.Process.Process.Pid)
	n.republishTime(b, requests, len(requests))
	return math.Floor((bytesRead(b, n.Process.Process.Pid) - before) / float64(len(requests)) / float64(len(table)))
}

// share is the part of a core that a node takes over a time.
func share(b testing.TB, n *node, over time.Duration) float64 {
	b.Helper()
	driver, renderers := n.processorTimes(b)
	start := time.Now()
	time.Sleep(over) // the measurement itself
	driverAfter, renderersAfter := n.processorTimes(b)
	return (driverAfter - driver + renderersAfter - renderers).Seconds() / time.Since(start).Seconds()
}

// measureRefreshes has all volumes read their secrets at the shortest interval.
func measureRefreshes(b *testing.B, vault *rig.Vault, size size) (driver, renderers time.Duration, count float64) {
	n := startNode(b, vault, "--static-secret-render-interval=10s")
	requests := n.requests(b, "busy", size.idle, 1)
	inParallel(b, len(requests), 8, func(i int) error { _, err := n.publish(b.Context(), requests[i], 1); return err })
	const counted = `vaultmount_refreshes_total{result="success"}`
	before := n.metric(b, counted)
	driverBefore, renderersBefore := n.processorTimes(b)
	time.Sleep(size.watch) // the measurement itself
	driverAfter, renderersAfter := n.processorTimes(b)
	count = n.metric(b, counted) - before
	if count == 0 {
		b.Fatal("no volume was refreshed")
	}
	n.remove(b, requests)
	n.end(b)
	return time.Duration(float64(driverAfter-driverBefore) / count), time.Duration(float64(renderersAfter-renderersBefore) / count), count
}
