package metrics

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/vaultmount/vaultmount/provider"
)

// NodeStats describe a node at one time.
type NodeStats struct {
	provider.Stats

	// VolumesMemory is that of all volumes: the bytes of their files, and their part of
	// the node's capacity. CheckpointMemory is that of the driver's own records.
	VolumesMemory, CheckpointMemory Memory
	// CheckpointsMounted is true when the next process finds the checkpoints.
	CheckpointsMounted bool
	// Capacity is the node's capacity for volumes in bytes; 0 means no limit.
	Capacity int64
	// NamespaceQuota is the part of it that one namespace may take, in bytes; 0 means no
	// limit. LargestNamespace is what the namespace with the largest part takes.
	NamespaceQuota, LargestNamespace int64
	// Unrecorded is the number of mounted volumes without a record.
	Unrecorded int
	// Registered is true when the kubelet has registered this process.
	Registered bool
}

// Memory is the memory of tmpfs mounts in bytes.
type Memory struct{ Used, Size int64 }

// nodeMetrics are the gauges without labels.
var nodeMetrics = []struct {
	name, help string
	value      func(NodeStats) float64
}{
	{"volumes", "Volumes that are refreshed.", func(n NodeStats) float64 { return float64(n.Volumes) }},
	{"volumes_stale", "Volumes whose files may be older than Vault's content.", func(n NodeStats) float64 { return float64(n.Failing) }},
	{"volumes_unrecorded", "Mounted volumes that the driver has no record of; it takes them over at their next republish.", func(n NodeStats) float64 { return float64(n.Unrecorded) }},
	{"volumes_with_shared_token", "Volumes of pods that share a Vault token.", func(n NodeStats) float64 { return float64(n.VolumesSharing) }},
	{"volumes_used_bytes", "Memory of the files of all volumes.", func(n NodeStats) float64 { return float64(n.VolumesMemory.Used) }},
	{"vault_tokens", "Vault tokens of pods.", func(n NodeStats) float64 { return float64(n.Sessions) }},
	{"vault_tokens_shared", "Vault tokens that the pods of a service account share; vault_tokens includes them.", func(n NodeStats) float64 { return float64(n.SessionsShared) }},
	{"vault_tokens_failing", "Vault tokens that the driver cannot obtain or renew.", func(n NodeStats) float64 { return float64(n.SessionsFailing) }},
	{"vault_leases", "Vault leases that the driver renews.", func(n NodeStats) float64 { return float64(n.Leases) }},
	{"refresh_lag_seconds", "Delay of the most overdue refresh; 0 if none is overdue.", func(n NodeStats) float64 { return n.QueueLag.Seconds() }},
	{"oldest_failed_refresh_age_seconds", "Longest time since the last successful refresh, over all stale volumes; 0 if none is stale.", func(n NodeStats) float64 { return n.OldestFailure.Seconds() }},
	{"token_revocations_pending", "Vault tokens of deleted pods that are not revoked yet.", func(n NodeStats) float64 { return float64(n.PendingRevocations) }},
	{"capacity_bytes", "Capacity of the node for volumes (--volume-capacity); 0 means no limit.", func(n NodeStats) float64 { return float64(n.Capacity) }},
	{"capacity_used_bytes", "Capacity that all volumes take: their sizes, 1 KiB for each inode, and the responses of Vault that the driver keeps.", func(n NodeStats) float64 { return float64(n.VolumesMemory.Size) }},
	{"namespace_quota_bytes", "Capacity that the volumes of one namespace may take (--namespace-share); 0 means no limit.", func(n NodeStats) float64 { return float64(n.NamespaceQuota) }},
	{"namespace_quota_used_bytes", "Capacity that the volumes of one namespace take, for the namespace that takes most.", func(n NodeStats) float64 { return float64(n.LargestNamespace) }},
	{"checkpoint_used_bytes", "Memory of the driver's checkpoints.", func(n NodeStats) float64 { return float64(n.CheckpointMemory.Used) }},
	{"checkpoint_size_bytes", "Limit of the driver's checkpoints, without those of tokens to revoke.", func(n NodeStats) float64 { return float64(n.CheckpointMemory.Size) }},
	{"checkpoint_namespaces_unsaved", "Namespaces whose last checkpoint was not saved, because the state or the namespace's part of it is full.", func(n NodeStats) float64 { return float64(n.Unsaved) }},
	{"checkpoint_mounted", "1 when the next process of the driver will find the checkpoints.", func(n NodeStats) float64 { return number(n.CheckpointsMounted) }},
	{"registered", "1 when the kubelet has registered the driver.", func(n NodeStats) float64 { return number(n.Registered) }},
}

// nodeCollector implements prometheus.Collector.
type nodeCollector struct {
	read    func() NodeStats
	descs   []*prometheus.Desc // in the order of nodeMetrics
	breaker *prometheus.Desc
}

// RegisterNode adds gauges that call read at each scrape. It is called once.
func (m *Recorder) RegisterNode(read func() NodeStats) {
	c := &nodeCollector{read: read, breaker: describe("vault_circuit_breaker_open",
		`1 while the driver sends no requests to the Vault at the address; "other" is any but the driver's own.`, "address")}
	for _, metric := range nodeMetrics {
		c.descs = append(c.descs, describe(metric.name, metric.help))
	}
	m.registry.MustRegister(c)
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
func (c *nodeCollector) Describe(descriptions chan<- *prometheus.Desc) {
	for _, desc := range c.descs {
		descriptions <- desc
	}
	descriptions <- c.breaker
}

// Collect implements prometheus.Collector.
func (c *nodeCollector) Collect(metrics chan<- prometheus.Metric) {
	stats := c.read()
	for i, metric := range nodeMetrics {
		metrics <- prometheus.MustNewConstMetric(c.descs[i], prometheus.GaugeValue, metric.value(stats))
	}
	for address, open := range stats.BreakerOpen {
		metrics <- prometheus.MustNewConstMetric(c.breaker, prometheus.GaugeValue, number(open), address)
	}
}
