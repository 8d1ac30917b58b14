package volume

import (
	"maps"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestParse(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		attributes map[string]string
		want       Spec
	}{
		"defaults": {
			attributes: map[string]string{"role": "app", "secret/db": "internal/database"},
			want: Spec{
				Auth: Auth{Type: Kubernetes, Path: "auth/kubernetes", Role: "app"}, Server: Server{MaxRetries: -1},
				DefaultTemplate: Map, Owner: Owner{UID: -1, GID: -1}, Lifecycle: Lifecycle{Refresh: true},
				Files: []File{{Path: "db", Secret: "internal/database", Perms: 0o644}},
			},
		},
		"everything": {
			attributes: map[string]string{
				"role": "app", "auth-type": "jwt", "auth-path": "/auth/cluster-1/", "audience": "",
				"auth-min-backoff": "1s", "auth-max-backoff": "1m",
				"address": "https://Vault:8200/", "proxy-address": "http://proxy:3128", "namespace": "/team/app/", "tls-server-name": "vault.internal",
				"ca-cert": "ca.crt", "client-cert": "tls.crt", "client-key": "tls.key", "client-timeout": "60", "client-max-retries": "0",
				"default-template": "JSON",
				"uid":              "100", "gid": "0", "size": "1.5Mi", "mount-path": "/etc/app/",
				"refresh": "F", "static-secret-render-interval": "86400", "lease-renewal-threshold": ".75", "revoke-on-unpublish": "0",
				"token-file": "vault/token", "perms/vault/token": "0600",
				"template-key/vault/conf":           "conf.tmpl",
				"left-delim/vault/conf":             "<<",
				"template/conf/app.txt":             "[[ 1 ]]",
				"left-delim/conf/app.txt":           "[[",
				"right-delim/conf/app.txt":          "]]",
				"perms/conf/app.txt":                "640",
				"error-on-missing-key/conf/app.txt": "T",
				"secret/a":                          "kv/a?version=2",
			},
			want: Spec{
				Auth: Auth{Type: JWT, Path: "auth/cluster-1", Role: "app", Audience: Audience{Chosen: true}, MinBackoff: time.Second, MaxBackoff: time.Minute},
				Server: Server{
					Address: "https://vault:8200", Proxy: "http://proxy:3128", Namespace: "team/app", ServerName: "vault.internal",
					CACert: "ca.crt", ClientCert: "tls.crt", ClientKey: "tls.key", Timeout: time.Minute, MaxRetries: 0,
				},
				DefaultTemplate: JSON,
				Owner:           Owner{UID: 100, GID: 0}, Size: 3 << 19, MountPath: "/etc/app",
				Lifecycle: Lifecycle{StaticInterval: 24 * time.Hour, RenewalThreshold: 0.75, Revoke: Keep},
				Files: []File{
					{Path: "a", Secret: "kv/a?version=2", Perms: 0o644},
					{Path: "conf/app.txt", Template: "[[ 1 ]]", Perms: 0o640, ErrorOnMissingKey: true, LeftDelim: "[[", RightDelim: "]]"},
					{Path: "vault/conf", TemplateKey: "conf.tmpl", Perms: 0o644, LeftDelim: "<<"},
					{Path: "vault/token", Token: true, Perms: 0o600},
				},
			},
		},
		"nothing but the token": {
			attributes: map[string]string{"role": "app", "token-file": "token", "revoke-on-unpublish": "true", "refresh": "true"},
			want: Spec{
				Auth: Auth{Type: Kubernetes, Path: "auth/kubernetes", Role: "app"}, Server: Server{MaxRetries: -1},
				DefaultTemplate: Map, Owner: Owner{UID: -1, GID: -1}, Lifecycle: Lifecycle{Refresh: true, Revoke: Revoke},
				Files: []File{{Path: "token", Token: true, Perms: 0o644}},
			},
		},
		"set-id and sticky bits": {
			attributes: map[string]string{"role": "app", "secret/a": "kv/a", "perms/a": "07640"},
			want: Spec{
				Auth: Auth{Type: Kubernetes, Path: "auth/kubernetes", Role: "app"}, Server: Server{MaxRetries: -1},
				DefaultTemplate: Map, Owner: Owner{UID: -1, GID: -1}, Lifecycle: Lifecycle{Refresh: true},
				Files: []File{{Path: "a", Secret: "kv/a", Perms: 0o640}},
			},
		},
		"auth mount in a namespace": {
			attributes: map[string]string{"role": "app", "auth-path": "team/auth/k8s", "secret/a": "kv/a"},
			want: Spec{
				Auth: Auth{Type: Kubernetes, Path: "team/auth/k8s", Role: "app"}, Server: Server{MaxRetries: -1},
				DefaultTemplate: Map, Owner: Owner{UID: -1, GID: -1}, Lifecycle: Lifecycle{Refresh: true},
				Files: []File{{Path: "a", Secret: "kv/a", Perms: 0o644}},
			},
		},
		"an AppRole": {
			attributes: map[string]string{"auth-type": "approle", "role-id": "role", "secret-id": "secret", "secret/a": "kv/a", "namespace": ""},
			want: Spec{
				Auth: Auth{Type: AppRole, Path: "auth/approle", RoleID: "role", SecretID: "secret"}, Server: Server{MaxRetries: -1},
				DefaultTemplate: Map, Owner: Owner{UID: -1, GID: -1}, Lifecycle: Lifecycle{Refresh: true},
				Files: []File{{Path: "a", Secret: "kv/a", Perms: 0o644}},
			},
		},
		"the default role of a jwt mount": {
			attributes: map[string]string{"auth-type": "jwt", "secret/a": "kv/a", "tls-skip-verify": "true"},
			want: Spec{
				Auth: Auth{Type: JWT, Path: "auth/jwt"}, Server: Server{MaxRetries: -1, SkipVerify: true},
				DefaultTemplate: Map, Owner: Owner{UID: -1, GID: -1}, Lifecycle: Lifecycle{Refresh: true},
				Files: []File{{Path: "a", Secret: "kv/a", Perms: 0o644}},
			},
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got, err := Parse(test.attributes)
			if err != nil {
				t.Fatal(err)
			}
			if !reflect.DeepEqual(got, test.want) {
				t.Errorf("got  %+v\nwant %+v", got, test.want)
			}
		})
	}
}

func TestParseRefuses(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("x", 200)
	tests := []struct{ key, value, want string }{
		{"typo", "x", `volume attribute "typo": is unknown`},
		{"", "x", `volume attribute "": is unknown`},
		{"/", "x", `volume attribute "/": is unknown`},
		{"rol", "app", `volume attribute "rol": is unknown; did you mean "role"?`},
		{"templat/a", "x", `volume attribute "templat/a": is unknown; did you mean "template/a"?`},
		{"template", "x", `volume attribute "template": lacks its file; write template/<file>`},
		{"role/a", "x", `volume attribute "role/a": is unknown; "role" belongs to the whole volume and has no file`},
		{"role", "", `volume attribute "role": "" is not a name; write it without spaces around it and without control characters`},
		{"role", " app", `volume attribute "role": " app" is not a name; write it without spaces around it and without control characters`},
		{"auth-path", "", `volume attribute "auth-path": "" is not the path of an auth method; write it as "vault auth list" shows it, for example "auth/kubernetes"`},
		{"auth-path", "kubernetes", `volume attribute "auth-path": "kubernetes" does not begin with auth/; write "auth/kubernetes"`},
		{"auth-path", "auth/", `volume attribute "auth-path": "auth/" is not the path of an auth method; write it as "vault auth list" shows it, for example "auth/kubernetes"`},
		{"auth-path", "auth/../sys", `volume attribute "auth-path": "auth/../sys" is not the path of an auth method; write it as "vault auth list" shows it, for example "auth/kubernetes"`},
		{"auth-path", "auth/k8s?x", `volume attribute "auth-path": "auth/k8s?x" is not the path of an auth method; write it as "vault auth list" shows it, for example "auth/kubernetes"`},
		{"auth-type", "aws", `volume attribute "auth-type": "aws" is not an auth method; write "kubernetes", "jwt" or "approle"`},
		{"auth-type", "approle", `volume attribute "role": does not belong to auth-type "approle", whose role is in the role id; leave it out`},
		{"role-id", "key", `volume attribute "role-id": belongs to auth-type "approle", and the auth-type is "kubernetes"`},
		{"auth-min-backoff", "5", `volume attribute "auth-min-backoff": "5" is not a duration; write for example "5s"`},
		{"address", "vault:8200", `volume attribute "address": "vault:8200" is not a URL of scheme, host and port; write for example "https://vault.example.com:8200"`},
		{"address", "https://x/v1", `volume attribute "address": has more than scheme, host and port; write for example "https://vault.example.com:8200"`},
		{"proxy-address", "https://user:word@x", `volume attribute "proxy-address": has more than scheme, host and port; write for example "https://vault.example.com:8200"`},
		{"namespace", "a/../b", `volume attribute "namespace": "a/../b" is not a Vault namespace; write it as a path, for example "team/app"`},
		{"tls-server-name", "", `volume attribute "tls-server-name": "" is not a host name or an IP address; write a name of Vault's certificate, for example "vault.example.com"`},
		{"tls-server-name", "a b", `volume attribute "tls-server-name": "a b" is not a host name or an IP address; write a name of Vault's certificate, for example "vault.example.com"`},
		{"tls-server-name", "https://vault", `volume attribute "tls-server-name": "https://vault" is not a host name or an IP address; write a name of Vault's certificate, for example "vault.example.com"`},
		{"tls-server-name", "vault:8200", `volume attribute "tls-server-name": "vault:8200" is not a host name or an IP address; write a name of Vault's certificate, for example "vault.example.com"`},
		{"tls-server-name", "*.example.com", `volume attribute "tls-server-name": "*.example.com" is not a host name or an IP address; write a name of Vault's certificate, for example "vault.example.com"`},
		{"tls-server-name", "vault..example", `volume attribute "tls-server-name": "vault..example" is not a host name or an IP address; write a name of Vault's certificate, for example "vault.example.com"`},
		{"tls-server-name", long, `volume attribute "tls-server-name": "` + long[:45] + `..." is not a host name or an IP address; write a name of Vault's certificate, for example "vault.example.com"`},
		{"tls-skip-verify", "yes", `volume attribute "tls-skip-verify": "yes" is not a boolean; write "true" or "false"`},
		{"ca-cert", "/vault/tls/ca.crt", `volume attribute "ca-cert": "/vault/tls/ca.crt" is not the name of a key in the volume's Secret; write for example "ca.crt"`},
		{"client-cert", "tls.crt", `volume attribute "client-key": is missing; a client-cert needs its key`},
		{"client-key", "tls.key", `volume attribute "client-cert": is missing; a client-key needs its certificate`},
		{"client-timeout", "soon", `volume attribute "client-timeout": "soon" is not a duration; write for example "5s"`},
		{"client-max-retries", "-1", `volume attribute "client-max-retries": "-1" is not a number of retries from 0 to 100`},
		{"default-template", "yaml", `volume attribute "default-template": "yaml" is not a built-in template; write "map" or "json"`},
		{"uid", "root", `volume attribute "uid": "root" is not a numeric id from 0 to 4294967294`},
		{"uid", "4294967295", `volume attribute "uid": "4294967295" is not a numeric id from 0 to 4294967294`},
		{"gid", "-1", `volume attribute "gid": "-1" is not a numeric id from 0 to 4294967294`},
		{"size", "big", `volume attribute "size": "big" is not a quantity of bytes; write for example "1Mi"`},
		{"size", "0", `volume attribute "size": "0" is less than one page, 4Ki; write for example "1Mi"`},
		{"size", "1e30", `volume attribute "size": "1e30" is more than any volume has; write for example "1Mi"`},
		{"size", "-1Mi", `volume attribute "size": "-1Mi" is less than one page, 4Ki; write for example "1Mi"`},
		{"refresh", "never", `volume attribute "refresh": "never" is not a boolean; write "true" or "false"`},
		{"revoke-on-unpublish", "", `volume attribute "revoke-on-unpublish": "" is not a boolean; write "true" or "false"`},
		{"static-secret-render-interval", "0", `volume attribute "static-secret-render-interval": "0" is not a duration; write for example "5s"`},
		{"static-secret-render-interval", "-5m", `volume attribute "static-secret-render-interval": "-5m" is not a duration; write for example "5s"`},
		{"lease-renewal-threshold", "1.1", `volume attribute "lease-renewal-threshold": "1.1" is not a fraction above 0 and up to 1; write for example "0.9"`},
		{"lease-renewal-threshold", "0", `volume attribute "lease-renewal-threshold": "0" is not a fraction above 0 and up to 1; write for example "0.9"`},
		{"lease-renewal-threshold", "NaN", `volume attribute "lease-renewal-threshold": "NaN" is not a fraction above 0 and up to 1; write for example "0.9"`},
		{"token-file", "", `volume attribute "token-file": the file name is missing`},
		{"token-file", "/token", `volume attribute "token-file": the file name must be relative to the volume; write "token"`},
		{"token-file", "../token", `volume attribute "token-file": no part of a file name may start with ".."`},
		{"token-file", "db", `volume attribute "token-file": the file has template/db as well; keep one of the two`},
		{"token-file", "kv", `volume attribute "token-file": the file has secret/kv as well; keep one of the two`},
		{"token-file", "kv/token", `volume attribute "token-file": needs "kv" to be a directory, but "secret/kv" makes it a file; rename one of them`},
		{"token-file/a", "x", `volume attribute "token-file/a": is unknown; "token-file" belongs to the whole volume and has no file`},
		{"template-key/db", "db.tmpl", `volume attribute "template/db": the file has template-key/db as well; keep one of the two`},
		{"template-key/a", "/vault/custom/a", `volume attribute "template-key/a": "/vault/custom/a" is not the name of a key in the volume's Secret; write for example "ca.crt"`},
		{"secret/db", "kv/db", `volume attribute "template/db": the file has secret/db as well; keep one of the two`},
		{"secret/a", "", `volume attribute "secret/a": is empty; leave the attribute out if the file is not wanted`},
		{"secret/a", "/", `volume attribute "secret/a": "/" is not a path in Vault; a path has no quote, backslash or control character. To pass arguments to Vault, write template/<file>`},
		{"secret/a", `kv/a" "x=1`, `volume attribute "secret/a": "kv/a\" \"x=1" is not a path in Vault; a path has no quote, backslash or control character. To pass arguments to Vault, write template/<file>`},
		{"template/", "x", `volume attribute "template/": the file name is missing`},
		{"template//etc/passwd", "x", `volume attribute "template//etc/passwd": the file name must be relative to the volume; write "etc/passwd"`},
		{"template/../x", "x", `volume attribute "template/../x": no part of a file name may start with ".."`},
		{"template/a/..data", "x", `volume attribute "template/a/..data": no part of a file name may start with ".."`},
		{"template/a//b", "x", `volume attribute "template/a//b": the file name has an empty or "." part; write the path without it`},
		{"template/.", "x", `volume attribute "template/.": the file name has an empty or "." part; write the path without it`},
		{"template/a/", "x", `volume attribute "template/a/": the file name has an empty or "." part; write the path without it`},
		{"template/" + strings.Repeat("n", 256), "x", `volume attribute "template/` + strings.Repeat("n", 84) + `...": a part of the path of the file: 256 bytes exceed the limit of 255 (file-name-bytes)`},
		{"perms/" + long, "0600", `volume attribute "perms/` + long[:87] + `...": no secret/` + long[:45] + `... or template/` + long[:45] + `... makes this file`},
		{"templat/" + long, "x", `volume attribute "templat/` + long[:85] + `...": is unknown; did you mean "template/` + long[:36] + `..."?`},
		{long, "x", `volume attribute "` + long[:93] + `...": is unknown`},
		{"template/a\nb", "x", `volume attribute "template/a\nb": the file name has a control character`},
		{"template/db/x", "x", `volume attribute "template/db/x": needs "db" to be a directory, but "template/db" makes it a file; rename one of them`},
		{"mount-path", "secrets", `volume attribute "mount-path": "secrets" is not a directory in containers; write the mountPath of the volume, for example "/vault/secrets"`},
		{"mount-path", "//", `volume attribute "mount-path": "//" is not a directory in containers; write the mountPath of the volume, for example "/vault/secrets"`},
		{"perms/db", "rw", `volume attribute "perms/db": "rw" is not an octal file mode; write for example "0640"`},
		{"perms/db", "17777", `volume attribute "perms/db": "17777" is not an octal file mode; write for example "0640"`},
		{"perms/bd", "0600", `volume attribute "perms/bd": no secret/bd or template/bd makes this file; did you mean "db"?`},
		{"error-on-missing-key/db", "yes", `volume attribute "error-on-missing-key/db": "yes" is not a boolean; write "true" or "false"`},
		{"left-delim/db", "", `volume attribute "left-delim/db": "" is not a delimiter; write characters without white space, or leave it out for {{ or }}`},
		{"right-delim/kv", "}", `volume attribute "right-delim/kv": the file has a secret/ attribute, whose built-in template has its own delimiters; leave this out or write template/`},
		{"uid", long, `volume attribute "uid": "` + long[:45] + `..." is not a numeric id from 0 to 4294967294`},
	}
	for _, test := range tests {
		t.Run(test.key+"="+test.value[:min(len(test.value), 20)], func(t *testing.T) {
			t.Parallel()
			attributes := map[string]string{"role": "app", "template/db": "x", "secret/kv": "kv/a"}
			maps.Copy(attributes, map[string]string{test.key: test.value})
			_, err := Parse(attributes)
			if err == nil || err.Error() != test.want {
				t.Errorf("got  %v\nwant %s", err, test.want)
			}
		})
	}
}

func TestParseRefusesIncompleteVolumes(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		attributes map[string]string
		want       string
	}{
		"nothing":                      {nil, `volume attribute "role": is missing; name the Vault role to log in with`},
		"no role":                      {map[string]string{"secret/a": "kv/a"}, `volume attribute "role": is missing; name the Vault role to log in with`},
		"no file":                      {map[string]string{"role": "app"}, `volume attribute "secret/<file>": is missing, and so is template/<file>; a volume needs at least one file`},
		"delimiter of the token file":  {map[string]string{"role": "app", "token-file": "token", "left-delim/token": "[["}, `volume attribute "left-delim/token": belongs to a template, and token-file makes this file; leave it out`},
		"token file needs a directory": {map[string]string{"role": "app", "token-file": "a", "secret/a/b": "kv/a"}, `volume attribute "secret/a/b": needs "a" to be a directory, but "token-file" makes it a file; rename one of them`},
		"only option":                  {map[string]string{"role": "app", "perms/a": "0600"}, `volume attribute "perms/a": no secret/a or template/a makes this file`},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if _, err := Parse(test.attributes); err == nil || err.Error() != test.want {
				t.Errorf("got  %v\nwant %s", err, test.want)
			}
		})
	}
}

// The bytes between the quotes are the interface: programs parse what these
// templates of the Vault Agent Injector have always written.
func TestBuiltInTemplates(t *testing.T) {
	t.Parallel()
	file := File{Path: "a", Secret: "kv/data/a"}
	tests := map[Format]string{
		Map:  "{{ with secret \"kv/data/a\" }}{{ range $k, $v := .Data }}{{ $k }}: {{ $v }}\n{{ end }}{{ end }}",
		JSON: "{{ with secret \"kv/data/a\" }}{{ .Data | toJSON }}\n{{ end }}",
	}
	for format, want := range tests {
		if got := (Spec{DefaultTemplate: format}).Text(file); got != want {
			t.Errorf("%s: got %q, want %q", format, got, want)
		}
	}
}

func TestParseAllLeavesOutWhatIsWrong(t *testing.T) {
	t.Parallel()
	spec, problems := ParseAll(map[string]string{
		"role": " app", "auth-path": "nowhere", "client-timeout": "soon", "namespace": strings.Repeat("x", 300),
		"secret/good": "kv/good", "perms/good": "0640",
		"secret/mode": "kv/mode", "perms/mode": "9",
		"secret/long": strings.Repeat("x", 3<<10), "template/long": "x",
		"secret/directory": "kv/x", "secret/directory/below": "kv/x",
		"perms/none": "0640",
	})
	var keys, files []string
	for _, problem := range problems {
		keys = append(keys, problem.Key)
	}
	for _, file := range spec.Files {
		files = append(files, file.Path)
	}
	slices.Sort(keys)
	if want := []string{"auth-path", "client-timeout", "namespace", "perms/mode", "perms/none", "role", "secret/directory/below", "secret/long"}; !slices.Equal(keys, want) {
		t.Errorf("errors are about %q, want %q", keys, want)
	}
	if want := []string{"directory", "good"}; !slices.Equal(files, want) {
		t.Errorf("files are %q, want %q", files, want)
	}
}
