package sandbox

import (
	"context"
	"fmt"
	"maps"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vaultmount/vaultmount/provider/template"
)

func resolve(name string) error {
	resolver := &net.Resolver{PreferGo: true}
	_, err := resolver.LookupHost(context.Background(), name)
	return err
}

// Whatever code runs in a worker, nothing of this works.
func TestAttacksFromInside(t *testing.T) {
	t.Parallel()
	pool := startPool(t, generous())
	for _, name := range slices.Sorted(maps.Keys(attacks())) {
		t.Run(name, func(t *testing.T) {
			got, err := attack(t, pool, name)
			if err != nil || !strings.HasPrefix(got, "refused: ") {
				t.Fatalf("it says %q, %v", got, err)
			}
			t.Log(got)
		})
	}
}

// Behind the filter of system calls there is another wall: the same attacks, where
// a worker may call what it likes.
func TestAttacksPastTheFilter(t *testing.T) {
	t.Parallel()
	program, err := buildProgram()
	if err != nil {
		t.Fatal(err)
	}
	worker, err := startProcess(t.Context(), program, []string{Command, unfiltered}, firstID)
	if err != nil {
		t.Fatal(err)
	}
	defer worker.end()
	// These the filter alone prevents, and they lead to nothing but the worker.
	harmless := map[string]bool{
		"list the root": true, "open /": true, "open .": true, "open ..": true, "open with openat2": true, "stat": true, "working directory": true, "leave the root": true,
		"memory file": true, "socket pair": true, "socket IPv4": true, "socket IPv6": true, "socket unix": true, "socket netlink": true, "socket packet": true, "socket vsock": true, "socket crypto": true,
		"io_uring": true, "signal itself": true, "signal with tkill": true, "open a process": true, "fork": true, "fork as a number": true, "fork with clone3": true, "read another's memory": true,
		"new user namespace": true, "allow dumps": true, "outlive the driver": true, "another filter": true, "read a key": true, "take page faults": true, "read the host name": true,
		"measure the machine": true, "code": true, "memory to code": true, "shared memory": true, "grow the break": true, "System V memory": true, "lock memory": true, "duplicate a file": true,
		"leave by prlimit": true, "move memory": true,
	}
	for _, name := range slices.Sorted(maps.Keys(attacks())) {
		if harmless[name] {
			continue
		}
		t.Run(name, func(t *testing.T) {
			const long = 30 * time.Second
			stuck := time.AfterFunc(long, func() { t.Logf("what its threads are at after %s:\n%s", long, threads(worker.pid)) })
			defer stuck.Stop()
			received := newReceiver(template.Template{Name: attackPrefix + name})
			err := worker.exchange(t.Context(), received.request(t), &watch{limits: Limits{CPU: time.Minute, Wall: 2 * long}, cpuTime: worker.cpuTime, resident: worker.resident}, received.read)
			if got := received.output(); err != nil || !strings.HasPrefix(got, "refused: ") {
				t.Fatalf("it says %q, %v", got, err)
			}
		})
	}
}

// threads tells which system call each thread of a process is in, with its arguments,
// and what it waits for there.
func threads(pid int) string {
	var all strings.Builder
	tasks, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*", pid)) // the pattern is a good one
	for _, task := range tasks {
		for _, file := range []string{"syscall", "wchan"} {
			text, err := os.ReadFile(filepath.Join(task, file))
			fmt.Fprintf(&all, "%s: %s, %v\n", filepath.Join(task, file), strings.TrimSpace(string(text)), err)
		}
	}
	return all.String()
}

// The attacks work where nothing confines them; else they would prove nothing. They
// leave files open that no program of Go's would hand down, and that a worker which is
// started at that moment would inherit: so no other test runs meanwhile.
func TestAttacksWorkElsewhere(t *testing.T) {
	for _, name := range []string{
		"open /etc/passwd", "open /", "open /proc/self/environ", "stat", "list the root", "environment", "socket IPv4", "socket unix", "socket netlink", "signal itself", "signal another",
		"open a process", "duplicate a file", "large memory", "shared memory", "small memories", "code", "memory file", "read the host name", "grow the break",
	} {
		if err := attacks()[name](); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// What the kernel says of a worker that waits for its first request.
func TestConfinementFromOutside(t *testing.T) {
	t.Parallel()
	pool := startPool(t, generous())
	directory := fmt.Sprintf("/proc/%d/", pool.idle[0].pid)
	status := readFile(t, directory+"status")
	for _, want := range []string{
		"Uid:\t2147483648\t2147483648\t2147483648\t2147483648\n", "Gid:\t2147483648\t2147483648\t2147483648\t2147483648\n", "Groups:\t \n",
		"NSpid:", "CapInh:\t0000000000000000\n", "CapPrm:\t0000000000000000\n", "CapEff:\t0000000000000000\n", "CapBnd:\t0000000000000000\n", "CapAmb:\t0000000000000000\n",
		"NoNewPrivs:\t1\n", "Seccomp:\t2\n",
	} {
		if !strings.Contains(status, want) {
			t.Errorf("%q is not in its status:\n%s", want, status)
		}
	}
	for _, namespace := range []string{"pid", "net", "ipc", "uts", "mnt", "cgroup"} {
		own, err := os.Readlink(directory + "ns/" + namespace)
		if err != nil {
			t.Fatal(err)
		}
		if driver, err := os.Readlink("/proc/self/ns/" + namespace); err != nil || own == driver {
			t.Errorf("it shares the namespace %s, %v", own, err)
		}
	}
	if mounts := strings.Fields(readFile(t, directory+"mountinfo")); !slices.Contains(mounts, "ro,nosuid,nodev,noexec,relatime") || len(mounts) > 11 {
		t.Errorf("it has mounts: %q", mounts)
	}
	if entries, err := os.ReadDir(directory + "root"); err != nil || len(entries) > 0 {
		t.Errorf("its root holds %v, %v", entries, err)
	}
	if environment := readFile(t, directory+"environ"); environment != "" {
		t.Errorf("its environment is %q", environment)
	}
	if score := readFile(t, directory+"oom_score_adj"); score != "1000\n" {
		t.Errorf("when memory is short its score is %s", score)
	}
	files, err := os.ReadDir(directory + "fd")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		target, err := os.Readlink(directory + "fd/" + file.Name())
		if err != nil || !strings.HasPrefix(target, "pipe:") && target != "anon_inode:[eventpoll]" && target != "anon_inode:[eventfd]" {
			t.Errorf("file %s is %s, %v", file.Name(), target, err)
		}
	}
}

// A worker must not keep the main thread of the driver, which /proc/self shows,
// in its own view of the world.
func TestDriverKeepsItsOwnView(t *testing.T) {
	t.Parallel()
	before, err := os.Readlink("/proc/self/ns/mnt")
	if err != nil {
		t.Fatal(err)
	}
	startPool(t, generous())
	if after, err := os.Readlink("/proc/self/ns/mnt"); err != nil || after != before {
		t.Errorf("the driver's mount namespace was %s and is %s, %v", before, after, err)
	}
	if status := readFile(t, "/proc/self/status"); !strings.Contains(status, "NoNewPrivs:\t0\n") || strings.Contains(status, "CapBnd:\t0000000000000000") {
		t.Errorf("the driver lost its privileges:\n%s", status)
	}
}

func readFile(t *testing.T, path string) string {
	t.Helper()
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(content)
}

func TestNotStartedByHand(t *testing.T) {
	t.Parallel()
	if err := verifyStart(); err == nil || !strings.Contains(err.Error(), "not by hand") {
		t.Errorf("got %v", err)
	}
}
