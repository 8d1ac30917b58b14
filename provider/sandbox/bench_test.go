package sandbox

import (
	"encoding/json"
	"fmt"
	"slices"
	"testing"

	"github.com/hashicorp/vault/api"

	"github.com/vaultmount/vaultmount/provider/template"
)

const typical = "{{- with secret \"internal/data/database/config\" -}}\npostgresql://{{ .Data.data.username }}:{{ .Data.data.password }}@postgres:5432/wizard\n{{- end -}}\n"

func typicalValues() template.Values {
	return template.Values{{Verb: template.Read, Path: "internal/data/database/config"}: {Secret: &api.Secret{Data: map[string]any{
		"data": map[string]any{"username": "u", "password": "p"}, "metadata": map[string]any{"version": json.Number("1")},
	}}}}
}

// BenchmarkRender is what a publish takes: one round trip to find the dependencies, one
// with their values.
func BenchmarkRender(b *testing.B) {
	for _, count := range []int{1, 5} {
		templates := slices.Repeat([]template.Template{file(typical)}, count)
		publish := func(b *testing.B, pool *Pool) {
			for _, values := range []template.Values{nil, typicalValues()} {
				if _, err := pool.Render(b.Context(), templates, values); err != nil {
					b.Error(err)
				}
			}
		}
		b.Run(fmt.Sprintf("files=%d", count), func(b *testing.B) {
			pool := startPool(b, generous())
			for b.Loop() {
				publish(b, pool)
			}
		})
		b.Run(fmt.Sprintf("files=%d/parallel", count), func(b *testing.B) {
			pool := startPool(b, generous())
			b.SetParallelism(8)
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					publish(b, pool)
				}
			})
		})
	}
}

// BenchmarkStart is from no worker to one that waits for a template.
func BenchmarkStart(b *testing.B) {
	program, err := buildProgram()
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		worker, err := startWorker(b.Context(), program, []string{Command}, firstID)
		if err != nil {
			b.Fatal(err)
		}
		worker.end()
	}
}
