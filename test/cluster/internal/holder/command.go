package holder

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"syscall"

	"golang.org/x/sys/unix"
)

// Command asks the holder to run a program inside, or to restart one of its own. It
// travels as JSON in one packet, with the program's three standard streams as
// descriptors.
type Command struct {
	Args    []string `json:",omitempty"`
	Dir     string   `json:",omitempty"`
	Restart string   `json:",omitempty"` // name of the program
}

// Result answers a Command: the program's exit status, 128 and the signal's
// number if a signal ended it, or why it could not be run.
type Result struct {
	Exit  int
	Error string `json:",omitempty"`
}

// serveCommands takes commands on a socket in the run directory: a socket with
// a path is found from every network namespace.
func (h *holder) serveCommands(ctx context.Context) error {
	listener, err := net.ListenUnix("unixpacket", &net.UnixAddr{Name: Socket(h.RunDir), Net: "unixpacket"})
	if err != nil {
		return fmt.Errorf("listen for commands: %w", err)
	}
	h.closers = append(h.closers, listener.Close)
	h.wg.Go(func() {
		for {
			conn, err := listener.AcceptUnix()
			if err != nil {
				return // closed
			}
			h.wg.Go(func() { h.serveCommand(ctx, conn) })
		}
	})
	return nil
}

func (h *holder) serveCommand(ctx context.Context, conn *net.UnixConn) {
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { _ = conn.Close() })()
	var result Result
	command, streams, err := receiveCommand(conn)
	if err == nil {
		result.Exit, err = h.do(ctx, conn, command, streams)
	}
	if err != nil {
		result.Error = err.Error()
	}
	_ = json.NewEncoder(conn).Encode(result) // the client may have gone
}

func (h *holder) do(ctx context.Context, client *net.UnixConn, command Command, streams []*os.File) (exit int, err error) {
	if command.Restart == "" {
		return h.runCommand(client, command, streams)
	}
	for _, stream := range streams {
		_ = stream.Close()
	}
	return 0, h.restart(ctx, command.Restart)
}

// runCommand runs a program until it ends; it kills it when the client leaves.
func (h *holder) runCommand(client *net.UnixConn, command Command, streams []*os.File) (exit int, err error) {
	cmd := exec.Command(command.Args[0], command.Args[1:]...)
	cmd.Dir = command.Dir
	cmd.Stdin, cmd.Stdout, cmd.Stderr = streams[0], streams[1], streams[2]
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	pid, exited, err := h.children.start(cmd)
	for _, stream := range streams {
		_ = stream.Close()
	}
	if err != nil {
		return 0, fmt.Errorf("run %s: %w", command.Args[0], err)
	}
	left := make(chan struct{})
	h.wg.Go(func() {
		_, _ = client.Read(make([]byte, 1)) // a client sends nothing more
		close(left)
	})
	select {
	case status := <-exited:
		return exitCode(status), nil
	case <-left:
		_ = unix.Kill(-pid, unix.SIGKILL) // it may have ended just now
		return exitCode(<-exited), nil
	}
}

func exitCode(status unix.WaitStatus) int {
	if status.Signaled() {
		return 128 + int(status.Signal())
	}
	return status.ExitStatus()
}

func receiveCommand(conn *net.UnixConn) (Command, []*os.File, error) {
	data, oob := make([]byte, 64<<10), make([]byte, unix.CmsgSpace(3*4))
	n, oobn, _, _, err := conn.ReadMsgUnix(data, oob)
	if err != nil {
		return Command{}, nil, fmt.Errorf("receive command: %w", err)
	}
	streams, err := receiveFiles(oob[:oobn])
	if err != nil {
		return Command{}, nil, fmt.Errorf("receive command: %w", err)
	}
	var command Command
	if err := json.Unmarshal(data[:n], &command); err != nil {
		return Command{}, nil, fmt.Errorf("receive command: %w", err)
	}
	if len(streams) != 3 || len(command.Args) == 0 && command.Restart == "" {
		return Command{}, nil, errors.New("receive command: it lacks arguments or streams")
	}
	return command, streams, nil
}

// receiveFiles takes descriptors from a control message. ReadMsgUnix has made
// them close on exec.
func receiveFiles(oob []byte) ([]*os.File, error) {
	messages, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return nil, err
	}
	var files []*os.File
	for _, message := range messages {
		fds, err := unix.ParseUnixRights(&message)
		if err != nil {
			return nil, err
		}
		for _, fd := range fds {
			files = append(files, os.NewFile(uintptr(fd), "stream"))
		}
	}
	return files, nil
}
