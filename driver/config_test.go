package driver

import (
	"strings"
	"testing"
)

func TestConfigValidate(t *testing.T) {
	t.Parallel()
	good := Config{Name: "csi.vaultmount.dev", NodeName: "node", KubeletRoot: "/var/lib/kubelet", VolumeSize: 1, MaxVolumeSize: 1}
	tests := map[string]struct {
		change func(*Config)
		want   string
	}{
		"good":           {func(*Config) {}, ""},
		"no name":        {func(c *Config) { c.Name = "" }, "driver name is empty"},
		"long name":      {func(c *Config) { c.Name = strings.Repeat("x", 64) }, "63 characters"},
		"longest name":   {func(c *Config) { c.Name = strings.Repeat("x", 63) }, ""},
		"name of a path": {func(c *Config) { c.Name = "../x" }, "is not a domain name"},
		"name of a glob": {func(c *Config) { c.Name = "csi.*.dev" }, "is not a domain name"},
		"capitals":       {func(c *Config) { c.Name = "CSI.example.com" }, "is not a domain name"},
		"no node":        {func(c *Config) { c.NodeName = "" }, "node name is empty"},
		"relative root":  {func(c *Config) { c.KubeletRoot = "kubelet" }, "not an absolute path"},
		"other prefix":   {func(c *Config) { c.Annotations.Prefix = "openbao.openbao.org/" }, ""},
		"kubelet's":      {func(c *Config) { c.Annotations.Prefix = "csi.storage.k8s.io/" }, "prefix of annotations"},
		"verb as prefix": {func(c *Config) { c.Annotations.Prefix = "secret/" }, "prefix of annotations"},
		"capacity":       {func(c *Config) { c.VolumeCapacity = 2 }, ""},
		"small share":    {func(c *Config) { c.MaxVolumeSize, c.VolumeCapacity = 3, 4 }, "2 bytes of the node's capacity, is less than the 3"},
		"larger share":   {func(c *Config) { c.MaxVolumeSize, c.VolumeCapacity, c.NamespaceShare = 3, 4, 75 }, ""},
		"no percentage":  {func(c *Config) { c.NamespaceShare = 101 }, "is not from 1 to 100"},
		"small capacity": {func(c *Config) { c.MaxVolumeSize, c.VolumeCapacity = 3, 2 }, "is less than the 3 that one volume may ask for"},
		"sizes reversed": {func(c *Config) { c.VolumeSize = 2 }, "is less than the usual one"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			config := good
			test.change(&config)
			err := config.Validate()
			if test.want == "" && err != nil || test.want != "" && (err == nil || !strings.Contains(err.Error(), test.want)) {
				t.Errorf("got %v, want %q", err, test.want)
			}
		})
	}
}
