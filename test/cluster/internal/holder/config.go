package holder

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/vaultmount/vaultmount/test/parts"
)

// Addresses inside the cluster.
const (
	Node       = "vaultmount"
	NodeIP     = "10.111.0.1"
	APIAddress = "127.0.0.1:6443"

	nodeNetwork    = NodeIP + "/24"
	podNetwork     = "10.244.0.0/24"
	serviceNetwork = "10.96.0.0/16"
	serviceIP      = "10.96.0.1" // of the Service kubernetes: the first of its network
)

// Config is what the process that brings a cluster up tells its holder, as JSON
// on the holder's standard input.
type Config struct {
	RunDir        string
	Cgroup        string // name of the control group
	Parts         parts.Parts
	Images        []string // names of the archives, for messages
	Forward       []string // addresses inside, one for each listener
	APIURL        string   // of the API server, as seen from outside
	SyncFrequency time.Duration
	Timeout       time.Duration
}

// Paths in the run directory, which both sides of the namespaces see.

func (c Config) kubeconfig() string     { return Kubeconfig(c.RunDir) }
func (c Config) log(name string) string { return filepath.Join(Logs(c.RunDir), name+".log") }

// Kubeconfig is the path of the kubeconfig for the outside.
func Kubeconfig(runDir string) string { return filepath.Join(runDir, "kubeconfig") }

// Logs is the directory of one log for each program.
func Logs(runDir string) string { return filepath.Join(runDir, "logs") }

// Socket is where the holder takes commands.
func Socket(runDir string) string { return filepath.Join(runDir, "holder.sock") }

// Report is one line of JSON of what the holder tells on its report pipe.
type Report struct {
	Stage string `json:",omitempty"` // that has been reached
	Ready bool   `json:",omitempty"`
	Error string `json:",omitempty"`
}

// Descriptors the holder finds open, besides its standard input and its log.
const (
	leashFD     = 3 // ends, or delivers one byte: stay without me
	reportFD    = 4
	firstFileFD = 5 // the listeners, then the image archives
)

// Files arranges descriptors for exec.Cmd's ExtraFiles in the order above.
func Files(leash, report *os.File, listeners, images []*os.File) []*os.File {
	return append(append([]*os.File{leash, report}, listeners...), images...)
}

// inherited is the holder's end of all that.
type inherited struct {
	Config
	leash, report *os.File
	listeners     []net.Listener
	images        []*os.File
}

func inheritedFiles() (*inherited, error) {
	in := &inherited{report: inheritFile(reportFD, "report")}
	// Only a file the poller knows can be closed under a read.
	if err := unix.SetNonblock(leashFD, true); err != nil {
		return in, fmt.Errorf("inherit leash: %w", err)
	}
	in.leash = inheritFile(leashFD, "leash")
	config, err := io.ReadAll(os.Stdin)
	if err != nil {
		return in, fmt.Errorf("read config: %w", err)
	}
	if err := json.Unmarshal(config, &in.Config); err != nil {
		return in, fmt.Errorf("read config: %w", err)
	}
	fd := firstFileFD
	for _, address := range in.Forward {
		file := inheritFile(fd, address)
		listener, err := net.FileListener(file)
		if err != nil {
			return in, fmt.Errorf("inherit listener of %s: %w", address, err)
		}
		_ = file.Close() // FileListener duplicates the descriptor
		in.listeners = append(in.listeners, listener)
		fd++
	}
	for _, name := range in.Images {
		in.images = append(in.images, inheritFile(fd, name))
		fd++
	}
	return in, nil
}

// inheritFile keeps the descriptor from the programs the holder starts: with
// the report pipe in their hands its reader would never see the holder's end.
func inheritFile(fd int, name string) *os.File {
	unix.CloseOnExec(fd)
	return os.NewFile(uintptr(fd), name)
}
