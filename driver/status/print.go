package status

import (
	"cmp"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/vaultmount/vaultmount/provider/limits"
)

// none fills an empty cell.
const none = "-"

// PrintTable writes one line a volume. Times are relative to now.
func PrintTable(out io.Writer, volumes []Volume, now time.Time) error {
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "NAMESPACE\tPOD\tVOLUME\tSTATE\tROLE\tTOKEN AGE\tREFRESHED\tNEXT REFRESH\tLEASES\tUSED\tCAPACITY\tERROR")
	for _, v := range volumes {
		role, age, leases := none, none, 0
		if v.Session != nil {
			role, age = cmp.Or(v.Session.Role, none), v.tokenAge(now)
		}
		for _, s := range v.Secrets {
			if !s.Expires.IsZero() {
				leases++
			}
		}
		const errorWidth = 80 // the whole error is shown for one volume
		fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%d\t%s\t%d KiB\t%s\n",
			cmp.Or(v.Namespace, none), cmp.Or(v.Pod, none), v.Name, v.State, role, age, ago(v.Refreshed, now), until(v.Next, now),
			leases, v.memory(), v.Capacity>>10, cmp.Or(limits.Truncate(v.Error, errorWidth), none))
	}
	return table.Flush()
}

// PrintVolume writes everything about one volume.
func PrintVolume(out io.Writer, v Volume, now time.Time) error {
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	line := func(name, format string, arguments ...any) {
		fmt.Fprintf(table, "%s:\t%s\n", name, fmt.Sprintf(format, arguments...))
	}
	line("Volume", "%s of pod %s/%s (uid %s)", v.Name, cmp.Or(v.Namespace, none), cmp.Or(v.Pod, none), cmp.Or(v.PodUID, none))
	line("Volume id", "%s", v.ID)
	line("Mounted at", "%s", v.Target)
	line("Memory", "%s; %d KiB of the node's capacity", v.memory(), v.Capacity>>10)
	line("Files", "%s", strings.Join(v.Files, ", "))
	line("State", "%s", v.State)
	line("Refreshed", "%s", ago(v.Refreshed, now))
	line("Next refresh", "%s", until(v.Next, now))
	line("Last error", "%s", cmp.Or(v.Error, none))
	if s := v.Session; s != nil {
		line("Vault", "%s, namespace %s", s.Address, cmp.Or(s.Namespace, none))
		line("Login", "%s, role %s", s.Mount, cmp.Or(s.Role, none))
		line("Token", "%s", s.token(now))
	}
	if s := v.Shared; s != nil {
		line("Shared token", "%s", s.token(now))
	}
	if len(v.Secrets) > 0 {
		fmt.Fprintln(table, "\nSECRET\tACTION\tDUE\tLEASE ENDS\tRENEWABLE\tERROR")
	}
	for _, s := range v.Secrets {
		fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%t\t%s\n", s.Path, s.Action, until(s.Due, now), until(s.Expires, now), s.Renewable, cmp.Or(s.Error, none))
	}
	return table.Flush()
}

func (v Volume) memory() string { return fmt.Sprintf("%d of %d KiB", v.Used>>10, v.Size>>10) }

// tokenAge shows how many pods of the node share a token.
func (v Volume) tokenAge(now time.Time) string {
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

func (s *Session) token(now time.Time) string {
	text := "none"
	if !s.Since.IsZero() || s.Logins > 0 {
		text = fmt.Sprintf("%s old, ends %s, %d logins", since(s.Since, now), until(s.Expires, now), s.Logins)
	}
	if s.Pods > 0 {
		text += fmt.Sprintf(", shared by %d pods of the service account", s.Pods)
	}
	if s.Error != "" {
		text += "; last error: " + s.Error
	}
	return text
}

func since(t, now time.Time) string {
	if t.IsZero() {
		return none
	}
	return now.Sub(t).Round(time.Second).String()
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
	return "in " + t.Sub(now).Round(time.Second).String()
}
