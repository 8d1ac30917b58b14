package component

import (
	"encoding/json"
	"io"
	"net/http"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/vaultmount/vaultmount/driver/kubeletplugin"
	volumestatus "github.com/vaultmount/vaultmount/driver/status"
	"github.com/vaultmount/vaultmount/test/rig"
)

// monitored is a driver with what it tells Prometheus and the kubelet's probes.
type monitored struct {
	*upgrade
	process *rig.Process
	address string
}

func newMonitored(t *testing.T, arguments ...string) *monitored {
	t.Helper()
	m := &monitored{upgrade: newUpgrade(t)}
	m.arguments = arguments
	m.process = m.begin(t)
	m.address = m.process.Address(t, "Serving health and metrics")
	return m
}

func (m *monitored) get(t *testing.T, path string) (int, string) {
	t.Helper()
	response, err := http.Get("http://" + m.address + path)
	require.NoError(t, err)
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	require.NoError(t, err)
	return response.StatusCode, string(body)
}

func (m *monitored) requireMetrics(t *testing.T, wanted ...string) {
	t.Helper()
	_, text := m.get(t, "/metrics")
	for _, line := range wanted {
		if !strings.Contains(text, "\n"+line+"\n") {
			name, _, _ := strings.Cut(line, " ")
			found := regexp.MustCompile(`(?m)^` + regexp.QuoteMeta(name) + ` .*$`).FindString(text)
			t.Errorf("/metrics lacks %q; it has %q", line, found)
		}
	}
}

func TestMetricsTellWhatHappens(t *testing.T) {
	const closed = "http://127.0.0.1:1" // a port where nobody listens
	m := newMonitored(t, "--allow-address="+closed)
	m.requireMetrics(t,
		`vaultmount_volumes 0`, `vaultmount_registered 0`, `vaultmount_capacity_bytes 1.34217728e+08`,
		`vaultmount_vault_requests_total{operation="login",result="sealed"} 0`, `vaultmount_sandbox_worker_kills_total{reason="cpu"} 0`)
	request := m.request(t, "good")
	m.publish(t, request)
	m.publish(t, request)
	refused := m.kubelet.Request(t, m.vault, "refused", map[string]string{"template/db": connectionTemplate, "role": "nobody"})
	endless := m.kubelet.Request(t, m.vault, "endless", map[string]string{"template/x": `{{ define "x" }}{{ template "x" }}{{ end }}{{ template "x" }}`})
	other := m.kubelet.Request(t, m.vault, "other", map[string]string{
		"template/db": connectionTemplate, "address": closed, "client-max-retries": "0",
	})
	for _, bad := range []*csi.NodePublishVolumeRequest{refused, endless, other} {
		if err := m.call(func(node csi.NodeClient) error { _, err := node.NodePublishVolume(t.Context(), bad); return err }); err == nil {
			t.Errorf("%s is published", bad.GetVolumeId())
		}
	}
	m.requireMetrics(t,
		`vaultmount_publish_duration_seconds_count{code="OK"} 1`,
		`vaultmount_publish_duration_seconds_count{code="InvalidArgument"} 1`,
		`vaultmount_csi_operations_total{code="OK",method="NodePublishVolume"} 2`,
		`vaultmount_vault_requests_total{operation="login",result="success"} 1`,
		`vaultmount_vault_requests_total{operation="login",result="refused"} 1`,
		`vaultmount_vault_requests_total{operation="read",result="success"} 1`,
		`vaultmount_vault_requests_total{operation="mount_probe",result="success"} 1`,
		`vaultmount_vault_request_duration_seconds_count{operation="read"} 1`,
		`vaultmount_template_renders_total{result="refused"} 1`,
		`vaultmount_sandbox_worker_kills_total{reason="crash"} 1`,
		`vaultmount_volumes 1`, `vaultmount_volumes_stale 0`, `vaultmount_vault_tokens 1`, `vaultmount_vault_leases 0`,
		`vaultmount_volumes_used_bytes 4096`,
		`vaultmount_vault_circuit_breaker_open{address="`+m.vault.Server.Address+`"} 0`,
		`vaultmount_vault_circuit_breaker_open{address="other"} 0`, // no address that a tenant chose
	)
	// A size of 1 MiB, some 20 inodes, and what Vault output.
	if taken := m.process.Metric(t, "vaultmount_capacity_used_bytes"); taken <= 1<<20 || taken > 1<<20+64<<10 {
		t.Errorf("the volume takes %.0f bytes of the capacity", taken)
	}
	m.unpublish(t, request)
	rig.Eventually(t, "the revocation is counted", func() bool {
		_, text := m.get(t, "/metrics")
		return strings.Contains(text, "\n"+`vaultmount_token_revocations_total{result="success"} 1`+"\n")
	})
	m.requireMetrics(t, `vaultmount_volumes 0`, `vaultmount_vault_tokens 0`, `vaultmount_token_revocations_pending 0`, `vaultmount_capacity_used_bytes 0`)
}

// A driver is ready when the kubelet knows it, and alive when the kubelet can reach it. A
// standby is both, so that Kubernetes ends the active instance, but is not registered.
func TestProbes(t *testing.T) {
	m := newMonitored(t)
	if code, body := m.get(t, "/readyz"); code != http.StatusServiceUnavailable || !strings.Contains(body, "the kubelet has not registered the driver yet") {
		t.Errorf("before the registration: %d %s", code, body)
	}
	m.kubelet.Register(t)
	for _, path := range []string{"/healthz", "/readyz"} {
		if code, body := m.get(t, path); code != http.StatusOK || body != "ok\n" {
			t.Errorf("%s: %d %s", path, code, body)
		}
	}
	m.requireMetrics(t, `vaultmount_registered 1`)

	next := &monitored{upgrade: m.upgrade}
	next.process = next.standBy(t)
	next.address = next.process.Address(t, "Serving health and metrics")
	next.requireMetrics(t, `vaultmount_registered 0`, `vaultmount_checkpoint_mounted 0`)
	m.process.Stop(t)
	rig.Eventually(t, "the next instance is ready and registered", func() bool {
		code, _ := next.get(t, "/readyz")
		_, text := next.get(t, "/metrics")
		return code == http.StatusOK && strings.Contains(text, "\nvaultmount_registered 1\n")
	})
	require.NoError(t, os.Remove(m.kubelet.RegistrationSocket(t)))
	for _, path := range []string{"/healthz", "/readyz"} {
		if code, body := next.get(t, path); code != http.StatusServiceUnavailable || !strings.Contains(body, "was removed") {
			t.Errorf("%s without the registration: %d %s", path, code, body)
		}
	}
	next.requireMetrics(t, `vaultmount_registered 0`)
}

// run executes a subcommand that asks the driver.
func (m *monitored) run(t *testing.T, name string, arguments ...string) (string, error) {
	t.Helper()
	command := exec.Command(rig.Program(t), append([]string{name, "--socket=" + kubeletplugin.StatusSocket(m.kubelet.Root, driverName)}, arguments...)...)
	output, err := command.CombinedOutput()
	return string(output), err
}

// One call reads a changed secret, and prints a line for each volume.
func TestRefreshCommand(t *testing.T) {
	m := newMonitored(t)
	request, gone := m.request(t, "pod"), m.request(t, "gone")
	m.publish(t, request)
	m.publish(t, gone)
	m.vault.SetPassword(t, "rotated")
	if output, err := m.run(t, "refresh", "default/pod"); err != nil || output != "default/pod vault-secrets refreshed\n" {
		t.Errorf("got %v\n%s", err, output)
	}
	if got := mustRead(t, rig.VolumeFile(request, "db")); !strings.Contains(got, "rotated") {
		t.Errorf("the file holds %q", got)
	}
	if got := mustRead(t, rig.VolumeFile(gone, "db")); strings.Contains(got, "rotated") {
		t.Error("a refresh of one pod refreshes another")
	}
	output, err := m.run(t, "refresh", "--all")
	lines := strings.Split(strings.TrimSpace(output), "\n")
	slices.Sort(lines)
	if err != nil || !slices.Equal(lines, []string{"default/gone vault-secrets refreshed", "default/pod vault-secrets refreshed"}) {
		t.Errorf("got %v\n%s", err, output)
	}
	if output, err := m.run(t, "refresh", "default/nobody"); err == nil || !strings.Contains(output, `no volume "default/nobody" on this node`) {
		t.Errorf("got %v\n%s", err, output)
	}
}

// The program tells what a person on call wants to know, in a table, of one volume,
// and as JSON.
func TestVolumesCommand(t *testing.T) {
	m := newMonitored(t)
	request := m.request(t, "pod")
	m.publish(t, request)
	run := func(arguments ...string) (string, error) { return m.run(t, "volumes", arguments...) }
	table, err := run()
	if err != nil || !regexp.MustCompile(`(?m)^NAMESPACE +POD +VOLUME .*\ndefault +pod +vault-secrets +fresh +internal-app +\d+s +\d+s ago +in [45]m\d+s +0 +4 of 1024 KiB +10\d\d KiB +-$`).MatchString(table) {
		t.Errorf("got %v\n%s", err, table)
	}
	one, err := run("default/pod")
	for _, want := range []string{`default +pod +vault-secrets +fresh +internal-app `, `vault-secrets +internal/data/database/config +read +in [45]m\d+s +never +false +-`} {
		if err != nil || !regexp.MustCompile(want).MatchString(one) {
			t.Errorf("got %v, want %s\n%s", err, want, one)
		}
	}
	text, err := run("-o", "json")
	var volumes []volumestatus.Volume
	if err != nil || json.Unmarshal([]byte(text), &volumes) != nil || len(volumes) != 1 || volumes[0].State != volumestatus.Fresh || volumes[0].Target != request.GetTargetPath() {
		t.Errorf("got %v\n%s", err, text)
	}
	for _, output := range []string{table, one, text} {
		if strings.Contains(output, password) || strings.Contains(output, "hvs.") || strings.Contains(output, "eyJ") {
			t.Errorf("it shows a secret:\n%s", output)
		}
	}
	for arguments, want := range map[string]string{
		"nobody":      `no volume "nobody" on this node; write a pod, namespace/pod, namespace/pod/volume, or a volume id; this node has default/pod/vault-secrets`,
		"-o yaml":     `--output "yaml" is not a format; write json, or leave it out for a table`,
		"--socket=/x": "check that the driver runs here and that --socket names its socket",
	} {
		if output, err := run(strings.Fields(arguments)...); err == nil || !strings.Contains(output, want) {
			t.Errorf("%s: got %v, %s", arguments, err, output)
		}
	}
}

// A volume beyond the node's capacity fails before a request to Vault, and succeeds when
// another volume is gone.
func TestVolumeCapacity(t *testing.T) {
	// With 1 KiB for each inode of a volume with one file.
	m := newMonitored(t, "--volume-capacity=3200Ki", "--max-volume-size=2Mi", "--namespace-share=100")
	large := m.kubelet.Request(t, m.vault, "large", map[string]string{"template/db": connectionTemplate, "size": "2Mi"})
	m.publish(t, large)
	m.publish(t, m.request(t, "small"))
	late := m.request(t, "late")
	err := m.call(func(node csi.NodeClient) error { _, err := node.NodePublishVolume(t.Context(), late); return err })
	want := "ask for less with the attribute size, or raise the driver's --namespace-share or --volume-capacity"
	if status.Code(err) != codes.ResourceExhausted || !strings.Contains(err.Error(), want) {
		t.Errorf("got %v", err)
	}
	rig.RequireNothing(t, late.GetTargetPath())
	m.requireMetrics(t, `vaultmount_vault_requests_total{operation="login",result="success"} 2`)

	// The sizes are known to the next process as well.
	m.process.Kill(t)
	m.process = m.begin(t)
	if err := m.call(func(node csi.NodeClient) error { _, err := node.NodePublishVolume(t.Context(), late); return err }); status.Code(err) != codes.ResourceExhausted {
		t.Errorf("after a restart: %v", err)
	}
	m.unpublish(t, large)
	m.publish(t, late)
}
