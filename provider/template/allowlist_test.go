package template

import (
	"go/ast"
	"go/build"
	"go/parser"
	"go/token"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/Masterminds/sprig/v3"
)

// Every function that a template can name is known here, and nothing else is: an
// upgrade of a library that adds one fails until it is looked at.
func TestEveryFunctionIsListed(t *testing.T) {
	t.Parallel()
	known := slices.Concat(overriddenFunctions(), allowedFunctions(), deniedFunctions())
	requireSame(t, "of consul-template", known, functionMap(t, "github.com/hashicorp/consul-template/template", "template.go"))
	requireSame(t, "of text/template", builtinFunctions(), functionMap(t, "text/template", "funcs.go"))
	requireSame(t, "of sprig", sprigFunctions(), slices.Collect(maps.Keys(sprig.HermeticTxtFuncMap())))
}

// The lists hold each name once, so that no function has two policies.
func TestEveryFunctionIsListedOnce(t *testing.T) {
	t.Parallel()
	seen := map[string]bool{}
	for _, name := range slices.Concat(overriddenFunctions(), allowedFunctions(), deniedFunctions(), builtinFunctions()) {
		if seen[name] {
			t.Errorf("%s is listed twice", name)
		}
		seen[name] = true
	}
}

func requireSame(t *testing.T, what string, known, actual []string) {
	t.Helper()
	for _, name := range actual {
		if !slices.Contains(known, name) {
			t.Errorf("the function %s %s is not in allowlist.go", name, what)
		}
	}
	for _, name := range known {
		if !slices.Contains(actual, name) {
			t.Errorf("allowlist.go has %s, which is no function %s any more", name, what)
		}
	}
}

// functionMap reads the names from the source of a package: it does not export
// them. They are the keys of its literals of type FuncMap.
func functionMap(t *testing.T, importPath, file string) []string {
	t.Helper()
	here, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	found, err := build.Import(importPath, here, build.FindOnly)
	if err != nil {
		t.Fatal(err)
	}
	syntax, err := parser.ParseFile(token.NewFileSet(), filepath.Join(found.Dir, file), nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	ast.Inspect(syntax, func(node ast.Node) bool {
		literal, ok := node.(*ast.CompositeLit)
		if ok && isFuncMap(literal.Type) {
			names = append(names, keys(t, literal)...)
		}
		return true
	})
	if len(names) == 0 {
		t.Fatalf("no FuncMap in %s of %s; did it move?", file, importPath)
	}
	return names
}

func isFuncMap(expression ast.Expr) bool {
	switch e := expression.(type) {
	case *ast.Ident:
		return e.Name == "FuncMap"
	case *ast.SelectorExpr:
		return e.Sel.Name == "FuncMap"
	}
	return false
}

func keys(t *testing.T, literal *ast.CompositeLit) []string {
	t.Helper()
	var names []string
	for _, element := range literal.Elts {
		name, err := strconv.Unquote(strings.TrimSpace(element.(*ast.KeyValueExpr).Key.(*ast.BasicLit).Value))
		if err != nil {
			t.Fatal(err)
		}
		names = append(names, name)
	}
	return names
}

// README.md lists every function, in the row of what becomes of it.
func TestReferenceListsTheFunctions(t *testing.T) {
	t.Parallel()
	content, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	requireRow(t, content, "text/template", builtinFunctions())
	requireRow(t, content, "consul-template", allowedFunctions())
	requireRow(t, content, "sprig, as `sprig_NAME`", sprigFunctions())
	bounded := []string{"loop"}
	requireRow(t, content, "at most 1048576 iterations", bounded)
	requireRow(t, content, "as above", slices.DeleteFunc(overriddenFunctions(), func(name string) bool { return slices.Contains(bounded, name) }))
	for _, group := range deniedGroups() {
		row := "\n| `" + strings.Join(strings.Fields(group.functions), "` `") + "` | " + group.why + " |\n"
		if !strings.Contains(string(content), row) {
			t.Errorf("README.md lacks the row%s", row)
		}
	}
}

func requireRow(t *testing.T, content []byte, title string, functions []string) {
	t.Helper()
	row := "\n| " + title + " | `" + strings.Join(functions, "` `") + "` |\n"
	if !strings.Contains(string(content), row) {
		t.Errorf("README.md lacks the row%s", row)
	}
}
