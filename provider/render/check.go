package render

import (
	"fmt"
	"maps"
	"path"
	"slices"
	"text/template/parse"
)

// Check parses a template and refuses functions that would read the node, act on
// it, or need a server that the driver does not talk to. It looks at the parse
// tree, so that a call in a branch that never runs is found as well.
func Check(t Template) error {
	tree := parse.New(t.Name)
	// Functions are looked up when the template is executed; here any name passes.
	tree.Mode = parse.SkipFuncCheck
	trees := map[string]*parse.Tree{}
	if _, err := tree.Parse(t.Text, t.LeftDelim, t.RightDelim, trees); err != nil {
		return fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	for _, name := range slices.Sorted(maps.Keys(trees)) {
		if err := checkNode(trees[name], trees[name].Root); err != nil {
			return err
		}
	}
	return nil
}

func checkNode(tree *parse.Tree, node parse.Node) error {
	if identifier, ok := node.(*parse.IdentifierNode); ok {
		if why := denial(identifier.Ident); why != "" {
			location, _ := tree.ErrorContext(node)
			return fmt.Errorf("%w: %s: the function %s is not available: %s", ErrInvalid, location, identifier.Ident, why)
		}
		return nil
	}
	for _, child := range children(node) {
		if err := checkNode(tree, child); err != nil {
			return err
		}
	}
	return nil
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

// denial returns why a function is not offered, or nothing if it is.
func denial(function string) string {
	for _, d := range denials() {
		for _, pattern := range d.functions {
			if matched, err := path.Match(pattern, function); err == nil && matched {
				return d.why
			}
		}
	}
	return ""
}

// deniedFunctions are the patterns once more for consul-template itself, which
// replaces what they match by a function that fails.
func deniedFunctions() []string {
	var patterns []string
	for _, d := range denials() {
		patterns = append(patterns, d.functions...)
	}
	return patterns
}
