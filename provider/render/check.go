package render

import (
	"fmt"
	"maps"
	"slices"
	"text/template/parse"
)

// Check parses a template and refuses functions that would read the node, act on
// it, or need a server that the driver does not talk to, and those that do not
// exist. It looks at the parse tree, so that a call in a branch that never runs is
// found as well; arguments that stand there in quotes are checked with it.
func Check(t Template) error {
	tree := parse.New("")
	// The functions are looked up below, with better words for what is wrong.
	tree.Mode = parse.SkipFuncCheck
	trees := map[string]*parse.Tree{}
	if _, err := tree.Parse(t.Text, t.LeftDelim, t.RightDelim, trees); err != nil {
		return syntaxFailure(t, err)
	}
	for _, name := range slices.Sorted(maps.Keys(trees)) {
		c := checker{template: t, tree: trees[name]}
		if err := c.check(trees[name].Root); err != nil {
			return err
		}
	}
	return nil
}

// checker goes through one tree: that of the template or of a definition in it.
type checker struct {
	template Template
	tree     *parse.Tree
}

func (c checker) check(node parse.Node) error {
	switch n := node.(type) {
	case *parse.IdentifierNode:
		return c.checkFunction(n)
	case *parse.PipeNode:
		if err := c.checkArguments(n); err != nil {
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
	switch t, why := treat(n.Ident); t {
	case refused:
		return c.wrong(n, "the function %s is not available: %s", n.Ident, why)
	case unknown:
		return c.wrong(n, "function %q is not defined%s", n.Ident, suggestion(n.Ident))
	}
	return nil
}

// checkArguments looks at arguments of our own functions that are known by now.
func (c checker) checkArguments(pipe *parse.PipeNode) error {
	if pipe == nil {
		return nil
	}
	for i, command := range pipe.Cmds {
		function, ok := command.Args[0].(*parse.IdentifierNode)
		if !ok {
			continue
		}
		var first parse.Node
		switch {
		case len(command.Args) > 1:
			first = command.Args[1]
		case i > 0 && len(pipe.Cmds[i-1].Args) == 1:
			// Piped in, it is the last argument, and here the only one.
			first = pipe.Cmds[i-1].Args[0]
		}
		literal, ok := first.(*parse.StringNode)
		if !ok {
			continue
		}
		if problem := c.checkLiteral(function.Ident, literal.Text); problem != nil {
			return c.wrong(function, "%s: %s", function.Ident, problem.text(func(string) bool { return true }))
		}
	}
	return nil
}

func (c checker) checkLiteral(function, argument string) (wrong *problem) {
	switch function {
	case "env", "mustEnv", "envOrDefault":
		return checkVariable(argument)
	case "file":
		if argument != "" {
			return checkFile(argument)
		}
	case "writeToFile":
		_, wrong = c.template.Pod.relativePath(argument)
	}
	return wrong
}

func (c checker) wrong(node parse.Node, format string, arguments ...any) error {
	return fmt.Errorf("%w: %s: %s", ErrInvalid, c.place(node), fmt.Sprintf(format, arguments...))
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
