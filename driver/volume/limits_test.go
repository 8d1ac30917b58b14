package volume

import (
	"errors"
	"fmt"
	"maps"
	"strings"
	"testing"

	"github.com/vaultmount/vaultmount/provider/cost"
	"github.com/vaultmount/vaultmount/provider/limits"
)

// Each row makes attributes of a size n of what the limit counts. They are accepted at
// the limit, and one above it the error names the limit.
func TestLimits(t *testing.T) {
	value := func(key, prefix string) func(int) map[string]string {
		return func(n int) map[string]string {
			return map[string]string{key: prefix + strings.Repeat("x", n-len(prefix))}
		}
	}
	key := func(verb string, path func(n int) string) func(int) map[string]string {
		return func(n int) map[string]string { return map[string]string{verb: "x", verb + path(n): "x"} }
	}
	host := func(n int) string {
		return strings.Repeat(strings.Repeat("h", 63)+".", n/64) + strings.Repeat("h", n%64)
	}
	tests := []struct {
		name  string
		limit limits.Limit
		make  func(n int) map[string]string
	}{
		{"a role", limits.NameBytes, value("role", "")},
		{"an auth path", limits.NameBytes, value("auth-path", "auth/")},
		{"an audience", limits.NameBytes, value("audience", "")},
		{"a Vault namespace", limits.NameBytes, value("namespace", "")},
		{"a delimiter", limits.NameBytes, value("left-delim/first", "")},
		{"a host name", limits.HostBytes, func(n int) map[string]string { return map[string]string{"tls-server-name": host(n)} }},
		{"the host of an address", limits.HostBytes, func(n int) map[string]string { return map[string]string{"address": "https://" + host(n) + ":8200"} }},
		{"the host of a proxy", limits.HostBytes, func(n int) map[string]string { return map[string]string{"proxy-address": "http://" + host(n)} }},
		{"an address", limits.AddressBytes, func(n int) map[string]string {
			return map[string]string{"address": "https://vault" + strings.Repeat("/", n-len("https://vault"))}
		}},
		{"the key of a CA certificate", limits.SecretKeyBytes, value("ca-cert", "")},
		{"the key of a template", limits.SecretKeyBytes, value("template-key/db", "")},
		{"a Vault path", limits.VaultPathBytes, value("secret/db", "kv/")},
		{"a mount path", limits.FilePathBytes, value("mount-path", "/")},
		{"a template", limits.TemplateBytes, value("template/db", "")},
		{"all templates", limits.VolumeTemplateBytes, func(n int) map[string]string {
			third := strings.Repeat("x", n/3)
			return map[string]string{"template/first": third, "template/second": third, "template/third": third + strings.Repeat("x", n%3)}
		}},
		{"a part of a path", limits.FileNameBytes, key("template/", func(n int) string { return strings.Repeat("x", n) })},
		{"a path", limits.FilePathBytes, func(n int) map[string]string {
			return map[string]string{"template/" + pathOf(n): "x"}
		}},
		{"a path of the token", limits.FilePathBytes, func(n int) map[string]string { return map[string]string{"token-file": pathOf(n)} }},
		{"nested directories", limits.DirectoryDepth, func(n int) map[string]string {
			return map[string]string{"template/" + strings.Repeat("d/", n) + "f": "x"}
		}},
		{"directories", limits.Directories, func(n int) map[string]string {
			attributes := map[string]string{}
			for i := range n / 2 {
				attributes[fmt.Sprintf("template/%d/d/f", i)] = "x"
			}
			if n%2 == 1 {
				attributes["secret/odd/f"] = "kv/x"
			}
			return attributes
		}},
		{"files", limits.Files, func(n int) map[string]string {
			attributes := map[string]string{"token-file": "token"}
			for i := range n - 2 { // and template/first
				attributes[fmt.Sprintf("secret/%d", i)] = "kv/x"
			}
			return attributes
		}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			parse := func(n int) error {
				attributes := map[string]string{"role": "app", "template/first": "x"}
				maps.Copy(attributes, test.make(n))
				delete(attributes, "template/")
				_, err := Parse(attributes)
				return err
			}
			if err := parse(test.limit.Max()); err != nil {
				t.Errorf("at the limit: %v", err)
			}
			requireExceeded(t, parse(test.limit.Max()+1), test.limit)
		})
	}
}

// pathOf returns a path of so many bytes whose parts are as long as they may be.
func pathOf(n int) string {
	const part = 250
	return strings.Repeat(strings.Repeat("d", part)+"/", n/(part+1)) + strings.Repeat("f", n%(part+1))
}

// The limits of what no valid volume reaches hold for any attributes.
func TestCheckSize(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		limit limits.Limit
		make  func(n int) map[string]string
	}{
		{limits.Attributes, func(n int) map[string]string {
			attributes := map[string]string{}
			for i := range n {
				attributes[fmt.Sprint(i)] = ""
			}
			return attributes
		}},
		{limits.AttributeKeyBytes, func(n int) map[string]string { return map[string]string{strings.Repeat("k", n): ""} }},
		{limits.TemplateBytes, func(n int) map[string]string { return map[string]string{"key": strings.Repeat("v", n)} }},
	} {
		t.Run(test.limit.String(), func(t *testing.T) {
			t.Parallel()
			if err := CheckSize(test.make(test.limit.Max())); err != nil {
				t.Errorf("at the limit: %v", err)
			}
			requireExceeded(t, CheckSize(test.make(test.limit.Max()+1)), test.limit)
			if _, err := Parse(test.make(test.limit.Max() + 1)); !errors.As(err, new(*limits.ExceededError)) {
				t.Errorf("Parse accepts it: %v", err)
			}
		})
	}
}

func requireExceeded(t *testing.T, err error, limit limits.Limit) {
	t.Helper()
	var exceeded *limits.ExceededError
	var attribute *AttributeError
	if !errors.As(err, &exceeded) || exceeded.Limit != limit || !errors.As(err, &attribute) || !strings.Contains(err.Error(), limit.String()) {
		t.Errorf("one above the limit: got %v, want an AttributeError that names %s", err, limit)
	}
}

func TestNearestAtTheLimitAndOneAbove(t *testing.T) {
	t.Parallel()
	word, candidates := limits.SuggestionBytes.Max(), limits.SuggestionCandidates.Max()
	far := make([]string, candidates)
	for _, test := range []struct {
		name, word string
		candidates []string
		want       string
		ok         bool
	}{
		{"a word at the limit", strings.Repeat("x", word), []string{strings.Repeat("x", word-2)}, strings.Repeat("x", word-2), true},
		{"a word above the limit", strings.Repeat("x", word+1), []string{strings.Repeat("x", word)}, "", false},
		{"three edits", "typo", []string{"role"}, "", false},
		{"an empty word", "", []string{"id"}, "", false},
		{"a candidate at the limit", strings.Repeat("x", word-1), []string{strings.Repeat("x", word)}, strings.Repeat("x", word), true},
		{"a candidate above the limit", strings.Repeat("x", word), []string{strings.Repeat("x", word+1)}, "", false},
		{"the last candidate", "role", append(far[:candidates-1:candidates-1], "role"), "role", true},
		{"one candidate too many", "role", append(far[:candidates:candidates], "role"), "", false},
		{"the nearest", "rol", []string{"uid", "role", "gid"}, "role", true},
		{"the first of two", "xid", []string{"uid", "gid"}, "uid", true},
		{"no candidate", "x", nil, "", false},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			if got, ok := Nearest(test.word, test.candidates); got != test.want || ok != test.ok {
				t.Errorf("got %q, %v; want %q, %v", got, ok, test.want, test.ok)
			}
		})
	}
}

// What the author of a pod can send at most costs the driver milliseconds.
func TestParseCostsInProportion(t *testing.T) {
	const enough = 1 << 20
	files := map[string]string{"role": "app"}
	for i := range limits.Files.Max() {
		files[fmt.Sprintf("template/%s-%03d", strings.Repeat("f", 56), i)] = "x"
	}
	with := func(key, value string) map[string]string {
		attributes := maps.Clone(files)
		attributes[key] = value
		return attributes
	}
	deep := map[string]string{"role": "app"}
	for i := range limits.Attributes.Max() - 1 {
		deep[fmt.Sprintf("template/%04d/%s", i, strings.Repeat("a/", 500))] = "x"
	}
	many := maps.Clone(files)
	for i := range limits.Attributes.Max() - len(files) {
		many[fmt.Sprintf("perms/%s-%04d", strings.Repeat("g", 56), i)] = "0600"
	}
	for _, test := range []struct {
		name       string
		attributes map[string]string
	}{
		{"a long key that is unknown", map[string]string{strings.Repeat("-x", enough): ""}},
		{"a long path of no file", with("perms/"+strings.Repeat("x", enough), "0600")},
		{"the longest path of no file", with("perms/"+strings.Repeat("f", 1000), "0600")},
		{"a path of no file beside similar ones", with("perms/"+strings.Repeat("f", 64), "0600")},
		{"as many paths of no file as fit", many},
		{"as many directories as fit", deep},
		{"a long number", map[string]string{"size": strings.Repeat("9", enough)}},
		{"a number with a long exponent", map[string]string{"size": "1e-10000000"}},
		{"a long part of a lease", map[string]string{"lease-renewal-threshold": "0." + strings.Repeat("9", enough)}},
		{"a long role", map[string]string{"role": strings.Repeat("r", enough)}},
	} {
		t.Run(test.name, func(t *testing.T) {
			requireLinear(t, test.attributes)
		})
	}
}

// requireLinear parses attributes. An error is bounded as well.
func requireLinear(t *testing.T, attributes map[string]string) {
	t.Helper()
	cost.Assert(t, sizeOf(attributes), func() {
		_, err := Parse(attributes)
		if err != nil && len(err.Error()) > 2*limits.ErrorBytes.Max() {
			t.Errorf("an error of %d bytes", len(err.Error()))
		}
	})
}

func sizeOf(attributes map[string]string) int {
	size := 0
	for key, value := range attributes {
		size += len(key) + len(value)
	}
	return size
}

// The parser of Kubernetes takes ten seconds for the first of these.
func TestParseQuantityCostsInProportion(t *testing.T) {
	for _, value := range []string{"1e-10000000", "1E9999999999", strings.Repeat("9", 64), strings.Repeat("9", 200_000)} {
		cost.Assert(t, len(value), func() { _, _ = ParseQuantity(value) })
	}
	for _, value := range []string{"1e99", "1.5Mi", "-1Ei", strings.Repeat("9", 64)} {
		if _, err := ParseQuantity(value); err != nil {
			t.Error(err)
		}
	}
	for _, value := range []string{"1e100", "1e-100", strings.Repeat("9", 65)} {
		if _, err := ParseQuantity(value); err == nil {
			t.Errorf("%s passes", value)
		}
	}
}
