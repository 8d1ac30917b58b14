package vault

import (
	"errors"
	"strings"
	"testing"

	"github.com/vaultmount/vaultmount/provider/limits"
)

func TestWithArea(t *testing.T) {
	t.Parallel()
	tests := []struct {
		mount, path string
		area        kvArea
		want        string
	}{
		{"kv/", "kv/app", kvData, "kv/data/app"},
		{"kv/", "kv/data/app", kvData, "kv/data/app"},
		{"kv/", "kv/metadata/app", kvData, "kv/metadata/app"},
		{"kv/", "kv/subkeys/app", kvData, "kv/subkeys/app"},
		{"kv/", "kv/team/data/app", kvData, "kv/data/team/data/app"},
		{"kv/", "kv/data", kvData, "kv/data/data"},
		{"kv/", "kv", kvData, "kv/data"},
		{"a/b/kv/", "a/b/kv/app", kvData, "a/b/kv/data/app"},
		{"kv/", "kv/app", kvMetadata, "kv/metadata/app"},
		{"kv/", "kv/metadata/app", kvMetadata, "kv/metadata/app"},
		{"kv/", "kv", kvMetadata, "kv/metadata"},
	}
	for _, test := range tests {
		t.Run(string(test.area)+" of "+test.path, func(t *testing.T) {
			t.Parallel()
			if got := (mount{path: test.mount, version: "2"}).withArea(test.path, test.area); got != test.want {
				t.Errorf("got %q, want %q", got, test.want)
			}
		})
	}
}

func TestMountsFind(t *testing.T) {
	t.Parallel()
	known := newMounts()
	known.remember(mount{path: "kv/", version: "2"})
	known.remember(mount{path: "team/kv/", version: "1"})
	known.remember(mount{namespace: "team", path: "kv/", version: "1"})
	tests := []struct{ namespace, path, mount, version string }{
		{"", "kv/app", "kv/", "2"},
		{"", "kv", "kv/", "2"},
		{"", "kvx/app", "", ""},
		{"", "team/kv/a/b", "team/kv/", "1"},
		{"", "team/other/x", "", ""},
		// The same path is another mount in another namespace.
		{"team", "kv/app", "kv/", "1"},
		{"other", "kv/app", "", ""},
	}
	for _, test := range tests {
		if got, ok := known.find(test.namespace, test.path); got.path != test.mount || got.version != test.version || ok != (test.mount != "") {
			t.Errorf("%s in namespace %q: got %+v", test.path, test.namespace, got)
		}
	}
	known.forget(mount{path: "kv/", version: "2"})
	if _, ok := known.find("", "kv/app"); ok {
		t.Error("a forgotten mount is still known")
	}
	if _, ok := known.find("team", "kv/app"); !ok {
		t.Error("the mount of another namespace is forgotten as well")
	}
}

func TestSplitPath(t *testing.T) {
	t.Parallel()
	path, query, err := splitPath(" /kv/app?version=2 ")
	if err != nil || path != "kv/app" || query.Get("version") != "2" {
		t.Errorf("got %q %v %v", path, query, err)
	}
	for _, bad := range []string{"", "/", "?x=1", "../sys/raw", "kv/../sys", "kv/./a", "http://evil/x"} {
		if _, _, err := splitPath(bad); err == nil {
			t.Errorf("%q is accepted", bad)
		}
	}
}

// Whoever reads Vault's health may not choose the status of the answer.
func TestPathsThatAreRefused(t *testing.T) {
	t.Parallel()
	for raw, want := range map[string]string{
		"kv/app?version=2":                                         "",
		"kv/app?activecode=503":                                    "",
		"sys/health":                                               "",
		"sys/health?standbyok=true":                                "",
		"sys/seal-status":                                          "",
		"sys/health?activecode=503&x=1":                            "chooses the status of the answer",
		"/sys/health/?x=1&standbycode=503":                         "chooses the status of the answer",
		"sys//health?sealedcode=200":                               "chooses the status of the answer",
		"%73ys/health?performancestandbycode=":                     "chooses the status of the answer",
		"kv/../sys/health":                                         "is not a path in Vault",
		"kv/" + strings.Repeat("x", limits.VaultPathBytes.Max()-3): "",
		"kv/" + strings.Repeat("x", limits.VaultPathBytes.Max()-2): "(vault-path-bytes)",
	} {
		_, _, err := splitPath(raw)
		if (err == nil) != (want == "") || err != nil && (!errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), want)) {
			t.Errorf("%.60s: got %v, want … %s", raw, err, want)
		}
	}
}
