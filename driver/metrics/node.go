package metrics

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/vaultmount/vaultmount/provider"
)

// NodeStats describe a node at one time.
type NodeStats struct {
	provider.Stats

	// Tmpfs is what the volumes take together, and State what the driver keeps of
	// them.
	Tmpfs, State Space
	// StateMounted is true when the next process finds the state.
	StateMounted bool
	// Budget is what the volumes may take together, in bytes; 0 for no limit.
	Budget int64
	// NamespaceCapacity is what the volumes of one namespace may take of that, in bytes; 0
	// for no limit. LargestNamespace is what those of the namespace with most of it take.
	NamespaceCapacity, LargestNamespace int64
	// Unrecorded is how many volumes are mounted that the driver has no record of.
	Unrecorded int
	// Registered is true when the kubelet knows this process, or the one whose place
	// it took.
	Registered bool
}

// Space is the memory of tmpfs mounts in bytes.
type Space struct{ Used, Size int64 }

// gauges read a node's numbers when they are asked for.
type gauges struct {
	read    func() NodeStats
	numbers []gauge
	breaker *prometheus.Desc
}

type gauge struct {
	desc  *prometheus.Desc
	value func(NodeStats) float64
}

// RegisterNode adds gauges that call read at each scrape. It is called once.
func (m *Recorder) RegisterNode(read func() NodeStats) {
	g := &gauges{read: read, breaker: describe("circuit_open", "1 while requests to the Vault at the address are held back, as it does not serve; \"other\" is any but the driver's own.", "address")}
	add := func(name, help string, value func(NodeStats) float64) {
		g.numbers = append(g.numbers, gauge{describe(name, help), value})
	}
	add("volumes", "Volumes that are kept fresh.", func(n NodeStats) float64 { return float64(n.Volumes) })
	add("volumes_failing", "Volumes whose files may be older than Vault's content.", func(n NodeStats) float64 { return float64(n.Failing) })
	add("volumes_unrecorded", "Volumes that are mounted and that the driver has no record of; it takes them over at their next republish.", func(n NodeStats) float64 { return float64(n.Unrecorded) })
	add("sessions", "Vault tokens of pods.", func(n NodeStats) float64 { return float64(n.Sessions) })
	add("sessions_shared", "Of those, tokens that the pods of a service account share.", func(n NodeStats) float64 { return float64(n.SessionsShared) })
	add("volumes_sharing", "Volumes of pods that share a Vault token.", func(n NodeStats) float64 { return float64(n.VolumesSharing) })
	add("sessions_failing", "Pods whose Vault token cannot be had or renewed.", func(n NodeStats) float64 { return float64(n.SessionsFailing) })
	add("leases", "Leases of Vault that are kept alive.", func(n NodeStats) float64 { return float64(n.Leases) })
	add("refresh_lag_seconds", "For how long the most overdue refresh has been due; 0 if none is.", func(n NodeStats) float64 { return n.QueueLag.Seconds() })
	add("unrefreshed_seconds", "Of the volumes that fail, the longest time since all was well; 0 if none fails.", func(n NodeStats) float64 { return n.OldestFailure.Seconds() })
	add("revocations_waiting", "Vault tokens of pods that are gone, waiting to be revoked.", func(n NodeStats) float64 { return float64(n.PendingRevocations) })
	add("tmpfs_bytes", "Memory that the files of all volumes take.", func(n NodeStats) float64 { return float64(n.Tmpfs.Used) })
	add("tmpfs_size_bytes", "Capacity of the node that all volumes take: their sizes, 1 KiB for each inode, and what the driver keeps of Vault's responses.", func(n NodeStats) float64 { return float64(n.Tmpfs.Size) })
	add("tmpfs_budget_bytes", "Capacity of the node for volumes (--volume-budget); 0 for no limit.", func(n NodeStats) float64 { return float64(n.Budget) })
	add("tmpfs_namespace_size_bytes", "Capacity of the node that the volumes of one namespace take, of the namespace that takes most.", func(n NodeStats) float64 { return float64(n.LargestNamespace) })
	add("tmpfs_namespace_limit_bytes", "Capacity of the node that the volumes of one namespace may take (--namespace-share); 0 for no limit.", func(n NodeStats) float64 { return float64(n.NamespaceCapacity) })
	add("state_bytes", "Memory that the driver's state takes.", func(n NodeStats) float64 { return float64(n.State.Used) })
	add("state_size_bytes", "Memory that the records of the driver's state may take, those of tokens to revoke left out.", func(n NodeStats) float64 { return float64(n.State.Size) })
	add("state_namespaces_unsaved", "Namespaces of which the last record was not saved, since the state or their share of it is full.", func(n NodeStats) float64 { return float64(n.Unsaved) })
	add("state_mounted", "1 when the driver's state is mounted where its next process looks for it.", func(n NodeStats) float64 { return number(n.StateMounted) })
	add("registered", "1 when the kubelet knows the driver.", func(n NodeStats) float64 { return number(n.Registered) })
	m.registry.MustRegister(g)
}

func describe(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc(namespace+"_"+name, help, labels, nil)
}

func number(is bool) float64 {
	if is {
		return 1
	}
	return 0
}

// Describe implements prometheus.Collector.
func (g *gauges) Describe(descriptions chan<- *prometheus.Desc) {
	for _, each := range g.numbers {
		descriptions <- each.desc
	}
	descriptions <- g.breaker
}

// Collect implements prometheus.Collector.
func (g *gauges) Collect(metrics chan<- prometheus.Metric) {
	n := g.read()
	for _, each := range g.numbers {
		metrics <- prometheus.MustNewConstMetric(each.desc, prometheus.GaugeValue, each.value(n))
	}
	for address, held := range n.BreakerOpen {
		metrics <- prometheus.MustNewConstMetric(g.breaker, prometheus.GaugeValue, number(held), address)
	}
}
