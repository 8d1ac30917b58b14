package sandbox

import (
	"encoding/json"
	"testing"

	"github.com/hashicorp/vault/api"

	"github.com/vaultmount/vaultmount/provider/template"
)

const typical = "{{- with secret \"internal/data/database/config\" -}}\npostgresql://{{ .Data.data.username }}:{{ .Data.data.password }}@postgres:5432/wizard\n{{- end -}}\n"

func typicalAnswers() template.Values {
	return template.Values{{Verb: template.Read, Path: "internal/data/database/config"}: {Secret: &api.Secret{Data: map[string]any{
		"data": map[string]any{"username": "u", "password": "p"}, "metadata": map[string]any{"version": json.Number("1")},
	}}}}
}

// BenchmarkRender shows what the confinement costs.
func BenchmarkRender(b *testing.B) {
	b.Run("in process", func(b *testing.B) {
		for b.Loop() {
			if _, err := template.Execute(file(typical), typicalAnswers()); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("worker", func(b *testing.B) {
		pool := startPool(b, generous())
		for b.Loop() {
			if _, err := render(pool, b.Context(), file(typical), typicalAnswers()); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("workers in parallel", func(b *testing.B) {
		pool := startPool(b, generous())
		b.SetParallelism(8)
		b.RunParallel(func(pb *testing.PB) {
			for pb.Next() {
				if _, err := render(pool, b.Context(), file(typical), typicalAnswers()); err != nil {
					b.Error(err)
				}
			}
		})
	})
}

// BenchmarkStart is from no worker to one that waits for a template.
func BenchmarkStart(b *testing.B) {
	program, err := buildProgram()
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		worker, err := startProcess(b.Context(), program, []string{Command}, firstID)
		if err != nil {
			b.Fatal(err)
		}
		worker.end()
	}
}
