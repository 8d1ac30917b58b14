package cluster

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/vaultmount/vaultmount/test/cluster/internal/holder"
	"github.com/vaultmount/vaultmount/test/cluster/internal/process"
	"github.com/vaultmount/vaultmount/test/image"
)

// holderName is what the holder is called by: Hold knows it by that, and it is
// what ps shows.
const holderName = "vaultmount-holder"

// Hold is to be called first in main, or TestMain, of every program that calls
// Up. It does nothing, except in the process that Up started from the same
// program to hold a cluster: there it does not return.
func Hold() {
	if os.Args[0] == holderName {
		os.Exit(holder.Main())
	}
}

// launch starts the holder. The caller gets the pipe of its reports.
func launch(options Options) (_ *Cluster, reports *os.File, err error) {
	var passed files // to the holder: this process closes its own copies
	defer func() { passed.close() }()
	c := &Cluster{runDir: options.RunDir, forwarded: make(map[string]string), done: make(chan struct{})}
	config, listeners, err := c.listen(&passed, options)
	if err != nil {
		return nil, nil, err
	}
	images, err := openImages(&passed, &config, options)
	if err != nil {
		return nil, nil, err
	}
	leash, ownLeash, err := os.Pipe()
	if err != nil {
		return nil, nil, err
	}
	passed = append(passed, leash)
	reports, report, err := os.Pipe()
	if err != nil {
		return nil, nil, errors.Join(err, ownLeash.Close())
	}
	passed = append(passed, report)
	c.leash = ownLeash
	if err := c.start(config, holder.Files(leash, report, listeners, images)); err != nil {
		return nil, nil, errors.Join(err, ownLeash.Close(), reports.Close())
	}
	return c, reports, nil
}

// listen opens the listeners on the host's loopback that the holder forwards
// inside: the API server's, and one for each address of Options.Forward.
func (c *Cluster) listen(passed *files, options Options) (holder.Config, []*os.File, error) {
	config := holder.Config{
		RunDir:        options.RunDir,
		Cgroup:        cgroupName(options.RunDir),
		Parts:         *options.Parts,
		Forward:       append([]string{holder.APIAddress}, options.Forward...),
		SyncFrequency: options.SyncFrequency,
		Timeout:       options.Timeout,
	}
	var listeners []*os.File
	for _, inside := range config.Forward {
		file, outside, err := listenOnLoopback()
		if err != nil {
			return config, nil, fmt.Errorf("listen for %s: %w", inside, err)
		}
		*passed = append(*passed, file)
		listeners = append(listeners, file)
		c.forwarded[inside] = outside
	}
	config.APIURL = "https://" + c.forwarded[holder.APIAddress]
	return config, listeners, nil
}

func listenOnLoopback() (file *os.File, address string, err error) {
	listener, err := net.ListenTCP("tcp", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		return nil, "", err
	}
	defer listener.Close() // the file is a duplicate
	file, err = listener.File()
	return file, listener.Addr().String(), err
}

// openImages opens the archives here, where their paths mean something, and
// makes the one no pod starts without.
func openImages(passed *files, config *holder.Config, options Options) ([]*os.File, error) {
	pause := filepath.Join(options.RunDir, imageDir, "pause.tar")
	if err := image.Pause(options.Parts.Pause).Save(pause); err != nil {
		return nil, err
	}
	config.Images = append([]string{pause}, options.Images...)
	var images []*os.File
	for _, path := range config.Images {
		file, err := os.Open(path)
		if err != nil {
			return nil, fmt.Errorf("open image: %w", err)
		}
		*passed = append(*passed, file)
		images = append(images, file)
	}
	return images, nil
}

// start starts the holder from this very program and notes which process it is.
func (c *Cluster) start(config holder.Config, inherited []*os.File) error {
	encoded, err := json.Marshal(config)
	if err != nil {
		return fmt.Errorf("encode config: %w", err)
	}
	log, err := os.Create(filepath.Join(c.Logs(), "holder.log"))
	if err != nil {
		return fmt.Errorf("start holder: %w", err)
	}
	defer log.Close()
	cmd := &exec.Cmd{
		Path:       "/proc/self/exe", // works for a program that has been replaced or deleted, too
		Args:       []string{holderName, c.runDir},
		Dir:        "/",
		Stdin:      bytes.NewReader(encoded),
		Stdout:     log,
		Stderr:     log,
		ExtraFiles: inherited,
		SysProcAttr: &syscall.SysProcAttr{
			Cloneflags: unix.CLONE_NEWNS | unix.CLONE_NEWPID | unix.CLONE_NEWNET | unix.CLONE_NEWIPC | unix.CLONE_NEWUTS,
			Setsid:     true, // Ctrl-C is for this process, which decides what it means
		},
	}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start holder: %w", err)
	}
	go func() {
		_ = cmd.Wait() // the holder has told or logged what went wrong
		close(c.done)
	}()
	if err := c.note(cmd.Process.Pid); err != nil {
		err = errors.Join(err, cmd.Process.Kill())
		<-c.done
		return err
	}
	return nil
}

// note writes down which process the holder is, for this process and others.
func (c *Cluster) note(pid int) error {
	id, err := process.Identify(pid)
	if err != nil {
		return err
	}
	c.holder = id
	return state{Holder: id, Forwarded: c.forwarded}.write(c.runDir)
}

// files are open files to close together. Nothing is written to them, so that
// closing cannot fail in a way that matters.
type files []*os.File

func (f files) close() {
	for _, file := range f {
		_ = file.Close()
	}
}
