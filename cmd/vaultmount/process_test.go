package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"runtime/debug"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
	"k8s.io/klog/v2"

	"github.com/vaultmount/vaultmount/provider/limits"
)

func textLogger(t *testing.T, out *bytes.Buffer) klog.Logger {
	t.Helper()
	logger, err := (&logOptions{format: "text"}).newLogger(out)
	if err != nil {
		t.Fatal(err)
	}
	return logger
}

// Lines in JSON have the same content and bounds, and are valid whatever they hold.
func TestJSONLogLines(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	logger, err := (&logOptions{format: "json", verbosity: 2}).newLogger(&out)
	if err != nil {
		t.Fatal(err)
	}
	logger.V(2).Info("Volume published", "pod", klog.KRef("shop", "orders"))
	logger.V(3).Info("Too verbose")
	logger.Error(errors.New("permission denied"), "Call failed")
	logger.Info("Call failed", "names", strings.Split(strings.Repeat(`"`, 1<<16), ""))
	want := []string{
		`"level":"info","msg":"Volume published","pod":{"name":"orders","namespace":"shop"}`,
		`"level":"error","msg":"Call failed","err":"permission denied"`,
		`"level":"error","line":"`,
	}
	lines := strings.SplitAfter(strings.TrimSuffix(out.String(), "\n"), "\n")
	if len(lines) != len(want) {
		t.Fatalf("%d lines: %s", len(lines), out.String())
	}
	for i, line := range lines {
		if !json.Valid([]byte(line)) || len(line) > limits.LogLineBytes.Max() || !strings.Contains(line, want[i]) {
			t.Errorf("%d bytes: %s", len(line), line)
		}
	}
	if _, err := (&logOptions{format: "xml"}).newLogger(&out); err == nil || exitStatus(err) != exitUsage {
		t.Errorf("another format: %v", err)
	}
}

func TestLogLinesAreBounded(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("x", 1<<20)
	for _, test := range []struct {
		name string
		log  func(out *bytes.Buffer)
	}{
		{"a value", func(out *bytes.Buffer) { textLogger(t, out).Info("Call failed", "pod", long) }},
		{"a value of many lines", func(out *bytes.Buffer) { textLogger(t, out).Info("Call failed", "pod", strings.Repeat("x\n", 1<<19)) }},
		{"an error", func(out *bytes.Buffer) { textLogger(t, out).Error(errors.New(long), "Call failed") }},
		{"names", func(out *bytes.Buffer) {
			textLogger(t, out).Info("Call failed", "names", strings.SplitAfter(strings.Repeat("name ", 1<<18), " "))
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			var out bytes.Buffer
			test.log(&out)
			got := out.String()
			if len(got) > limits.LogLineBytes.Max() || len(got) < limits.LogLineBytes.Max()-4 || !strings.Contains(got, "Call failed") || !strings.HasSuffix(got, "...\n") {
				t.Errorf("%d bytes: %s", len(got), got)
			}
		})
	}
}

func TestLogLineAtTheLimitAndOneAbove(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	line := append(bytes.Repeat([]byte("x"), limits.LogLineBytes.Max()-1), '\n')
	if n, err := (boundedLines{out: &out}).Write(line); n != len(line) || err != nil || !bytes.Equal(out.Bytes(), line) {
		t.Errorf("at the limit: wrote %d bytes, %v", out.Len(), err)
	}
	out.Reset()
	line = append([]byte("x"), line...)
	if n, err := (boundedLines{out: &out}).Write(line); n != len(line) || err != nil || out.Len() != limits.LogLineBytes.Max() {
		t.Errorf("one above: wrote %d bytes, %v", out.Len(), err)
	}
}

func TestCgroupMemory(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		self  string
		files map[string]string
		want  int64
	}{
		"version 2 in a container":    {"0::/\n", map[string]string{"memory.max": "134217728\n"}, 128 << 20},
		"version 2 on a host":         {"0::/kubepods/a\n", map[string]string{"kubepods/a/memory.max": "1000\n", "memory.max": "1\n"}, 1000},
		"version 2 without a limit":   {"0::/\n", map[string]string{"memory.max": "max\n"}, 0},
		"version 1 in a container":    {"4:memory:/kubepods/a\n1:cpu:/kubepods/a\n0::/\n", map[string]string{"memory/memory.limit_in_bytes": "1000\n"}, 1000},
		"version 1 on a host":         {"4:memory:/a\n", map[string]string{"memory/a/memory.limit_in_bytes": "1000\n", "memory/memory.limit_in_bytes": "1\n"}, 1000},
		"version 2 beside version 1":  {"4:memory:/a\n0::/\n", map[string]string{"memory/a/memory.limit_in_bytes": "1000\n", "unified/x": ""}, 1000},
		"without a memory controller": {"1:cpu:/\n", nil, 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			root := t.TempDir()
			write := func(path, text string) {
				if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			for path, text := range test.files {
				write(filepath.Join(root, path), text)
			}
			self := filepath.Join(t.TempDir(), "self")
			write(self, test.self)
			if got, err := cgroupMemory(self, root); err != nil || got != test.want {
				t.Errorf("got %d, %v, want %d", got, err, test.want)
			}
		})
	}
}

// The heap of the driver may have what its volumes may take, and what it needs itself.
func TestDriverMemory(t *testing.T) {
	before := debug.SetMemoryLimit(-1)
	t.Cleanup(func() { debug.SetMemoryLimit(before) })
	for _, test := range []struct{ capacity, want int64 }{{0, before}, {128 << 20, 256 << 20}} {
		limitDriverMemory(test.capacity)
		if got := debug.SetMemoryLimit(-1); got != test.want {
			t.Errorf("for a capacity of %d, the limit is %d, want %d", test.capacity, got, test.want)
		}
	}
	t.Setenv("GOMEMLIMIT", "1GiB")
	limitDriverMemory(1 << 20)
	if got := debug.SetMemoryLimit(-1); got != 256<<20 {
		t.Errorf("$GOMEMLIMIT does not come first: %d", got)
	}
}

func TestDisableCoreDumps(t *testing.T) {
	if err := disableCoreDumps(); err != nil {
		t.Fatal(err)
	}
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_CORE, &limit); err != nil || limit.Cur != 0 || limit.Max != 0 {
		t.Errorf("core dumps may have %+v, %v", limit, err)
	}
	if dumpable, err := unix.PrctlRetInt(unix.PR_GET_DUMPABLE, 0, 0, 0, 0); err != nil || dumpable != 0 {
		t.Errorf("dumpable is %d, %v", dumpable, err)
	}
}
