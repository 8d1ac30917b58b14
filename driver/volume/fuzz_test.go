package volume

import (
	"reflect"
	"strings"
	"testing"

	"github.com/vaultmount/vaultmount/provider/cost"
)

// FuzzAttributes looks for a panic, and for attributes that cost more than their length.
func FuzzAttributes(f *testing.F) {
	f.Add("app", "auth/kubernetes", "vault", "map", "100", "1000", "1Mi", "db", "kv/db", "a/b", "{{ 1 }}", "0640", "true", "[[", "token")
	f.Add("app", "ns/auth/x", "", "JSON", "0", "", "4096", "x", "kv/x?version=1", "x/y", "[[", "7777", "0", "{{", "x/z")
	f.Fuzz(func(t *testing.T, role, authPath, audience, format, uid, gid, size, secretFile, secret, templateFile, template, perms, missing, delim, tokenFile string) {
		attributes := map[string]string{}
		set := func(key, value string) {
			if value != "" {
				attributes[key] = value
			}
		}
		attributes["audience"] = audience
		set("role", role)
		set("auth-path", authPath)
		set("default-template", format)
		set("uid", uid)
		set("gid", gid)
		set("size", size)
		set("secret/"+secretFile, secret)
		set("template/"+templateFile, template)
		set("perms/"+templateFile, perms)
		set("error-on-missing-key/"+secretFile, missing)
		set("left-delim/"+templateFile, delim)
		set("token-file", tokenFile)
		cost.Assert(t, sizeOf(attributes), func() { _, _ = Parse(attributes) })
	})
}

// FuzzParse looks for a key or value that Parse cannot take without a panic,
// and for one that it drops: a known spec plus one more attribute is either
// rejected or different. No key and no value costs more than its length.
func FuzzParse(f *testing.F) {
	f.Add("perms/db", "0600")
	f.Add("templat/x", "")
	f.Add("template/db/x", "y")
	f.Add("perms/"+strings.Repeat("-x", 2<<10), "0600")
	f.Add("size", "1e999999999")
	f.Add("lease-renewal-threshold", "1e-300")
	f.Add("static-secret-render-interval", "1ns")
	f.Add("client-timeout", "60")
	f.Fuzz(func(t *testing.T, key, value string) {
		base := map[string]string{"role": "app", "template/db": "{{ 1 }}"}
		if _, taken := base[key]; taken {
			return
		}
		before, err := Parse(base)
		if err != nil {
			t.Fatal(err)
		}
		base[key] = value
		var after Spec
		cost.Assert(t, sizeOf(base), func() { after, err = Parse(base) })
		if err != nil || !reflect.DeepEqual(before, after) {
			return
		}
		// The only attributes that may change nothing are those that spell out a
		// default.
		base[key] = "\x00"
		if _, err := Parse(base); err == nil {
			t.Fatalf("attribute %q is accepted and has no effect", key)
		}
	})
}
