package template

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"text/template/parse"

	"github.com/vaultmount/vaultmount/provider/limits"
)

// Check parses a template and refuses functions that would read the node, act on
// it, or need a server that the driver does not talk to, and those that do not
// exist. It looks at the parse tree, so that a call in a branch that never runs is
// found as well; arguments that stand there in quotes are checked with it.
//
// Its memory and the depth of its stack are in proportion to the text, so a hostile
// template is checked in a confined process.
func Check(t Template) error {
	_, err := checkTrees(t)
	return err
}

// checkTrees is Check, and returns what it has looked at.
func checkTrees(t Template) (map[string]*parse.Tree, error) {
	trees, err := parseTrees(t)
	if errors.Is(err, ErrInvalid) {
		return nil, err
	}
	if err != nil {
		return nil, syntaxFailure(t, err)
	}
	c := checker{template: t, usable: map[string]bool{}}
	for _, name := range slices.Sorted(maps.Keys(trees)) {
		if err := c.check(trees[name].Root); err != nil {
			return nil, err
		}
	}
	return trees, nil
}

// parseTrees gives a tree for the template and for each definition in it, by name.
// Functions are not looked up, so that this can be done with better words. The error is
// ErrInvalid for a template over a limit, else one of the parser.
func parseTrees(t Template) (map[string]*parse.Tree, error) {
	if err := limits.TemplateBytes.Check(len(t.Text)); err != nil {
		return nil, fmt.Errorf("%w: %w; split it into several files", ErrInvalid, err)
	}
	tree := parse.New("")
	tree.Mode = parse.SkipFuncCheck
	trees := map[string]*parse.Tree{}
	_, err := tree.Parse(t.Text, t.LeftDelim, t.RightDelim, trees)
	return trees, err
}

// checker goes through the trees of a template.
type checker struct {
	template Template
	// usable are the functions that it has looked up: a lookup goes through lists.
	usable map[string]bool
}

func (c checker) check(node parse.Node) error {
	switch n := node.(type) {
	case *parse.IdentifierNode:
		return c.checkFunction(n)
	case *parse.PipeNode:
		if function, example := emptyCall(n); function != nil {
			return c.wrong(function, "%s: the path is missing; write it after the function, for example %s %q", function.Ident, function.Ident, example)
		}
		for _, call := range quotedCalls(n) {
			if problem := c.checkLiteral(call.function.Ident, call.argument); problem != nil {
				return c.wrong(call.function, "%s: %s", call.function.Ident, problem.text(func(string) bool { return true }))
			}
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
	if c.usable[n.Ident] {
		return nil
	}
	switch t, why := treat(n.Ident); t {
	case refused:
		return c.wrong(n, "the function %s is not available: %s", n.Ident, why)
	case unknown:
		return c.wrong(n, "function %s is not defined%s", quote(n.Ident), suggestion(n.Ident))
	}
	c.usable[n.Ident] = true
	return nil
}

func (c checker) wrong(node parse.Node, format string, arguments ...any) error {
	return newError(ErrInvalid, "%s: %s", c.place(node), fmt.Sprintf(format, arguments...))
}

// place counts lines and columns from 1, where text/template has columns from 0.
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

// children lists what stands directly below a node. Absent parts are left out:
// an absent else, as a nil list in an interface, would not compare to nil.
func children(node parse.Node) []parse.Node {
	switch n := node.(type) {
	case *parse.ListNode:
		if n == nil {
			return nil
		}
		return n.Nodes
	case *parse.ActionNode:
		return []parse.Node{n.Pipe}
	case *parse.TemplateNode:
		return []parse.Node{n.Pipe}
	case *parse.IfNode:
		return branches(&n.BranchNode)
	case *parse.RangeNode:
		return branches(&n.BranchNode)
	case *parse.WithNode:
		return branches(&n.BranchNode)
	case *parse.PipeNode:
		return commands(n)
	case *parse.CommandNode:
		return n.Args
	case *parse.ChainNode:
		return []parse.Node{n.Node}
	}
	return nil
}

func branches(n *parse.BranchNode) []parse.Node {
	return []parse.Node{n.Pipe, n.List, n.ElseList}
}

func commands(n *parse.PipeNode) []parse.Node {
	if n == nil {
		return nil
	}
	nodes := make([]parse.Node, 0, len(n.Cmds))
	for _, command := range n.Cmds {
		nodes = append(nodes, command)
	}
	return nodes
}
