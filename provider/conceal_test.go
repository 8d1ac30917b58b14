package provider

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/hashicorp/vault/api"

	"github.com/vaultmount/vaultmount/provider/render"
	"github.com/vaultmount/vaultmount/provider/vault"
)

func TestPathsMadeOfSecretsAreHidden(t *testing.T) {
	t.Parallel()
	known := render.Answers{
		{Verb: render.Read, Path: "kv/app"}: {Secret: &api.Secret{Data: map[string]any{
			"data": map[string]any{
				"password": "/hunter2/", "short": "kv", "list": []any{"other-value"}, "absent": nil, "pin": json.Number("471147"),
				"spelt": "Correct Horse", "name": "orders", "self": "app",
			},
		}}},
		{Verb: render.Write, Path: "auth/x/login"}: {Secret: &api.Secret{Auth: &api.SecretAuth{ClientToken: "hvs.of-a-login"}}},
		{Verb: render.Write, Path: "sys/wrap"}:     {Secret: &api.Secret{WrapInfo: &api.SecretWrapInfo{Token: "hvs.of-a-wrap"}}},
		{Verb: render.List, Path: "kv"}:            {Names: []string{"names"}},
	}
	v := newVolume(newBench(t).Provider, Request{Outputs: []Output{{Template: Template{Text: `{{ secret "kv/orders" }}{{ secret "pki/issue/x" "cn=orders.example" }}`}}}})
	tests := map[string]struct {
		query render.Query
		want  bool
	}{
		"a value":                         {render.Query{Path: "hunter2"}, true},
		"a value between":                 {render.Query{Path: "kv/hunter2/x"}, true},
		"a value in a list":               {render.NewWrite("kv/x", map[string]string{"a": "other-value"}), true},
		"a value as the name of another":  {render.NewIssue("kv/x", map[string]string{"hunter2": ""}), true},
		"a number":                        {render.Query{Path: "kv/471147"}, true},
		"a value in another spelling":     {render.Query{Path: "kv/correct/horse"}, true},
		"the token of a login":            {render.Query{Path: "hvs.of-a-login"}, true},
		"the token of a wrapped answer":   {render.Query{Path: "kv/hvs.of-a-wrap"}, true},
		"the author's own":                {render.Query{Path: "kv/app"}, false},
		"the author's, as a value is":     {render.Query{Path: "kv/orders"}, false},
		"an argument of the author's":     {render.NewWrite("pki/issue/x", map[string]string{"cn": "orders.example"}), false},
		"out of a list":                   {render.Query{Path: "kv/names"}, false},
		"a value that is short":           {render.Query{Path: "kv/y"}, false},
		"what a secret says about itself": {render.Query{Verb: render.Read, Path: "kv/app"}, false},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if got := v.newAnswer(test.query, known).hidden; got != test.want {
				t.Errorf("hidden is %t", got)
			}
		})
	}
}

// Nothing of the error itself is in what is shown in its place, or to be got out of
// it, and it is of the same kinds.
func TestConcealedErrorsKeepTheirKind(t *testing.T) {
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
		"another":     {http.ErrHandlerTimeout, "a path made of a secret: no answer; "},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			err := fmt.Errorf("read %q: %w: canary", "canary", test.kind)
			got := (&answer{hidden: true}).conceal(err)
			if !errors.Is(got, test.kind) || !strings.HasPrefix(got.Error(), test.want) || strings.Contains(got.Error(), "canary") || errors.Unwrap(got) != nil {
				t.Errorf("got %v", got)
			}
			if plain := (&answer{}).conceal(err); plain.Error() != err.Error() {
				t.Errorf("of a path that may be seen, it is %v", plain)
			}
		})
	}
	if got := (&answer{hidden: true}).conceal(&tokenError{ErrRefused}); !errors.As(got, new(*tokenError)) {
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
				b := newBench(t)
				b.vault.change(func() {
					b.vault.instead = func(w http.ResponseWriter, r *http.Request) bool {
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
				_, err := b.Open(t.Context(), b.request("v", `{{ with secret "kv/which" }}{{ with secret (printf "%v" .Data.value) }}{{ end }}{{ end }}`))
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
	b := newBench(t)
	which, status := "canary/horse", http.StatusOK
	b.vault.change(func() {
		b.vault.instead = func(w http.ResponseWriter, r *http.Request) bool {
			b.vault.mutex.Lock()
			defer b.vault.mutex.Unlock()
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
	r := b.request("v", `{{ with secret "kv/which" }}{{ with secret .Data.value }}{{ .Data.x }}{{ end }}{{ end }}`)
	b.open(r)
	requireNone := func(when string, failing bool) {
		t.Helper()
		shown := b.Volumes()[0]
		if text := fmt.Sprintf("%+v", shown); strings.Contains(text, "canary") {
			t.Errorf("%s, the status is %s", when, text)
		}
		if (shown.Err != nil) != failing {
			t.Errorf("%s, the volume's error is %v", when, shown.Err)
		}
	}
	requireNone("at first", false)
	b.vault.change(func() { status = http.StatusForbidden })
	b.pass(DefaultInterval, func() {})
	requireNone("denied", true)
	b.vault.change(func() { which = "canary/stable" })
	b.pass(DefaultInterval, func() {})
	requireNone("with another value", true)
	b.end()
	b.begin()
	b.pass(DefaultInterval*2, func() {})
	requireNone("after a restart", true)
}
