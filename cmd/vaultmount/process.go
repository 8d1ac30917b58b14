package main

import (
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"runtime/debug"
	"strconv"
	"strings"

	"github.com/go-logr/logr"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"golang.org/x/sys/unix"
	"k8s.io/klog/v2"
	"k8s.io/klog/v2/textlogger"

	"github.com/vaultmount/vaultmount/provider/limits"
	"github.com/vaultmount/vaultmount/provider/sandbox"
)

// logOptions are the same for all commands that run as a server.
type logOptions struct {
	verbosity int
	format    string
}

func (o *logOptions) addFlags(flags *pflag.FlagSet, levels string) {
	flags.IntVarP(&o.verbosity, "verbosity", "v", 2, "log verbosity: "+levels)
	flags.StringVar(&o.format, "log-format", "text", "format of log lines: text or json")
}

// newLogger writes log lines to out.
func (o *logOptions) newLogger(out io.Writer) (klog.Logger, error) {
	lines := boundedLines{out: out}
	switch o.format {
	case "text":
		return textlogger.NewLogger(textlogger.NewConfig(textlogger.Output(lines), textlogger.Verbosity(o.verbosity))), nil
	case "json":
		lines.isJSON = true
		// logr's verbosity is slog's negative level.
		options := &slog.HandlerOptions{Level: slog.Level(-o.verbosity), ReplaceAttr: levelName}
		return logr.FromSlogHandler(slog.NewJSONHandler(lines, options)), nil
	}
	return klog.Logger{}, usageError{fmt.Errorf("--log-format %q is unknown; write text or json", o.format)}
}

// levelName writes info or error: the names of slog are those of other levels.
func levelName(groups []string, attribute slog.Attr) slog.Attr {
	if level, ok := attribute.Value.Any().(slog.Level); ok && len(groups) == 0 {
		attribute.Value = slog.StringValue("info")
		if level >= slog.LevelError {
			attribute.Value = slog.StringValue("error")
		}
	}
	return attribute
}

// boundedLines cuts log lines at their limit. Errors are bounded where they are made; this
// is for the lines of other authors, and for lists of names.
type boundedLines struct {
	out    io.Writer
	isJSON bool
}

// Write implements io.Writer. The logger calls it once a line.
func (b boundedLines) Write(line []byte) (int, error) {
	if limits.LogLineBytes.Check(len(line)) == nil {
		return b.out.Write(line)
	}
	const end = "\n"
	cut := limits.Truncate(string(line), limits.LogLineBytes.Max()-len(end))
	if b.isJSON {
		// Quoting may double a text. The result is valid JSON again.
		text, err := json.Marshal(map[string]string{"level": "error", "msg": "log line too long", "line": limits.Truncate(cut, limits.LogLineBytes.Max()/3)})
		if err != nil {
			return 0, fmt.Errorf("encode a log line: %w", err)
		}
		cut = string(text)
	}
	if _, err := io.WriteString(b.out, cut+end); err != nil {
		return 0, fmt.Errorf("write a log line: %w", err)
	}
	return len(line), nil
}

// disableCoreDumps keeps this process's memory, which holds Vault tokens and secrets, out of
// core dumps, and from processes without CAP_SYS_PTRACE. A sandbox worker does the same.
func disableCoreDumps() error {
	if err := unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{}); err != nil {
		return fmt.Errorf("disable core dumps: %w", err)
	}
	// A core_pattern with a pipe ignores the limit, but not this.
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return fmt.Errorf("disable memory dumps: %w", err)
	}
	return nil
}

// limitMemory lets the garbage collector work more before the container's memory is used
// up. A tenth is left for memory outside of Go's heap. $GOMEMLIMIT has priority.
func limitMemory(logger klog.Logger) {
	if os.Getenv("GOMEMLIMIT") != "" {
		return
	}
	limit, err := cgroupMemory("/proc/self/cgroup", "/sys/fs/cgroup")
	if err != nil {
		logger.Error(err, "Memory limit of the container not found")
		return
	}
	if limit > 0 {
		debug.SetMemoryLimit(limit / 10 * 9)
	}
}

// limitDriverMemory does the same for the driver, whose container also holds the volumes
// and the sandbox workers. What volumes keep on the heap counts as capacity, so the heap
// needs that, the program, and the responses of Vault in flight: the chart adds the same.
func limitDriverMemory(capacity int64) {
	const program = 64 << 20
	if os.Getenv("GOMEMLIMIT") == "" && capacity > 0 {
		debug.SetMemoryLimit(capacity + program + int64(limits.NodeResponseBytes.Max()))
	}
}

// cgroupMemory returns the memory limit of the process in bytes, or 0 if there is none, from
// both versions of cgroups. In a container the files are those of the root, whatever path
// the process has.
func cgroupMemory(self, root string) (int64, error) {
	groups, err := os.ReadFile(self)
	if err != nil {
		return 0, fmt.Errorf("read the control groups: %w", err)
	}
	for line := range strings.Lines(string(groups)) {
		parts := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(parts) != 3 || parts[1] != "" && parts[1] != "memory" {
			continue
		}
		directory, file := root, "memory.max"
		if parts[1] == "memory" {
			directory, file = filepath.Join(root, "memory"), "memory.limit_in_bytes"
		}
		for _, path := range []string{filepath.Join(directory, parts[2], file), filepath.Join(directory, file)} {
			text, err := os.ReadFile(path)
			if err != nil {
				continue // not this version, or a path outside of the container
			}
			limit, err := strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64)
			if err != nil {
				return 0, nil // "max"
			}
			return limit, nil
		}
	}
	return 0, nil
}

// newSandboxWorkerCommand runs templates for the driver, which starts its own program for it.
func newSandboxWorkerCommand() *cobra.Command {
	return &cobra.Command{
		Use:    sandbox.Command,
		Short:  "Render templates for the driver that started it",
		Hidden: true,
		Args:   cobra.NoArgs,
		RunE:   func(*cobra.Command, []string) error { return sandbox.Main() },
	}
}
