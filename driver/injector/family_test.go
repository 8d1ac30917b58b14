package injector

import "testing"

func TestFamily(t *testing.T) {
	for key, want := range map[string]string{
		DefaultPrefix + "role":                          "role",
		DefaultPrefix + "agent-inject-secret-db.txt":    "agent-inject-secret-X",
		DefaultPrefix + "agent-inject-template-file-db": "agent-inject-template-file-X",
		DefaultPrefix + "agent-template-right-delim-db": "agent-template-right-delim-X",
		DefaultPrefix + "client-timeout":                "client-timeout",
		DefaultPrefix + "agent-inject-secret-":          "unknown",
		DefaultPrefix + "agent-inject-secrets":          "unknown",
		"example.com/role":                              "unknown",
	} {
		if got := (Translator{}).Family(key); got != want {
			t.Errorf("%s is of family %q, want %q", key, got, want)
		}
	}
}
