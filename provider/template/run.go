package template

import (
	"bytes"
	"slices"
	"text/template"
	"text/template/parse"

	library "github.com/hashicorp/consul-template/template"
)

// callsLibrary tells whether a template calls a function that consul-template has
// and this package has not. Most templates do not.
func callsLibrary(trees map[string]*parse.Tree) bool {
	for _, tree := range trees {
		if tree.Root != nil && callsForeign(tree.Root) {
			return true
		}
	}
	return false
}

func callsForeign(node parse.Node) bool {
	if n, ok := node.(*parse.IdentifierNode); ok {
		return !slices.Contains(emulatedFunctions(), n.Ident) && !slices.Contains(builtinFunctions(), n.Ident)
	}
	return slices.ContainsFunc(children(node), callsForeign)
}

// runWithLibrary runs the template by consul-template, with all that it offers.
// Putting its three hundred functions together takes ten times as long as a
// rendering.
func (e *execution) runWithLibrary(map[string]*parse.Tree) ([]byte, error) {
	program, err := library.NewTemplate(&library.NewTemplateInput{
		Contents:      e.template.Text,
		LeftDelim:     e.template.LeftDelim,
		RightDelim:    e.template.RightDelim,
		ErrMissingKey: e.template.ErrorOnMissingKey,
		ExtFuncMap:    e.replacements(),
	})
	if err != nil {
		return nil, err
	}
	executed, err := program.Execute(&library.ExecuteInput{Brain: library.NewBrain()})
	if err != nil {
		return nil, err
	}
	return executed.Output, nil
}

// runAlone runs what a template was parsed to, for one that does without
// consul-template's functions, in the way that consul-template does.
func (e *execution) runAlone(trees map[string]*parse.Tree) ([]byte, error) {
	missingKey := "missingkey=zero"
	if e.template.ErrorOnMissingKey {
		missingKey = "missingkey=error"
	}
	program := template.New("").Funcs(e.own()).Option(missingKey)
	for name, tree := range trees {
		if _, err := program.AddParseTree(name, tree); err != nil {
			return nil, err
		}
	}
	var output bytes.Buffer
	if err := program.Execute(&output, nil); err != nil {
		return nil, err
	}
	return output.Bytes(), nil
}

// own are this package's functions, in place of consul-template's of the same names.
func (e *execution) own() map[string]any {
	return map[string]any{
		"secret":       e.secret,
		"secrets":      e.list,
		"pkiCert":      e.pkiCert,
		"env":          e.env,
		"mustEnv":      e.mustEnv,
		"envOrDefault": e.envOrDefault,
		"file":         e.file,
		"writeToFile":  e.writeToFile,
		"loop":         e.loop,
	}
}

// replacements are what consul-template gets in place of its own. Check has refused
// what is not offered; here it is taken away as well, so that a call which Check
// missed would do nothing. Consul-template has a denylist for that, which takes
// longer than all the rest of a rendering.
func (e *execution) replacements() map[string]any {
	functions := e.own()
	for _, name := range refusedFunctions() {
		functions[name] = func(...any) (any, error) { return nil, e.fail("the function %s is not available", name) }
	}
	return functions
}
