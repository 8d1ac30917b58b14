package template

import (
	"errors"
	"fmt"
	"runtime"
	"strings"
	"testing"
	"text/template/parse"
	"time"

	"github.com/vaultmount/vaultmount/provider/cost"
	"github.com/vaultmount/vaultmount/provider/limits"
)

func TestBoundsAtTheLimitAndOneAbove(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		limit limits.Limit
		name  string
		text  func(n int) string
	}{
		{limits.TemplateBytes, "text", func(n int) string { return strings.Repeat("x", n) }},
		{limits.TemplateTokens, "actions", func(n int) string { return strings.Repeat("{{ 1 }}", n/2) + strings.Repeat("{{/**/}}", n%2) }},
		{limits.TemplateTokens, "arguments", func(n int) string { return "{{ print" + strings.Repeat(" 1", n-2) + "}}" }},
		{limits.TemplateTokens, "strings", func(n int) string { return "{{ print" + strings.Repeat(` "}}\""`, n-2) + "}}" }},
		{limits.TemplateDepth, "blocks", func(n int) string { return strings.Repeat("{{ if 1 }}", n) + strings.Repeat("{{ end }}", n) }},
		{limits.TemplateDepth, "else if", func(n int) string {
			return "{{ if 1 }}" + strings.Repeat("{{ else if 1 }}", n-1) + "{{ end }}"
		}},
		{limits.TemplateDepth, "parentheses", func(n int) string {
			return "{{ print " + strings.Repeat("(print ", n) + "1" + strings.Repeat(")", n) + "}}"
		}},
		{limits.TemplateDepth, "both", func(n int) string {
			return strings.Repeat("{{- with 1 -}}", n-7) + "{{ print " + strings.Repeat("(print ", 7) + "1" + strings.Repeat(")", 7) + "}}" + strings.Repeat("{{ end }}", n-7)
		}},
	} {
		t.Run(test.limit.String()+"/"+test.name, func(t *testing.T) {
			t.Parallel()
			n := test.limit.Max()
			if err := Check(Template{Text: test.text(n)}); err != nil {
				t.Errorf("at the limit: %v", err)
			}
			var exceeded *limits.ExceededError
			err := Check(Template{Text: test.text(n + 1)})
			if !errors.Is(err, ErrInvalid) || !errors.As(err, &exceeded) || exceeded.Limit != test.limit || exceeded.Got != n+1 {
				t.Errorf("one above the limit: got %v", err)
			}
		})
	}
}

// Blocks that follow each other are not nested.
func TestDepthEndsWithItsBlock(t *testing.T) {
	t.Parallel()
	n := limits.TemplateDepth.Max() + 1
	text := strings.Repeat("{{ if 1 }}{{ else if 2 }}{{ else if 3 }}{{ else }}{{ end }}", n) + strings.Repeat(`{{ "((" | print (1) }}`, n)
	if err := Check(Template{Text: text}); err != nil {
		t.Error(err)
	}
}

// hostileUnits make the parser allocate much for few bytes.
func hostileUnits() map[string][3]string {
	return map[string][3]string{
		"blocks":       {"", "{{ if 1 }}{{ end }}", ""},
		"open blocks":  {"", "{{ if 1 }}", ""},
		"definitions":  {"", `{{ define "x" }}{{ end }}`, ""},
		"actions":      {"", "{{1}}", ""},
		"numbers":      {"{{ print ", "1 ", "}}"},
		"fields":       {"{{ print ", ".a ", "}}"},
		"long fields":  {"{{ print ", ".a", "}}"},
		"chains":       {"{{ print ", "print.b ", "}}"},
		"pipes":        {"{{ print ", "|print", "}}"},
		"parentheses":  {"{{ print ", "(1) ", "}}"},
		"open":         {"{{ print ", "(", "}}"},
		"variables":    {"", "{{$a:=1}}", ""},
		"functions":    {"", "{{sprig_add}}", ""},
		"unknown":      {"", "{{unknown}}", ""},
		"text":         {"", "x", ""},
		"word":         {"{{", "x", "}}"},
		"string":       {`{{ print "`, `x`, `" }}`},
		"string field": {`{{ print "x"`, `.x`, ` }}`},
		"comments":     {"", "{{/**/}}", ""},
		"else if":      {"{{if 1}}", "{{else if 1}}", "{{end}}"},
	}
}

// repeat repeats a unit as often as the limits allow.
func repeat(unit [3]string) string {
	n := (limits.TemplateBytes.Max() - len(unit[0]) - len(unit[2])) / len(unit[1])
	for ; ; n -= n/64 + 1 {
		text := unit[0] + strings.Repeat(unit[1], n) + unit[2]
		if checkBounds(Template{Text: text}) == nil {
			return text
		}
	}
}

// What Check says of its memory and CPU time. Not parallel: it counts what the whole
// process allocates.
func TestCheckIsBounded(t *testing.T) {
	for name, unit := range hostileUnits() {
		t.Run(name, func(t *testing.T) {
			text := repeat(unit)
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			used := cost.Measure(func() { _ = Check(Template{Text: text}) })
			runtime.ReadMemStats(&after)
			memory := used.Allocated + after.StackSys - min(before.StackSys, after.StackSys)
			t.Logf("%d bytes of text: %d KiB of memory, %s", len(text), memory>>10, used.CPU)
			// The race detector takes up to ten times the CPU time.
			if memory > 16<<20 || used.CPU > time.Second {
				t.Errorf("%d bytes of text take %d KiB of memory and %s of CPU time", len(text), memory>>10, used.CPU)
			}
		})
	}
}

// FuzzBounds looks for a text of which the parser makes more than the scan has
// counted, or nests deeper.
func FuzzBounds(f *testing.F) {
	for _, unit := range hostileUnits() {
		f.Add(unit[0]+strings.Repeat(unit[1], 3)+unit[2], "", "")
	}
	for _, text := range []string{
		`{{ "}}" 1 1 1 }}`, "{{ `}}` 1 }}", `{{ '}' 1 }}`, `{{/* }} */}}{{ 1 }}`, `{{- /* {{ */ -}}{{1}}`, `{{ "\"}}" }}`, `{{ 1 -}} {{- 2 }}`, "{{ \"a\n1 1 1", `{{ .5.a }}`, `{{ +1-2i }}`, `{{ $.a.b := 1 }}`,
	} {
		f.Add(text, "", "")
	}
	f.Add(`<<1 2 3>>`, "<<", ">>")
	f.Add(`<< $x:= 1 = << 2 =`, "<<", "=")
	f.Add(`<< 1a 1a a 2 2 a`, "<<", "a")
	f.Add(`"1 "2" 3"`, `"`, `"`)
	f.Add(`- 1 -- 1 -`, `-`, `-`)
	f.Fuzz(func(t *testing.T, text, left, right string) {
		given := Template{Text: text, LeftDelim: left, RightDelim: right}
		s := scanner{left: left, right: right}
		cost.Assert(t, len(text), func() { s.scan(text) })
		if s.tokens > limits.TemplateTokens.Max() || s.deepest > limits.TemplateDepth.Max() {
			return
		}
		trees, err := parseTrees(given)
		if err != nil {
			return
		}
		for name, tree := range trees {
			nodes, depth := 0, 0
			count(tree.Root, 0, &nodes, &depth)
			// A token makes at most a text before it, an action, a list, a pipe, a command
			// and the node itself. Each level is a block with its list, or a pipe in a command.
			if nodes > 6*s.tokens+2 || depth > 4*s.deepest+5 {
				t.Errorf("%q: %d nodes in %d levels of %d tokens in %d levels", name, nodes, depth, s.tokens, s.deepest)
			}
		}
	})
}

func count(node parse.Node, level int, nodes, depth *int) {
	*nodes++
	*depth = max(*depth, level)
	for _, child := range children(node) {
		count(child, level+1, nodes, depth)
	}
}

func TestOneTemplateTellsItsLimit(t *testing.T) {
	t.Parallel()
	err := Check(Template{Text: strings.Repeat("{{ if 1 }}", 201)})
	want := "invalid template: 201 levels exceed the limit of 200 (template-depth); close blocks and parentheses earlier, or use define"
	if fmt.Sprint(err) != want {
		t.Errorf("got  %v\nwant %s", err, want)
	}
}
