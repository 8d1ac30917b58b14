package image

import (
	"context"
	"fmt"
	"os/exec"
	"path"
	"strings"
)

// Busybox is a small system to run shell scripts in, made from a static busybox
// program.
func Busybox(ctx context.Context, program string) (Image, error) {
	files, err := busyboxFiles(ctx, program)
	if err != nil {
		return Image{}, err
	}
	return Image{Name: BusyboxName, Entrypoint: []string{"/bin/sh"}, Files: files}, nil
}

// Tutorial has the name of the application in HashiCorp's tutorial, whose
// manifests the tests apply as they are; it does nothing but run.
func Tutorial(ctx context.Context, program string) (Image, error) {
	files, err := busyboxFiles(ctx, program)
	if err != nil {
		return Image{}, err
	}
	wait := []string{"/bin/sh", "-c", "trap 'exit 0' TERM; while :; do sleep 1; done"}
	return Image{Name: TutorialName, Entrypoint: wait, Files: files}, nil
}

// Pause is the image of the process that holds a pod's namespaces.
func Pause(program string) Image {
	return Image{
		Name:       PauseName,
		Entrypoint: []string{"/pause"},
		Files:      []File{{Path: "/pause", Mode: 0o755, From: program}},
	}
}

// Vault is a Vault server on top of Busybox: its tests run scripts next to it.
func Vault(ctx context.Context, busybox, vault string) (Image, error) {
	files, err := busyboxFiles(ctx, busybox)
	if err != nil {
		return Image{}, err
	}
	files = append(files, File{Path: "/bin/vault", Mode: 0o755, From: vault})
	return Image{Name: VaultName, Entrypoint: []string{"/bin/vault"}, Files: files}, nil
}

// Vaultmount is nothing but the static program. Only the DaemonSet overrides the
// user: it mounts file systems. All other commands need no right at all. The program
// is readable by all, as the driver starts it once more as other users.
func Vaultmount(program string) Image {
	return Image{
		Name:       VaultmountName,
		Entrypoint: []string{"/vaultmount"},
		User:       "65532:65532",
		Files:      []File{{Path: "/vaultmount", Mode: 0o755, From: program}},
	}
}

func busyboxFiles(ctx context.Context, program string) ([]File, error) {
	list, err := exec.CommandContext(ctx, program, "--list").Output()
	if err != nil {
		return nil, fmt.Errorf("list busybox's commands: %w", err)
	}
	files := []File{
		{Path: "/bin/busybox", Mode: 0o755, From: program},
		{Path: "/etc/passwd", Mode: 0o644, Content: "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n"},
		{Path: "/etc/group", Mode: 0o644, Content: "root:x:0:\nnogroup:x:65534:\n"},
		{Path: "/root", Mode: 0o700, Dir: true},
		{Path: "/tmp", Mode: 0o1777, Dir: true},
		{Path: "/usr/bin", Mode: 0o777, Link: "../bin"},
	}
	for _, command := range strings.Fields(string(list)) {
		if command == "busybox" {
			continue
		}
		files = append(files, File{Path: path.Join("/bin", command), Mode: 0o777, Link: "busybox"})
	}
	return files, nil
}
