package release

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// Of describes a release of the checkout at root. The time is the Unix time in
// epoch ($SOURCE_DATE_EPOCH), or the commit's if that is empty. Sources that no
// commit holds are marked: nobody could build the same.
func Of(ctx context.Context, root, version, epoch string) (Release, error) {
	if !regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}$`).MatchString(version) {
		return Release{}, fmt.Errorf("version %q is no tag of an image; write for example v0.1.0", version)
	}
	release := Release{Version: version}
	head, err := git(ctx, root, "log", "-1", "--format=%H %ct")
	if err != nil {
		return Release{}, fmt.Errorf("find the commit to build: %w", err)
	}
	revision, committed, _ := strings.Cut(head, " ")
	changed, err := git(ctx, root, "status", "--porcelain")
	if err != nil {
		return Release{}, fmt.Errorf("find what no commit holds: %w", err)
	}
	if changed != "" {
		revision += "-dirty"
	}
	release.Revision = revision
	if epoch == "" {
		epoch = committed
	}
	seconds, err := strconv.ParseInt(epoch, 10, 64)
	if err != nil {
		return Release{}, fmt.Errorf("SOURCE_DATE_EPOCH %q is not a number of seconds since 1970; leave it out for the time of the commit", epoch)
	}
	release.Created = time.Unix(seconds, 0).UTC()
	return release, nil
}

// git trusts the checkout whoever owns it: under sudo it is another user's.
func git(ctx context.Context, root string, arguments ...string) (string, error) {
	command := exec.CommandContext(ctx, "git", append([]string{"-C", root, "-c", "safe.directory=*"}, arguments...)...)
	text, err := command.Output()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return "", fmt.Errorf("git %s: %s", arguments[0], strings.TrimSpace(string(exit.Stderr)))
	}
	return strings.TrimSpace(string(text)), err
}
