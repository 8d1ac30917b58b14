package status

import (
	"cmp"
	"fmt"
	"io"
	"text/tabwriter"
	"time"

	"k8s.io/apimachinery/pkg/util/duration"

	"github.com/vaultmount/vaultmount/provider/limits"
)

// none fills an empty cell.
const none = "-"

// Print writes a table with a line for each volume, and with details another one with a
// line for each secret. Times are relative to now.
func Print(out io.Writer, volumes []Volume, now time.Time, details bool) error {
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "NAMESPACE\tPOD\tVOLUME\tSTATE\tROLE\tTOKEN AGE\tREFRESHED\tNEXT REFRESH\tLEASES\tUSED\tCAPACITY\tERROR")
	for _, v := range volumes {
		role, leases, message := none, 0, v.Error
		if v.Session != nil {
			role = cmp.Or(v.Session.Role, none)
		}
		for _, s := range v.Secrets {
			if !s.Expires.IsZero() {
				leases++
			}
		}
		if !details {
			const errorWidth = 80
			message = limits.Truncate(message, errorWidth)
		}
		fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%d\t%d of %d KiB\t%d KiB\t%s\n",
			cmp.Or(v.Namespace, none), cmp.Or(v.Pod, none), v.Name, v.State, role, v.tokenAge(now), ago(v.Refreshed, now), until(v.Next, now),
			leases, v.Used>>10, v.Size>>10, v.Capacity>>10, cmp.Or(message, none))
	}
	if details {
		fmt.Fprintln(table, "\nVOLUME\tSECRET\tACTION\tNEXT\tLEASE ENDS\tRENEWABLE\tERROR")
		for _, v := range volumes {
			for _, s := range v.Secrets {
				fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%s\t%t\t%s\n", v.Name, s.Path, s.Action, until(s.Due, now), until(s.Expires, now), s.Renewable, cmp.Or(s.Error, none))
			}
		}
	}
	return table.Flush()
}

// tokenAge is the age of the pod's own token, and of the one that it shares with other pods
// of the node.
func (v Volume) tokenAge(now time.Time) string {
	if v.Session == nil {
		return none
	}
	own := since(v.Session.Since, now)
	if v.Shared == nil {
		return own
	}
	shared := fmt.Sprintf("%s (%d pods)", since(v.Shared.Since, now), v.Shared.Pods)
	if v.Session.Since.IsZero() {
		return shared
	}
	return own + ", " + shared
}

func since(t, now time.Time) string {
	if t.IsZero() {
		return none
	}
	return duration.HumanDuration(now.Sub(t))
}

func ago(t, now time.Time) string {
	if t.IsZero() {
		return "never"
	}
	return since(t, now) + " ago"
}

func until(t, now time.Time) string {
	switch {
	case t.IsZero():
		return "never"
	case !t.After(now):
		return "now"
	}
	return "in " + duration.HumanDuration(t.Sub(now))
}
