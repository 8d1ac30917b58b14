package provider

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/vaultmount/vaultmount/provider/cost"
	"github.com/vaultmount/vaultmount/provider/limits"
	"github.com/vaultmount/vaultmount/provider/template"
	"github.com/vaultmount/vaultmount/provider/vault"
)

// Who may read an error or the status sees the paths of the templates' authors alone.
func TestPathsThatATemplateComputesAreHidden(t *testing.T) {
	t.Parallel()
	const text = `{{ secret "kv/orders" }}{{ secret "/kv/trimmed/ " }}{{ secret "pki/issue/x" "cn=orders.example" "ttl = 1h " "empty=" }}{{ secret ` + "`kv/raw`" + ` }}`
	first := template.Dependency{Verb: template.Read, Path: "kv/of-default"}
	tests := map[string]struct {
		query       template.Dependency
		knowsSecret bool
		keys        map[string]string
		want        bool
	}{
		"before a secret is known":                 {query: keyOf("kv/default"), want: false},
		"the author's":                             {query: keyOf("kv/orders"), knowsSecret: true, want: false},
		"the author's without its slashes":         {query: keyOf("kv/trimmed"), knowsSecret: true, want: false},
		"the author's between backquotes":          {query: keyOf("kv/raw"), knowsSecret: true, want: false},
		"the author's arguments":                   {query: template.NewWrite("pki/issue/x", map[string]string{"cn": "orders.example", "ttl": "1h", "empty": ""}), knowsSecret: true, want: false},
		"asked without a secret":                   {query: first, knowsSecret: true, want: false},
		"asked with a secret":                      {query: keyOf("kv/default"), knowsSecret: true, want: true},
		"a part of the author's":                   {query: keyOf("kv/ord"), knowsSecret: true, want: true},
		"a short value":                            {query: keyOf("kv/y"), knowsSecret: true, want: true},
		"a single character of the template":       {query: keyOf("k"), knowsSecret: true, want: true},
		"a value of an argument":                   {query: template.NewIssue("pki/issue/x", map[string]string{"cn": "hunter2"}), knowsSecret: true, want: true},
		"a key of an argument":                     {query: template.NewIssue("pki/issue/x", map[string]string{"hunter2": "orders.example"}), knowsSecret: true, want: true},
		"asked first, of keys of a Secret":         {query: first, keys: map[string]string{"a": "b"}, want: true},
		"the author's, beside keys of a Secret":    {query: keyOf("kv/orders"), keys: map[string]string{"a": "b"}, want: false},
		"with a secret, beside keys of a Secret":   {query: keyOf("kv/default"), knowsSecret: true, keys: map[string]string{"a": "b"}, want: true},
		"between two strings, but in none of them": {query: keyOf("}}{{ secret"), knowsSecret: true, want: false},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			o := &origin{
				files: []FileSpec{{Template: Template{Text: text}}}, firstPass: map[template.Dependency]bool{first: true},
				hasValues: test.knowsSecret, hasSecretKeys: len(test.keys) > 0,
			}
			if got := o.isSensitive(test.query); got != test.want {
				t.Errorf("it is %t", got)
			}
		})
	}
}

// Whatever a template makes of a secret, and wherever the secret is from, an error does
// not show it.
func TestNoErrorHoldsWhatATemplateMakesOfASecret(t *testing.T) {
	t.Parallel()
	for name, template := range map[string]string{
		"a key of the volume's Secret": `{{ with secret (printf "kv/%s" (file "/vault/custom/key")) }}{{ end }}`,
		"the same after a secret":      `{{ with secret "kv/static" }}{{ with secret (printf "kv/%s" (file "/vault/custom/key")) }}{{ end }}{{ end }}`,
		"encoded":                      `{{ with secret "kv/static" }}{{ with secret (printf "kv/%s" (base64Encode .Data.value)) }}{{ end }}{{ end }}`,
		"backwards":                    `{{ with secret "kv/static" }}{{ with secret (printf "kv/%s" (sprig_substr 1 3 .Data.value)) }}{{ end }}{{ end }}`,
		"a short value":                `{{ with secret "kv/static" }}{{ with secret (printf "kv/%s" (sprig_trunc 2 .Data.value)) }}{{ end }}{{ end }}`,
		"an argument":                  `{{ with secret "kv/static" }}{{ with secret "nowhere/x" (printf "name=%s" (toUpper .Data.value)) }}{{ end }}{{ end }}`,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHarness(t)
			h.vault.change(func() { h.vault.static = "canary" })
			r := h.request("v", template)
			r.Files[0].Template.Pod = Pod{SecretKeys: map[string]string{"key": "canary"}}
			_, err := h.tryPublish(t.Context(), r)
			if err == nil || !strings.Contains(err.Error(), "a path made of a secret: ") {
				t.Errorf("got %v", err)
			}
		})
	}
}

// Each query costs the same, however much is known: 1,000 queries took more than a
// minute of CPU time when 8 MiB of secrets were searched for each.
func TestRedactionIsLinear(t *testing.T) {
	t.Parallel()
	const queries = 1000
	o := &origin{files: []FileSpec{{Template: Template{Text: strings.Repeat(`{{ "a" }}`, limits.VolumeTemplateBytes.Max()/9)}}}, hasValues: true}
	took := cost.Measure(func() {
		for i := range queries {
			if !o.isSensitive(keyOf(fmt.Sprint("kv/computed/", i))) {
				t.Error("a path that was computed is shown")
			}
		}
	}).CPU
	t.Logf("%d queries took %s", queries, took)
	if took > time.Second {
		t.Errorf("%d queries took %s of CPU time", queries, took)
	}
}

// Nothing of the error itself is in what is shown in its place, or to be got out of
// it, and it is of the same kinds.
func TestRedactedErrorsKeepTheirKind(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		kind error
		want string
	}{
		"no path":     {ErrInvalid, "a path made of a secret: invalid request; "},
		"denied":      {vault.ErrDenied, "a path made of a secret: refused by Vault: permission denied; "},
		"token gone":  {vault.ErrTokenGone, "a path made of a secret: refused by Vault: permission denied; "},
		"refused":     {ErrRefused, "a path made of a secret: refused by Vault; "},
		"not there":   {ErrNotFound, "a path made of a secret: no such secret; "},
		"unavailable": {ErrUnavailable, "a path made of a secret: unavailable for now; "},
		"another":     {http.ErrHandlerTimeout, "a path made of a secret: the request failed; "},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			err := fmt.Errorf("read %q: %w: canary", "canary", test.kind)
			got := (&dependency{IsSensitive: true}).redact(err)
			if !errors.Is(got, test.kind) || !strings.HasPrefix(got.Error(), test.want) || strings.Contains(got.Error(), "canary") || errors.Unwrap(got) != nil {
				t.Errorf("got %v", got)
			}
			if plain := (&dependency{}).redact(err); plain.Error() != err.Error() {
				t.Errorf("of a path that may be seen, it is %v", plain)
			}
		})
	}
	if got := (&dependency{IsSensitive: true}).redact(&tokenError{ErrRefused}); !errors.As(got, new(*tokenError)) {
		t.Errorf("why there is no token is concealed: %v", got)
	}
}

// What url.Parse, %q and net/http make of a value is not the value any more.
func TestNoErrorHoldsASecret(t *testing.T) {
	t.Parallel()
	for _, value := range []any{
		"canaryhorse#battery", "canaryhorse?battery", `canary"horse%zzbattery`, "canary horse battery", "canaryhorse%41battery",
		"canary//horse", "canary horse^battery", "canaryhorse", 4711471147,
	} {
		for name, away := range map[string]bool{"answered": false, "connection lost": true} {
			t.Run(fmt.Sprint(value, " ", name), func(t *testing.T) {
				t.Parallel()
				h := newHarness(t)
				h.vault.change(func() {
					h.vault.override = func(w http.ResponseWriter, r *http.Request) bool {
						switch {
						case strings.HasSuffix(r.URL.Path, "kv/which"):
							respond(w, map[string]any{"data": map[string]any{"value": value}})
							return true
						case away && !strings.Contains(r.URL.Path, "login"):
							panic(http.ErrAbortHandler)
						}
						return false
					}
				})
				_, err := h.tryPublish(t.Context(), h.request("v", `{{ with secret "kv/which" }}{{ with secret (printf "%v" .Data.value) }}{{ end }}{{ end }}`))
				if err == nil || !strings.Contains(err.Error(), "a path made of a secret: ") {
					t.Fatalf("got %v", err)
				}
				for _, part := range []string{"canary", "horse", "4711"} {
					if strings.Contains(err.Error(), part) {
						t.Errorf("the error holds a secret: %v", err)
					}
				}
			})
		}
	}
}

// An operator sees neither the path nor, once it cannot be read any more, the error;
// also when the secret that it came from has another value by then, and after a
// restart.
func TestNoStatusHoldsASecret(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	which, status := "canary/horse", http.StatusOK
	h.vault.change(func() {
		h.vault.override = func(w http.ResponseWriter, r *http.Request) bool {
			h.vault.mutex.Lock()
			defer h.vault.mutex.Unlock()
			switch {
			case strings.HasSuffix(r.URL.Path, "/kv/which"):
				respond(w, map[string]any{"data": map[string]any{"value": which}})
			case strings.HasPrefix(r.URL.Path, "/v1/canary/") && status == http.StatusOK:
				respond(w, map[string]any{"data": map[string]any{"x": "y"}})
			case strings.HasPrefix(r.URL.Path, "/v1/canary/"):
				respondErrors(w, status, "no canary")
			default:
				return false
			}
			return true
		}
	})
	r := h.request("v", `{{ with secret "kv/which" }}{{ with secret .Data.value }}{{ .Data.x }}{{ end }}{{ end }}`)
	h.publish(r)
	requireNone := func(when string, failing bool) {
		t.Helper()
		shown := h.statuses()[0]
		if text := fmt.Sprintf("%+v", shown); strings.Contains(text, "canary") {
			t.Errorf("%s, the status is %s", when, text)
		}
		if (shown.Err != nil) != failing {
			t.Errorf("%s, the volume's error is %v", when, shown.Err)
		}
	}
	requireNone("at first", false)
	h.vault.change(func() { status = http.StatusForbidden })
	h.advance(DefaultInterval, func() {})
	requireNone("denied", true)
	h.vault.change(func() { which = "canary/stable" })
	h.advance(DefaultInterval, func() {})
	requireNone("with another value", true)
	h.end()
	h.begin()
	h.advance(DefaultInterval*2, func() {})
	requireNone("after a restart", true)
}
