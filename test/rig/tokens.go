package rig

import (
	"encoding/json"
	"testing"
)

// Accessors names the tokens that Vault knows, except the test's own.
func (v *Vault) Accessors(t testing.TB) []string {
	t.Helper()
	own, err := v.Root.Auth().Token().LookupSelfWithContext(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	secret, err := v.Root.Logical().ListWithContext(t.Context(), "auth/token/accessors")
	if err != nil {
		t.Fatal(err)
	}
	var others []string
	for _, accessor := range secret.Data["keys"].([]any) {
		if accessor != own.Data["accessor"] {
			others = append(others, accessor.(string))
		}
	}
	return others
}

// PodTokens counts the Vault tokens of pods that are good for anything.
func (v *Vault) PodTokens(t testing.TB) int {
	t.Helper()
	good := 0
	for _, accessor := range v.Accessors(t) {
		if v.IsGood(t, accessor) {
			good++
		}
	}
	return good
}

// IsGood is false for a token that Vault lists and does not take: Vault marks what it
// is about to revoke by a number of uses below zero, and keeps the entry for a short
// time, or, if it is killed meanwhile, until the entries are tidied.
func (v *Vault) IsGood(t testing.TB, accessor string) bool {
	t.Helper()
	about, err := v.Root.Auth().Token().LookupAccessorWithContext(t.Context(), accessor)
	if err != nil {
		return false // it went meanwhile, or was not finished
	}
	uses, err := about.Data["num_uses"].(json.Number).Int64()
	if err != nil {
		t.Fatal(err)
	}
	return uses >= 0
}

// InFlight is how many requests Vault is at work on, besides this question.
func (v *Vault) InFlight(t testing.TB) int {
	t.Helper()
	response, err := v.Root.Logical().ReadRawWithContext(t.Context(), "sys/in-flight-req")
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	var requests map[string]json.RawMessage
	if err := response.DecodeJSON(&requests); err != nil {
		t.Fatal(err)
	}
	return len(requests) - 1
}
