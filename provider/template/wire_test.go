package template

import (
	"testing"

	"github.com/vaultmount/vaultmount/provider/cost"
)

// FuzzQueryText looks for a query that comes back as another.
func FuzzQueryText(f *testing.F) {
	f.Add("read", "kv/a.b", "key", "value")
	f.Add("", "", "", "\xff\x02.")
	f.Fuzz(func(t *testing.T, verb, path, key, value string) {
		want := NewWrite(path, map[string]string{key: value})
		want.Verb = Verb(verb)
		var text []byte
		var err error
		cost.Assert(t, len(verb)+len(path)+len(key)+len(value), func() { text, err = want.MarshalText() })
		if err != nil {
			t.Fatal(err)
		}
		var got Query
		if err := got.UnmarshalText(text); err != nil || got != want {
			t.Errorf("%q became %q, %v", want, got, err)
		}
	})
}

func TestQueryTextIsChecked(t *testing.T) {
	t.Parallel()
	for _, text := range []string{"", "a", "a.b", "a.b.c.d", "!..", "..!"} {
		if err := new(Query).UnmarshalText([]byte(text)); err == nil {
			t.Errorf("%q is taken", text)
		}
	}
}
