package main

import (
	"bytes"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
)

// run executes the program with arguments, and returns its output and exit status.
func run(t *testing.T, arguments ...string) (output string, exit int) {
	t.Helper()
	var out bytes.Buffer
	command := newCommand()
	command.SetOut(&out)
	command.SetErr(&out)
	command.SetArgs(arguments)
	if err := command.ExecuteContext(t.Context()); err != nil {
		out.WriteString(err.Error())
		exit = exitStatus(err)
	}
	return out.String(), exit
}

func TestExitStatus(t *testing.T) {
	t.Parallel()
	tests := []struct {
		arguments string
		exit      int
		want      string
	}{
		{"--version", 0, "vaultmount dev"},
		{"version", 0, "vaultmount dev (commit "},
		{"version -o json", 0, `"version":"dev"`},
		{"version -o yaml", exitUsage, "is not a format"},
		{"nonsense", exitUsage, `unknown command "nonsense"`},
		{"translate deployment.yaml", exitUsage, `unknown argument "deployment.yaml"; use -f deployment.yaml`},
		{"translate", exitUsage, "-f is missing"},
		{"driver --nonsense", exitUsage, "unknown flag: --nonsense"},
		{"version x", exitUsage, `unknown command "x"`},
		{"volumes -o yaml", exitUsage, `--output "yaml" is not a format`},
		{"volumes --socket=/nowhere", exitUsage, "check that the driver runs here"},
		{"refresh", exitUsage, "name one pod as NAMESPACE/POD, or write --all"},
		{"refresh shop/orders --all", exitUsage, "name one pod as NAMESPACE/POD, or write --all"},
		{"refresh --all --socket=/nowhere", exitUsage, "check that the driver runs here"},
	}
	for _, test := range tests {
		if output, exit := run(t, strings.Fields(test.arguments)...); exit != test.exit || !strings.Contains(output, test.want) {
			t.Errorf("%s: exit status %d, %s", test.arguments, exit, output)
		}
	}
}

// The command prints one line a volume, and fails if one failed or none matched.
func TestRefreshCommand(t *testing.T) {
	t.Parallel()
	socket := filepath.Join(t.TempDir(), "s")
	listener, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	responses := map[string]string{
		"shop/a": `{"namespace":"shop","pod":"a","volume":"secrets"}`,
		"shop/b": `{"namespace":"shop","pod":"b","volume":"secrets","error":"permission denied"}`,
	}
	responses[""] = responses["shop/a"] + "\n" + responses["shop/b"]
	server := &http.Server{Handler: http.HandlerFunc(func(writer http.ResponseWriter, request *http.Request) {
		if request.FormValue("name") == "slow" {
			<-request.Context().Done()
			return
		}
		response, ok := responses[request.FormValue("name")]
		if !ok {
			http.Error(writer, "no volume", http.StatusNotFound)
			return
		}
		_, _ = writer.Write([]byte(response))
	})}
	go func() { _ = server.Serve(listener) }()
	t.Cleanup(func() { _ = server.Close() })

	const refreshed, denied = "shop/a secrets refreshed\n", "shop/b secrets error: permission denied\n"
	tests := []struct {
		argument, want string
		exit           int
	}{
		{"shop/a", refreshed, 0},
		{"shop/b", denied + errNotRefreshed.Error(), exitFailed},
		{"--all", refreshed + denied + errNotRefreshed.Error(), exitFailed},
		{"nobody", "no volume", exitFailed},
	}
	if output, exit := run(t, "refresh", "--socket="+socket, "--timeout=10ms", "slow"); output != errNotRefreshed.Error()+" within 10ms; raise --timeout" || exit != exitFailed {
		t.Errorf("slow: exit status %d, %q", exit, output)
	}
	for _, test := range tests {
		if output, exit := run(t, "refresh", "--socket="+socket, test.argument); output != test.want || exit != test.exit {
			t.Errorf("%s: exit status %d, %q", test.argument, exit, output)
		}
	}
}
