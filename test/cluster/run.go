package cluster

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/vaultmount/vaultmount/test/cluster/internal/holder"
)

// Command is a program to run inside the cluster's namespaces. Its streams are
// passed as they are; one that is nil is /dev/null.
type Command struct {
	Args                  []string
	Dir                   string
	Stdin, Stdout, Stderr *os.File
}

// ExitError is how a Command failed that ran.
type ExitError struct {
	Name string
	Code int
}

func (e *ExitError) Error() string { return fmt.Sprintf("%s: exit status %d", e.Name, e.Code) }

// Run runs a command inside until it ends, with an ExitError if it fails; when
// ctx ends, the command is killed.
func (c *Cluster) Run(ctx context.Context, command Command) error {
	if len(command.Args) == 0 {
		return errors.New("run in cluster: no command")
	}
	result, err := c.ask(ctx, holder.Command{Args: command.Args, Dir: command.Dir}, command.Stdin, command.Stdout, command.Stderr)
	switch {
	case err != nil:
		return fmt.Errorf("run in cluster: %w", err)
	case result.Exit != 0:
		return &ExitError{Name: command.Args[0], Code: result.Exit}
	}
	return nil
}

// RestartKubelet kills the kubelet and starts it again, as a crash does. It returns
// before the new one is ready; containers run on meanwhile.
func (c *Cluster) RestartKubelet(ctx context.Context) error {
	if _, err := c.ask(ctx, holder.Command{Restart: "kubelet"}, nil, nil, nil); err != nil {
		return fmt.Errorf("restart the kubelet: %w", err)
	}
	return nil
}

// ask has the holder do something; when ctx ends, the holder ends that too.
func (c *Cluster) ask(ctx context.Context, command holder.Command, streams ...*os.File) (holder.Result, error) {
	var dialer net.Dialer
	conn, err := dialer.DialContext(ctx, "unixpacket", holder.Socket(c.runDir))
	if err != nil {
		return holder.Result{}, err
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { _ = conn.Close() })()
	result, err := request(conn.(*net.UnixConn), command, streams)
	switch {
	case ctx.Err() != nil:
		return result, ctx.Err()
	case err == nil && result.Error != "":
		return result, errors.New(result.Error)
	}
	return result, err
}

// request sends the command with its streams in one packet and waits for the
// answer.
func request(conn *net.UnixConn, command holder.Command, streams []*os.File) (holder.Result, error) {
	var result holder.Result
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return result, err
	}
	defer null.Close()
	var fds []int
	for _, stream := range streams {
		if stream == nil {
			stream = null
		}
		fds = append(fds, int(stream.Fd()))
	}
	packet, err := json.Marshal(command)
	if err != nil {
		return result, err
	}
	if _, _, err := conn.WriteMsgUnix(packet, unix.UnixRights(fds...), nil); err != nil {
		return result, err
	}
	err = json.NewDecoder(conn).Decode(&result)
	if errors.Is(err, io.EOF) {
		err = errors.New("the cluster has ended")
	}
	return result, err
}

// ImportImage makes an image archive known to the node.
func (c *Cluster) ImportImage(ctx context.Context, archive string) error {
	if err := c.importImage(ctx, archive); err != nil {
		return fmt.Errorf("import image %s: %w", archive, err)
	}
	return nil
}

func (c *Cluster) importImage(ctx context.Context, archive string) error {
	in, err := os.Open(archive)
	if err != nil {
		return err
	}
	defer in.Close()
	messages, err := os.CreateTemp("", "import-*")
	if err != nil {
		return err
	}
	defer os.Remove(messages.Name())
	defer messages.Close()
	err = c.Run(ctx, Command{Args: holder.ImportCommand(), Stdin: in, Stdout: messages, Stderr: messages})
	var exit *ExitError
	if !errors.As(err, &exit) {
		return err
	}
	output, readErr := os.ReadFile(messages.Name())
	return errors.Join(fmt.Errorf("%w: %s", err, strings.TrimSpace(string(output))), readErr)
}
