package template

import "testing"

// BenchmarkExecute is one run of the usual template. A publish takes two: one to
// find out what is asked, one with the answers.
func BenchmarkExecute(b *testing.B) {
	t := Template{Name: "file", Text: "{{- with secret \"kv2\" -}}\npostgresql://{{ .Data.data.username }}:{{ .Data.data.password }}@postgres:5432/wizard\n{{- end -}}\n"}
	given := answers()
	for b.Loop() {
		if _, err := Execute(t, given); err != nil {
			b.Fatal(err)
		}
	}
}
