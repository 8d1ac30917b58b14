// Package bench holds vaultmount against the Vault Agent and against a bare client
// of the same Vault, in one run on one machine: what a pod waits for, and what a node
// and a Vault pay. The measuring is in the package's benchmarks; here is what is made
// of the figures: ratios, goals, a report, plots, and the comparison with the last
// report.
//
// Only ratios within a run are judged. Times depend on the machine, and are there to
// be read.
package bench

// Better says which way a ratio improves.
type Better string

// The two ways.
const (
	Lower  Better = "lower"
	Higher Better = "higher"
)

// Ratio is one figure that can be compared between machines.
type Ratio struct {
	Value  float64 `json:"value"`
	Better Better  `json:"better"`
}

// Ratios are a run's, by name.
type Ratios map[string]Ratio

// Section is a part of the report.
type Section struct {
	Title string
	// Text says what was measured and how, in Markdown.
	Text string
	// Head and Rows are a table; a row is as long as the head.
	Head []string
	Rows [][]string
	// Plot is the name of an SVG file in the directory of plots; empty for none.
	Plot string
	// After is what the figures say, below the table; empty for nothing.
	After string
}

// Profile shows where the time of a goal goes that was not reached.
type Profile struct {
	Title string
	// Top is the text of go tool pprof -top.
	Top string
}

// Report is all that a run found.
type Report struct {
	// Machine says where it ran, Run when and how.
	Machine, Run string
	Sections     []Section
	Ratios       Ratios
	Profiles     []Profile
	Plots        []Plot
}

// Put adds a ratio.
func (r *Report) Put(name string, value float64, better Better) {
	if r.Ratios == nil {
		r.Ratios = Ratios{}
	}
	r.Ratios[name] = Ratio{Value: value, Better: better}
}
