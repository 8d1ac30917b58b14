package template

import (
	"fmt"
	"maps"
	"slices"
	"text/template/parse"

	"github.com/vaultmount/vaultmount/provider/limits"
)

// Check parses a template and rejects unknown functions and those that would read the
// node, act on it, or need another server than Vault. It also finds a call in a branch
// that never runs, and checks string literals that are arguments. The error is ErrInvalid.
//
// Its memory and the depth of its stack are in proportion to the text, so a hostile
// template is checked in a confined process.
func Check(t Template) error {
	_, err := parseAndCheck(t)
	return err
}

// parsed is a template that passed Check.
type parsed struct {
	trees     map[string]*parse.Tree // one for the template and for each definition, by name
	functions map[string]bool        // that it calls
}

func parseAndCheck(t Template) (parsed, error) {
	if err := limits.TemplateBytes.Check(len(t.Text)); err != nil {
		return parsed{}, fmt.Errorf("%w: %w; split it into several files", ErrInvalid, err)
	}
	tree := parse.New("")
	tree.Mode = parse.SkipFuncCheck // the checker explains more
	p := parsed{trees: map[string]*parse.Tree{}, functions: map[string]bool{}}
	if _, err := tree.Parse(t.Text, t.LeftDelim, t.RightDelim, p.trees); err != nil {
		return parsed{}, syntaxError(t, err)
	}
	c := checker{t, p.functions}
	for _, name := range slices.Sorted(maps.Keys(p.trees)) {
		if err := c.check(p.trees[name].Root); err != nil {
			return parsed{}, err
		}
	}
	return p, nil
}

// checker walks the trees of a template.
type checker struct {
	template  Template
	functions map[string]bool // that passed: a look-up takes a search in lists
}

func (c checker) check(node parse.Node) error {
	switch n := node.(type) {
	case *parse.IdentifierNode:
		return c.checkFunction(n)
	case *parse.PipeNode:
		if err := c.checkPipe(n); err != nil {
			return err
		}
	}
	for _, child := range children(node) {
		if err := c.check(child); err != nil {
			return err
		}
	}
	return nil
}

func (c checker) checkFunction(n *parse.IdentifierNode) error {
	if c.functions[n.Ident] {
		return nil
	}
	if why := denialReason(n.Ident); why != "" {
		return c.fail(n, "the function %s is not available: %s", n.Ident, why)
	}
	if !isAvailable(n.Ident) {
		return c.fail(n, "function %s is not defined%s", quote(n.Ident), suggestion(n.Ident))
	}
	c.functions[n.Ident] = true
	return nil
}

// checkPipe checks the calls of one pipe, without the pipes inside it.
func (c checker) checkPipe(pipe *parse.PipeNode) error {
	if pipe == nil {
		return nil
	}
	for i, command := range pipe.Cmds {
		function, ok := command.Args[0].(*parse.IdentifierNode)
		if !ok {
			continue
		}
		var first parse.Node // argument
		switch {
		case len(command.Args) > 1:
			first = command.Args[1]
		case i == 0:
			if err := c.checkNoArgument(function); err != nil {
				return err
			}
		case len(pipe.Cmds[i-1].Args) == 1: // the only argument is the one piped in
			first = pipe.Cmds[i-1].Args[0]
		}
		if literal, ok := first.(*parse.StringNode); ok {
			if err := checkLiteral(c.template.Pod, function.Ident, literal.Text); err != nil {
				return c.fail(function, "%s: %s", function.Ident, err.text(true))
			}
		}
	}
	return nil
}

// checkNoArgument rejects a call that names nothing in Vault. Consul-template asks nothing
// then: it writes <nil>, or the else branch, and the pod runs without its secret.
func (c checker) checkNoArgument(function *parse.IdentifierNode) error {
	example := map[string]string{"secret": "internal/data/app", "secrets": "internal/metadata/app", "pkiCert": "pki/issue/app"}[function.Ident]
	if example == "" {
		return nil
	}
	return c.fail(function, "%s: the path is missing; write it after the function, for example %s %q", function.Ident, function.Ident, example)
}

// checkLiteral checks the first argument of this package's own functions.
func checkLiteral(pod Pod, function, argument string) (err *argumentError) {
	switch {
	case function == "env", function == "mustEnv", function == "envOrDefault":
		err = checkVariable(argument)
	case function == "file" && argument != "":
		err = checkFile(argument)
	case function == "writeToFile":
		_, err = pod.relativePath(argument)
	}
	return err
}

func (c checker) fail(node parse.Node, format string, arguments ...any) error {
	return newError(ErrInvalid, "%s: %s", c.place(node), fmt.Sprintf(format, arguments...))
}

// place counts lines and columns from 1; text/template counts columns from 0.
func (c checker) place(node parse.Node) string {
	line, column := 1, 1
	for _, character := range c.template.Text[:min(int(node.Position()), len(c.template.Text))] {
		column++
		if character == '\n' {
			line, column = line+1, 1
		}
	}
	return fmt.Sprintf("line %d, column %d", line, column)
}

// children returns the nodes directly below a node, which may be nil in an interface.
func children(node parse.Node) []parse.Node {
	switch n := node.(type) {
	case *parse.ListNode:
		if n != nil {
			return n.Nodes
		}
	case *parse.ActionNode:
		return []parse.Node{n.Pipe}
	case *parse.TemplateNode:
		return []parse.Node{n.Pipe}
	case *parse.IfNode:
		return []parse.Node{n.Pipe, n.List, n.ElseList}
	case *parse.RangeNode:
		return []parse.Node{n.Pipe, n.List, n.ElseList}
	case *parse.WithNode:
		return []parse.Node{n.Pipe, n.List, n.ElseList}
	case *parse.PipeNode:
		if n != nil {
			nodes := make([]parse.Node, len(n.Cmds))
			for i, command := range n.Cmds {
				nodes[i] = command
			}
			return nodes
		}
	case *parse.CommandNode:
		return n.Args
	case *parse.ChainNode:
		return []parse.Node{n.Node}
	}
	return nil
}
