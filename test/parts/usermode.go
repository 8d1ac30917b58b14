package parts

import (
	"context"
	"fmt"
	"io"
)

// UserMode is where a kernel is that runs as an ordinary process.
type UserMode struct {
	Kernel  string // program
	Busybox string // program, static
}

// UserModeLinux takes a kernel from the distribution's packages.
func UserModeLinux(ctx context.Context, progress io.Writer) (UserMode, error) {
	b, err := newBuilder(progress)
	if err != nil {
		return UserMode{}, err
	}
	names := []string{"busybox-static", "user-mode-linux"}
	root, err := b.packages(ctx, "usermode", names, func(ctx context.Context, dir string) error { return download(ctx, dir, names) })
	if err != nil {
		return UserMode{}, fmt.Errorf("unpack user-mode-linux: %w", err)
	}
	var u UserMode
	err = findAll(root, []wanted{{&u.Kernel, "linux.uml", programDirs()}, {&u.Busybox, "busybox", programDirs()}})
	return u, err
}
