package bench

import (
	"fmt"
	"io"
	"strings"
)

// Write writes the report in Markdown.
func (r Report) Write(w io.Writer) error {
	var text strings.Builder
	text.WriteString("# What vaultmount costs\n\n")
	text.WriteString("Made by `make bench`; do not edit. vaultmount, the Vault Agent and a bare client stand side by side, in one run, against\n" +
		"one real Vault that shares the machine's cores with them. Only ratios carry over to other machines.\n\n")
	fmt.Fprintf(&text, "- Machine: %s\n- Run: %s\n\n", r.Machine, r.Run)
	r.writeGoals(&text)
	for _, section := range r.Sections {
		section.write(&text)
	}
	r.writeProfiles(&text)
	_, err := io.WriteString(w, text.String())
	return err
}

func (r Report) writeGoals(text *strings.Builder) {
	text.WriteString("## Goals\n\n")
	var rows [][]string
	for _, goal := range Goals() {
		value, verdict := "–", "not measured"
		if ratio, measured := r.Ratios[goal.Ratio]; measured {
			value, verdict = fmt.Sprintf("%.3g", ratio.Value), "**missed**"
			if goal.Reached(ratio.Value) {
				verdict = "reached"
			}
		}
		rows = append(rows, []string{goal.Ratio, goal.String(), value, verdict})
	}
	writeTable(text, []string{"ratio", "goal", "measured", ""}, rows)
}

func (s Section) write(text *strings.Builder) {
	fmt.Fprintf(text, "## %s\n\n%s\n\n", s.Title, s.Text)
	if len(s.Rows) > 0 {
		writeTable(text, s.Head, s.Rows)
	}
	if s.Plot != "" {
		fmt.Fprintf(text, "![%s](plots/%s)\n\n", s.Title, s.Plot)
	}
	if s.After != "" {
		fmt.Fprintf(text, "%s\n\n", s.After)
	}
}

func (r Report) writeProfiles(text *strings.Builder) {
	if len(r.Profiles) == 0 {
		return
	}
	text.WriteString("## Where the time of missed goals goes\n\nCPU time of the driver's process, by `go tool pprof -top -cum`.\n\n")
	for _, profile := range r.Profiles {
		fmt.Fprintf(text, "### %s\n\n```\n%s\n```\n\n", profile.Title, strings.TrimSpace(profile.Top))
	}
}

func writeTable(text *strings.Builder, head []string, rows [][]string) {
	fmt.Fprintf(text, "| %s |\n|%s\n", strings.Join(head, " | "), strings.Repeat("---|", len(head)))
	for _, row := range rows {
		fmt.Fprintf(text, "| %s |\n", strings.Join(row, " | "))
	}
	text.WriteString("\n")
}
