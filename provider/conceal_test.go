package provider

import (
	"errors"
	"fmt"
	"testing"

	"github.com/hashicorp/vault/api"

	"github.com/vaultmount/vaultmount/provider/render"
)

func TestConceal(t *testing.T) {
	t.Parallel()
	answers := render.Answers{
		{Verb: render.Read, Path: "kv/app"}: {Secret: &api.Secret{Data: map[string]any{
			"data": map[string]any{"password": "/hunter2/", "short": "kv", "part": "hunter", "list": []any{"other-value"}, "absent": nil},
		}}},
		{Verb: render.List, Path: "kv"}: {Names: []string{"names"}},
	}
	tests := map[string]struct {
		query      render.Query
		text, want string
	}{
		"a path that is one":           {render.Query{Path: "hunter2"}, "read hunter2 in Vault: refused", "read [value of a secret] in Vault: refused"},
		"a path that holds one":        {render.Query{Path: "kv/hunter2/x"}, "read kv/data/hunter2/x in Vault", "read kv/data/[value of a secret]/x in Vault"},
		"an argument that is repeated": {render.NewWrite("kv/x", map[string]string{"a": "other-value"}), "write kv/x: bad value other-value", "write kv/x: bad value [value of a secret]"},
		"a path of the author's":       {render.Query{Path: "kv/app"}, "read kv/app in Vault", "read kv/app in Vault"},
		"a path out of a list":         {render.Query{Path: "kv/names"}, "read kv/names in Vault", "read kv/names in Vault"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got := conceal(fmt.Errorf("%w: %s", ErrRefused, test.text), test.query, answers)
			if got.Error() != ErrRefused.Error()+": "+test.want || !errors.Is(got, ErrRefused) {
				t.Errorf("got %v", got)
			}
		})
	}
}
