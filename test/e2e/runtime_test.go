package e2e

import (
	"context"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/vaultmount/vaultmount/test/cluster"
)

// forEachRuntime applies a file of testdata once for each container runtime that the
// cluster has, with the runtime's name for RUNTIME, and removes it after the test.
func forEachRuntime(t *testing.T, file string, test func(t *testing.T, runtime string)) {
	t.Helper()
	content, err := os.ReadFile("testdata/" + file)
	require.NoError(t, err)
	for _, runtime := range []string{"runc", "crun"} {
		t.Run(runtime, func(t *testing.T) {
			manifest := strings.ReplaceAll(string(content), "RUNTIME", runtime)
			if _, err := bed.KubectlWithInput(t.Context(), manifest, "apply", "-f", "-"); err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() {
				if _, err := bed.KubectlWithInput(context.Background(), manifest, "delete", "-f", "-", "--timeout=60s"); err != nil {
					t.Errorf("clean up: %v", err)
				}
			})
			test(t, runtime)
		})
	}
}

// attack is what a container tries on its volume, one line of output for each attempt.
const attack = `
cd /vault/secrets
file=$(readlink -f url)
try() {
	name=$1; shift
	if output=$(sh -c "$*" 2>&1); then echo "$name: DONE $output"; else echo "$name: $output"; fi
}
try write "echo x > $file"
try append "echo x >> $file"
try truncate "truncate -s 0 $file"
try grow "truncate -s 1099511627776 $file"
try create "touch new"
try beside "touch $(dirname $file)/new"
try directory "mkdir new"
try pipe "mkfifo new"
try mode "chmod 777 $file"
try owner "chown 1000:1000 $file"
try remove "rm -f $file"
try rename "mv $file $file.old"
try swap "rm ..data"
try link "ln -s /etc new"
try hardlink "ln $file new"
try time "touch $file"
try descriptor "exec 3< $file; echo x > /proc/self/fd/3"
try remount "mount -o remount,rw /vault/secrets"
try rebind "mount -o remount,bind,rw /vault/secrets"
try unmount "umount /vault/secrets"
try cover "mount -t tmpfs tmpfs /vault/secrets"
`

// attacksFail runs the attack in a container, and reads of each attempt that the
// kernel refused it because the mount is read-only, or because mounting takes a right
// that the container lacks.
func attacksFail(t *testing.T, pod, container string) {
	t.Helper()
	output, err := bed.KubectlWithInput(t.Context(), attack, "exec", "--stdin", pod, "--container="+container, "--", "sh", "-s")
	require.NoError(t, err)
	attempts := 0
	refused := regexp.MustCompile(`^[a-z ]+: .*(Read-only file system|[Pp]ermission denied|Operation not permitted)`)
	for line := range strings.Lines(output) {
		attempts++
		if !refused.MatchString(line) {
			t.Errorf("%s in %s: %s", container, pod, strings.TrimSpace(line))
		}
	}
	if want := strings.Count(attack, "\ntry "); attempts != want {
		t.Errorf("%s in %s made %d attempts, want %d:\n%s", container, pod, attempts, want, output)
	}
	// A user may be refused for the file's mode, root is for the mount alone.
	if got := strings.Count(output, "Read-only file system"); container == "root" && got < attempts-4 {
		t.Errorf("%d attempts were refused because the mount is read-only:\n%s", got, output)
	}
}

// A tenant chooses the runtime class, and asks for a mount that is writable. Each
// runtime has its own way with the flags of the mount that it binds.
func TestNoContainerWritesIntoAVolume(t *testing.T) {
	forEachRuntime(t, "attack.yaml", func(t *testing.T, runtime string) {
		pod := "attack-" + runtime
		awaitReady(t, "default", pod)
		requireRuntime(t, pod, runtime)
		for _, container := range []string{"user", "root"} {
			attacksFail(t, pod, container)
		}
		_, err := bed.Kubectl(t.Context(), "exec", pod, "--container=root", "--", "sh", "-c", "echo x > /sub/url")
		if err == nil || !strings.Contains(err.Error(), "Read-only file system") {
			t.Errorf("writing to a file that is mounted by subPath: %v", err)
		}
		if got := readFile(t, "default", pod, "/vault/secrets/url"); got != connection {
			t.Errorf("the file holds %q", got)
		}
	})
}

// noContainerOfAnAnnotatedPodWrites is the same for a volume that was translated.
func noContainerOfAnAnnotatedPodWrites(t *testing.T) {
	forEachRuntime(t, "annotated/attack.yaml", func(t *testing.T, runtime string) {
		pod := "annotated-attack-" + runtime
		awaitReady(t, "default", pod)
		for _, container := range []string{"user", "root"} {
			attacksFail(t, pod, container)
		}
	})
}

// requireRuntime tells the runtimes apart by the file in which each keeps the state of
// a container.
func requireRuntime(t *testing.T, pod, runtime string) {
	t.Helper()
	id := kubectl(t, "get", "pod", pod, "--output=jsonpath={.status.containerStatuses[0].containerID}")
	file := map[string]string{"runc": "state.json", "crun": "status"}[runtime]
	state := "/run/containerd/runc/k8s.io/" + strings.TrimPrefix(id, "containerd://") + "/" + file
	if err := bed.Run(t.Context(), cluster.Command{Args: []string{"test", "-e", state}}); err != nil {
		t.Errorf("the container is not one of %s: %v", runtime, err)
	}
}
