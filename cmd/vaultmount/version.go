package main

import (
	"cmp"
	"encoding/json"
	"fmt"
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"
)

// The linker sets them for a release. Other builds take commit and date from the
// version control information that go build embeds.
var version, commit, date = "dev", "", ""

// buildInfo is the output of "vaultmount version".
type buildInfo struct {
	Version   string `json:"version"`
	Commit    string `json:"commit"`
	Date      string `json:"date"`
	GoVersion string `json:"goVersion"`
	Platform  string `json:"platform"`
}

func readBuildInfo() buildInfo {
	embedded := map[string]string{}
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, setting := range info.Settings {
			embedded[setting.Key] = setting.Value
		}
	}
	const unknown = "unknown"
	return buildInfo{
		Version:   version,
		Commit:    cmp.Or(commit, embedded["vcs.revision"], unknown),
		Date:      cmp.Or(date, embedded["vcs.time"], unknown),
		GoVersion: runtime.Version(),
		Platform:  runtime.GOOS + "/" + runtime.GOARCH,
	}
}

func newVersionCommand() *cobra.Command {
	var output string
	command := &cobra.Command{
		Use:   "version",
		Short: "Print the version",
		Args:  cobra.NoArgs,
		RunE: func(command *cobra.Command, _ []string) error {
			info := readBuildInfo()
			switch output {
			case "":
				_, err := fmt.Fprintf(command.OutOrStdout(), "vaultmount %s (commit %s of %s, %s, %s)\n", info.Version, info.Commit, info.Date, info.GoVersion, info.Platform)
				return err
			case "json":
				return json.NewEncoder(command.OutOrStdout()).Encode(info)
			}
			return usageError{fmt.Errorf("--output %q is not a format; write json, or omit it for text", output)}
		},
	}
	command.Flags().StringVarP(&output, "output", "o", "", "json, or text if empty")
	return command
}
