package monitor

import (
	"cmp"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"
)

// none stands in a table for what there is not.
const none = "-"

// PrintTable writes a line for each volume. Times are told from now.
func PrintTable(out io.Writer, volumes []Volume, now time.Time) error {
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "NAMESPACE\tPOD\tVOLUME\tSTATE\tROLE\tTOKEN AGE\tREFRESHED\tNEXT\tLEASES\tUSED\tCAPACITY\tERROR")
	for _, v := range volumes {
		role, age := none, none
		if v.Session != nil {
			role, age = cmp.Or(v.Session.Role, none), v.tokenAge(now)
		}
		fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%d\t%s\t%s\t%s\n",
			cmp.Or(v.Namespace, none), cmp.Or(v.Pod, none), v.Name, v.State, role, age,
			ago(v.Refreshed, now), until(v.Next, now), v.leases(), share(v.Used, v.Size), kibibytes(v.Capacity), cmp.Or(firstWords(v.Error), none))
	}
	return table.Flush()
}

// PrintVolume writes all that is known of one volume.
func PrintVolume(out io.Writer, v Volume, now time.Time) error {
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	line := func(name, format string, arguments ...any) {
		fmt.Fprintf(table, "%s:\t%s\n", name, fmt.Sprintf(format, arguments...))
	}
	line("Volume", "%s of pod %s/%s", v.Name, cmp.Or(v.Namespace, none), cmp.Or(v.Pod, none))
	line("Pod UID", "%s", cmp.Or(v.PodUID, none))
	line("Volume id", "%s", v.ID)
	line("Mounted at", "%s", v.Target)
	line("Memory", "%s", share(v.Used, v.Size))
	line("Capacity", "%s of the node's", kibibytes(v.Capacity))
	line("Files", "%s", strings.Join(v.Files, ", "))
	line("State", "%s", v.State)
	line("Refreshed", "%s", ago(v.Refreshed, now))
	line("Next look", "%s", until(v.Next, now))
	line("Last error", "%s", cmp.Or(v.Error, none))
	if s := v.Session; s != nil {
		line("Vault", "%s", s.Address)
		line("Namespace in Vault", "%s", cmp.Or(s.Namespace, none))
		line("Login", "%s, role %s", s.Mount, cmp.Or(s.Role, none))
		line("Token", "%s", s.token(now))
		line("Token error", "%s", cmp.Or(s.Error, none))
	}
	if s := v.Shared; s != nil {
		line("Shared token", "%s, shared by %d pods of the service account", s.token(now), s.Pods)
		line("Shared token error", "%s", cmp.Or(s.Error, none))
	}
	if err := table.Flush(); err != nil {
		return err
	}
	return printSecrets(out, v.Secrets, now)
}

func printSecrets(out io.Writer, secrets []Secret, now time.Time) error {
	if len(secrets) == 0 {
		return nil
	}
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "\nSECRET\tHOW\tDUE\tLEASE ENDS\tRENEWABLE\tERROR")
	for _, s := range secrets {
		fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%t\t%s\n", s.Path, s.Verb, until(s.Due, now), until(s.Expires, now), s.Renewable, cmp.Or(s.Error, none))
	}
	return table.Flush()
}

// tokenAge tells of a shared token by whom it is shared.
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
	if s.Since.IsZero() && s.Logins == 0 {
		return "none so far"
	}
	return fmt.Sprintf("%s old, ends %s, %d logins so far", since(s.Since, now), until(s.Expires, now), s.Logins)
}

func (v Volume) leases() int {
	count := 0
	for _, s := range v.Secrets {
		if !s.Expires.IsZero() {
			count++
		}
	}
	return count
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

func share(used, size int64) string {
	const kibi = 1 << 10
	return fmt.Sprintf("%d of %d KiB", used/kibi, size/kibi)
}

func kibibytes(bytes int64) string {
	const kibi = 1 << 10
	return fmt.Sprintf("%d KiB", bytes/kibi)
}

// firstWords keeps a table a table; the whole error is shown for one volume.
func firstWords(text string) string {
	const enough = 80
	if len(text) <= enough {
		return text
	}
	return strings.ToValidUTF8(text[:enough], "") + "…"
}
