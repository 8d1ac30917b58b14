package template

import "text/template/parse"

// call is one of a function whose first argument stands in quotes.
type call struct {
	function *parse.IdentifierNode
	argument string
}

// quotedCalls are those of one pipe, without the pipes inside it.
func quotedCalls(pipe *parse.PipeNode) []call {
	if pipe == nil {
		return nil
	}
	var calls []call
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
		if literal, ok := first.(*parse.StringNode); ok {
			calls = append(calls, call{function, literal.Text})
		}
	}
	return calls
}

// emptyCall finds a call that names nothing in Vault. Consul-template asks nothing
// then: it writes <nil>, or what stands in the else, and the pod runs without its
// secret.
func emptyCall(pipe *parse.PipeNode) (function *parse.IdentifierNode, example string) {
	if pipe == nil || len(pipe.Cmds) == 0 || len(pipe.Cmds[0].Args) != 1 {
		return nil, "" // what stands further back in a pipe is given an argument
	}
	function, ok := pipe.Cmds[0].Args[0].(*parse.IdentifierNode)
	if !ok {
		return nil, ""
	}
	switch function.Ident {
	case "secret":
		return function, "internal/data/app"
	case "secrets":
		return function, "internal/metadata/app"
	case "pkiCert":
		return function, "pki/issue/app"
	}
	return nil, ""
}

// checkLiteral looks at an argument of our own functions that is known by now.
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
