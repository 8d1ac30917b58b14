package bench

import (
	"fmt"
	"testing"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"github.com/stretchr/testify/require"

	"github.com/vaultmount/vaultmount/test/rig"
)

// level is what a node costs that has a number of volumes.
type level struct {
	volumes int
	// driver and renderers are proportional memory, heap is what the driver keeps,
	// tmpfs what the files take and state what the records do, all in bytes.
	driver, renderers, heap, tmpfs, state float64
	// publish is the time of one more volume.
	publish Series
	// republish is the CPU time of the driver for one, on a kept connection.
	republish time.Duration
}

// growth fills a node step by step.
func growth(b *testing.B, r *Report, vault *rig.Vault, size size) {
	n := startNode(b, vault)
	defer n.end(b)
	// A node that has seen volumes has everything that does not depend on their number.
	first := n.requests(b, "first", size.samples, 1)
	inParallel(b, len(first), 8, func(i int) error { _, err := n.publish(b.Context(), first[i], 1); return err })
	n.remove(b, first)
	levels := []level{measureLevel(b, n, nil, size)}
	var requests []*csi.NodePublishVolumeRequest
	for _, volumes := range size.levels {
		more := n.requests(b, fmt.Sprintf("growth-%d", volumes), volumes-len(requests), 1)
		inParallel(b, len(more), 8, func(i int) error { _, err := n.publish(b.Context(), more[i], 1); return err })
		requests = append(requests, more...)
		levels = append(levels, measureLevel(b, n, requests, size))
	}
	n.remove(b, requests)
	reportGrowth(r, levels, size)
	reportMemory(b, r, n, levels, size)
}

func measureLevel(b *testing.B, n *node, requests []*csi.NodePublishVolumeRequest, size size) level {
	l := level{volumes: len(requests)}
	if len(requests) > 0 {
		l.republish = n.republishTime(b, requests, size.republishes)
		some := n.requests(b, fmt.Sprintf("one-more-%d", l.volumes), size.samples, 1)
		for _, request := range some {
			took, err := n.publish(b.Context(), request, 1)
			require.NoError(b, err)
			l.publish = append(l.publish, took)
		}
		n.remove(b, some)
	}
	l.heap = n.liveHeap(b)
	l.driver = proportional(b, n.Process.Process.Pid)
	for _, pid := range n.Process.Children(b) {
		l.renderers += proportional(b, pid)
	}
	l.tmpfs, l.state = n.metric(b, "vaultmount_volumes_used_bytes"), n.metric(b, "vaultmount_checkpoint_used_bytes")
	return l
}

func reportGrowth(r *Report, levels []level, size size) {
	section := Section{
		Title: "Growth with the number of volumes",
		Text: fmt.Sprintf("%d more volumes one after the other, and %d republishes, on a node that has a number of volumes. An exponent of 0 is a cost that\n"+
			"does not depend on the number, 1 one in proportion to it.", size.samples, size.republishes),
		Head: []string{"volumes", "one more, p50", "republish, CPU time"},
		Plot: "growth.svg",
	}
	plot := Plot{File: section.Plot, Title: "Growth with the number of volumes", XLabel: "volumes", YLabel: "µs", LogX: true, LogY: true}
	publish, republish := Line{Name: "one more volume, p50"}, Line{Name: "republish, CPU time"}
	for _, each := range levels[1:] {
		section.Rows = append(section.Rows, []string{fmt.Sprint(each.volumes), Milliseconds(each.publish.Median()), Microseconds(each.republish)})
		for line, value := range map[*Line]time.Duration{&publish: each.publish.Median(), &republish: each.republish} {
			line.X, line.Y = append(line.X, float64(each.volumes)), append(line.Y, float64(value.Nanoseconds())/1000)
		}
	}
	plot.Lines = []Line{publish, republish}
	first, last := levels[1], levels[len(levels)-1]
	r.Put(TimeExponent, Exponent(first.volumes, last.volumes, float64(first.publish.Median()), float64(last.publish.Median())), Lower)
	r.Put(RepublishExponent, Exponent(first.volumes, last.volumes, float64(first.republish), float64(last.republish)), Lower)
	r.Put(MemoryExponent, memoryExponent(levels), Lower)
	section.After = fmt.Sprintf("Exponents: time %.3f, CPU time of a republish %.3f, memory per volume %.3f.",
		r.Ratios[TimeExponent].Value, r.Ratios[RepublishExponent].Value, r.Ratios[MemoryExponent].Value)
	r.Sections, r.Plots = append(r.Sections, section), append(r.Plots, plot)
}

// memoryExponent compares what a volume adds to a node of some with what it adds to
// a node of many. What the first hundred add is as small as what the heap of an
// empty node differs by from one look to the next.
func memoryExponent(levels []level) float64 {
	added := func(i int) float64 {
		return (levels[i].heap - levels[i-1].heap) / float64(levels[i].volumes-levels[i-1].volumes)
	}
	last := len(levels) - 1
	some := max(last-1, 1)
	return Exponent(levels[some].volumes, levels[last].volumes, added(some), added(last))
}

func reportMemory(b *testing.B, r *Report, n *node, levels []level, size size) {
	agents := measureAgents(b, n, size.sidecars)
	section := Section{
		Title: "Memory",
		Text: "One secret for each volume. Proportional memory (PSS) is of the driver and of the processes that run templates; the heap is what the\n" +
			"driver keeps after a collection, and its increment what one more volume costs. The files themselves, and the records that outlive the\n" +
			"process, are tmpfs and counted apart.",
		Head: []string{"volumes", "driver, PSS", "renderers, PSS", "heap", "heap per volume", "files per volume", "records per volume"},
		Plot: "memory.svg",
	}
	line := Line{Name: "driver and renderers, PSS"}
	agentLine := Line{Name: "as many agents"}
	at := levels[len(levels)-1]
	for _, each := range levels {
		row := []string{fmt.Sprint(each.volumes), MiB(each.driver), MiB(each.renderers), MiB(each.heap), "–", "–", "–"}
		if each.volumes > 0 {
			count := float64(each.volumes)
			row[4], row[5], row[6] = KiB((each.heap-levels[0].heap)/count), KiB(each.tmpfs/count), KiB(each.state/count)
			line.X, line.Y = append(line.X, count), append(line.Y, (each.driver+each.renderers)/(1<<20))
			agentLine.X, agentLine.Y = append(agentLine.X, count), append(agentLine.Y, agents*count/(1<<20))
		}
		if each.volumes == 1000 {
			at = each
		}
		section.Rows = append(section.Rows, row)
	}
	perVolume := (at.heap - levels[0].heap) / float64(at.volumes)
	r.Put(HeapPerVolume, perVolume/1024, Lower)
	r.Put(AgentOverMemory, agents/perVolume, Higher)
	section.After = fmt.Sprintf("%d agents run beside each other have %s each (PSS): %.0f times what one more volume costs.", size.sidecars, MiB(agents), agents/perVolume)
	r.Sections = append(r.Sections, section)
	r.Plots = append(r.Plots, Plot{File: section.Plot, Title: "Memory of a node", XLabel: "pods", YLabel: "MiB", LogX: true, LogY: true, Lines: []Line{line, agentLine}})
}

// measureAgents is the proportional memory of one of a number of agents that run
// beside each other.
func measureAgents(b *testing.B, n *node, count int) float64 {
	total := 0.0
	var pids []int
	for i := range count {
		a := newAgent(b, n.Vault, fmt.Sprintf("sidecar-%d", i), n.paths[:1], 0)
		pids = append(pids, a.sidecar(b).Process.Pid)
		a.awaitFiles(b)
	}
	for _, pid := range pids {
		total += proportional(b, pid)
	}
	return total / float64(count)
}
