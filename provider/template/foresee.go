package template

import "text/template/parse"

// foreseeLimit bounds the texts that Foresee parses, in bytes: a parse tree takes a
// hundred times its text.
const foreseeLimit = 4 << 10

// Foresee tells what Render makes of a template without an answer, if that is plain
// from its text: it runs nothing, and is quick enough for a caller that is not
// confined. For all other templates, and those that Render refuses, it reports false.
func Foresee(t Template) (foreseen Result, plain bool) {
	if len(t.Text) > foreseeLimit {
		return Result{}, false
	}
	trees, err := checkTrees(t)
	if err != nil {
		return Result{}, false
	}
	return foresee(t, trees[""])
}

// foresee tells what a template asks in its first run, where it has no answer at
// all, without running it: most of the time of a run goes into the functions that
// it could call. It knows only the plainest and commonest of templates, text and
// blocks at the top like
//
//	{{ with secret "path" }} … {{ end }}
//
// Without an answer, such a block does not run. Of all others, and of those that ask
// nothing, it reports false.
func foresee(t Template, tree *parse.Tree) (foreseen Result, plain bool) {
	if tree == nil || tree.Root == nil {
		return Result{}, false
	}
	e := &execution{template: t, secrets: map[Query]any{}}
	for _, node := range tree.Root.Nodes {
		switch n := node.(type) {
		case *parse.TextNode, *parse.CommentNode:
			continue
		case *parse.WithNode:
			plain = e.foreseeBlock(&n.BranchNode)
		case *parse.IfNode:
			plain = e.foreseeBlock(&n.BranchNode)
		case *parse.RangeNode:
			plain = e.foreseeBlock(&n.BranchNode)
		default:
			return Result{}, false
		}
		if !plain {
			return Result{}, false
		}
	}
	return Result{Missing: e.missing, Used: e.missing}, len(e.missing) > 0
}

// foreseeBlock asks what a block asks that stands alone: the functions are those of
// a run. An else would run, so that it is not plain.
func (e *execution) foreseeBlock(block *parse.BranchNode) (plain bool) {
	function, literals, ok := literalCall(block)
	switch {
	case !ok:
		return false
	case function == "secret" && len(literals) > 0:
		_, err := e.secret(literals...)
		return err == nil
	case function == "secrets" && len(literals) == 1:
		_, err := e.list(literals[0])
		return err == nil
	}
	return false
}

// literalCall takes a block apart that begins with one call of a function with
// strings, and has no else.
func literalCall(block *parse.BranchNode) (function string, literals []string, ok bool) {
	if block.ElseList != nil || len(block.Pipe.Cmds) != 1 {
		return "", nil, false
	}
	arguments := block.Pipe.Cmds[0].Args
	identifier, ok := arguments[0].(*parse.IdentifierNode)
	if !ok {
		return "", nil, false
	}
	for _, argument := range arguments[1:] {
		literal, ok := argument.(*parse.StringNode)
		if !ok {
			return "", nil, false
		}
		literals = append(literals, literal.Text)
	}
	return identifier.Ident, literals, true
}
