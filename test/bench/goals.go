package bench

import "fmt"

// The names of the ratios that goals are about.
const (
	PublishOverFloor    = "publish, 1 secret: p50 over the floor's"
	AgentOverPublish    = "publish, 1 secret: the agent's p50 over vaultmount's"
	BurstOverFloor      = "burst of 110: last file over the floor's last answer"
	HeapPerVolume       = "memory per volume at 1,000, KiB"
	AgentOverMemory     = "memory per pod: the agent's over vaultmount's"
	RepublishTime       = "republish: CPU time, µs"
	RepublishRequests   = "republish: requests to Vault"
	RepublishMountTable = "republish: reads of the mount table"
	IdleShare           = "idle with 1,000 static volumes, % of a core"
	StartRequests       = "requests to Vault of a pod with 5 secrets, beyond 1 + 5 and a probe per node"
	SharedLogins        = "20 replicas that share a login: logins"
	SharedReads         = "20 replicas that share a login: reads of a secret per interval"
	TimeExponent        = "growth from 100 to 5,000 volumes: exponent of the time of a publish"
	RepublishExponent   = "growth from 100 to 5,000 volumes: exponent of the CPU time of a republish"
	MemoryExponent      = "growth from 100 to 5,000 volumes: exponent of the memory per volume"
)

// Goal is a bound for a ratio.
type Goal struct {
	Ratio string
	Bound float64
	// Better is Lower for a bound that is not to be exceeded.
	Better Better
}

// Goals are what the report is judged by.
func Goals() []Goal {
	return []Goal{
		{PublishOverFloor, 1.25, Lower},
		{AgentOverPublish, 20, Higher},
		{BurstOverFloor, 1.3, Lower},
		{HeapPerVolume, 32, Lower},
		{AgentOverMemory, 500, Higher},
		{RepublishTime, 50, Lower},
		{RepublishRequests, 0, Lower},
		{RepublishMountTable, 0, Lower},
		{IdleShare, 0.5, Lower},
		{StartRequests, 0, Lower},
		{SharedLogins, 1, Lower},
		{SharedReads, 1, Lower},
		{TimeExponent, 0.1, Lower},
		{RepublishExponent, 0.1, Lower},
		{MemoryExponent, 0.1, Lower},
	}
}

// Reached says whether a value is within the bound.
func (g Goal) Reached(value float64) bool {
	if g.Better == Lower {
		return value <= g.Bound
	}
	return value >= g.Bound
}

// String is the bound as the report shows it.
func (g Goal) String() string {
	sign := "≥"
	if g.Better == Lower {
		sign = "≤"
	}
	return fmt.Sprintf("%s %g", sign, g.Bound)
}

// Missed are the goals that a run did not reach, those that it did not measure
// among them.
func Missed(ratios Ratios) []Goal {
	var missed []Goal
	for _, goal := range Goals() {
		if ratio, measured := ratios[goal.Ratio]; !measured || !goal.Reached(ratio.Value) {
			missed = append(missed, goal)
		}
	}
	return missed
}
