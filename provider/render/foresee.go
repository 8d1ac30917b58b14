package render

import "text/template/parse"

// foresee tells what a template asks in its first run, where it has no answer at
// all, without running it: most of the time of a run goes into the functions that
// it could call. It knows only the plainest and commonest of templates, text and
// blocks at the top like
//
//	{{ with secret "path" }} … {{ end }}
//
// Without an answer, such a block does not run. Of all others, and of those that ask
// nothing, it reports false.
func foresee(t Template, tree *parse.Tree) (asked []Query, plain bool) {
	if tree == nil || tree.Root == nil {
		return nil, false
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
			return nil, false
		}
		if !plain {
			return nil, false
		}
	}
	return e.missing, len(e.missing) > 0
}

// foreseeBlock asks what a block asks that stands alone: the functions are those of
// a run. An else would run, so that it is not plain.
func (e *execution) foreseeBlock(block *parse.BranchNode) (plain bool) {
	if block.ElseList != nil || len(block.Pipe.Cmds) != 1 {
		return false
	}
	arguments := block.Pipe.Cmds[0].Args
	function, ok := arguments[0].(*parse.IdentifierNode)
	if !ok {
		return false
	}
	var literals []string
	for _, argument := range arguments[1:] {
		literal, ok := argument.(*parse.StringNode)
		if !ok {
			return false
		}
		literals = append(literals, literal.Text)
	}
	switch {
	case function.Ident == "secret" && len(literals) > 0:
		_, err := e.secret(literals...)
		return err == nil
	case function.Ident == "secrets" && len(literals) == 1:
		_, err := e.list(literals[0])
		return err == nil
	}
	return false
}
