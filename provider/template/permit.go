package template

import (
	"fmt"
	"slices"
	"strings"
	"text/template/parse"

	"github.com/vaultmount/vaultmount/provider/limits"
)

// ErrNotAsked is a result that a template cannot have: code in the process that it ran in
// has taken the process over. It is an ErrInvalid, and shows nothing of the result.
var ErrNotAsked = fmt.Errorf("%w: its process returned what the template does not ask for", ErrInvalid)

// CheckResult refuses a result that the template cannot have, and one over a limit. Use
// it on what comes from a process that a template may have taken over.
//
// A query needs a call of its function in the template. Where the call has a path
// in quotes, the path must be that one; where it has key=value in quotes, a pair must
// be one of those. A part that the template computes may be anything. The same holds for
// the path, owner, group and mode of a file that writeToFile makes.
//
// The cost is linear in the template and the result. The error is ErrInvalid; ErrNotAsked
// is what no limit explains.
func CheckResult(t Template, r Result) error {
	if err := checkCounts(r); err != nil {
		return err
	}
	if len(r.Missing)+len(r.Files) == 0 {
		return nil // most templates, once they have their secrets
	}
	trees, err := parseTrees(t)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	p := permits{pod: t.Pod, queries: map[target]*querySite{}, files: map[string]*fileSite{}}
	for _, tree := range trees {
		p.collect(tree.Root)
	}
	if !all(r.Missing, p.allowQuery) || !all(r.Files, p.allowFile) {
		return ErrNotAsked
	}
	return nil
}

func all[T any](items []T, allowed func(T) bool) bool {
	return !slices.ContainsFunc(items, func(item T) bool { return !allowed(item) })
}

// checkCounts checks how much a template asks for and writes.
func checkCounts(r Result) error {
	for _, queries := range [][]Query{r.Used, r.Missing} {
		if err := limits.Dependencies.Check(len(queries)); err != nil {
			return fmt.Errorf("%w: %w", ErrInvalid, err)
		}
	}
	var l layout
	for _, file := range r.Files {
		if err := l.add(file.Path); err != nil {
			return fmt.Errorf("%w: %w", ErrInvalid, err)
		}
	}
	return nil
}

// computed marks an argument that only a run of the template can tell. It is no
// path of Vault, and no path of a file.
const computed = ""

// target is what a call asks for; path may be computed.
type target struct {
	verb Verb
	path string
}

// querySite is what all calls with one target pass on to Vault.
type querySite struct {
	pairs    map[string]bool // key, keyEnd, value
	anyPairs bool
}

// fileSite is what all calls of writeToFile with one path can make of it.
type fileSite struct{ uids, gids, perms values }

// values are some numbers, or all.
type values struct {
	all  bool
	some map[int]bool
}

func (v *values) add(n int) {
	if v.some == nil {
		v.some = map[int]bool{}
	}
	v.some[n] = true
}

func (v *values) have(n int) bool { return v.all || v.some[n] }

// permits are what a template can ask for and write.
type permits struct {
	pod     Pod
	queries map[target]*querySite
	files   map[string]*fileSite // by path, which may be computed
}

// collect takes in the calls below a node.
func (p permits) collect(node parse.Node) {
	if pipe, ok := node.(*parse.PipeNode); ok && pipe != nil {
		for i, command := range pipe.Cmds {
			if function, ok := command.Args[0].(*parse.IdentifierNode); ok {
				arguments := literals(command.Args[1:])
				if i > 0 { // the value before it is the last argument
					arguments = append(arguments, piped(pipe.Cmds[i-1]))
				}
				p.call(function.Ident, arguments)
			}
		}
	}
	for _, child := range children(node) {
		p.collect(child)
	}
}

// argument of a call; text is computed if isLiteral is false.
type argument struct {
	text      string
	isLiteral bool
}

func literals(nodes []parse.Node) []argument {
	arguments := make([]argument, 0, len(nodes))
	for _, node := range nodes {
		literal, ok := node.(*parse.StringNode)
		if !ok {
			arguments = append(arguments, argument{})
			continue
		}
		arguments = append(arguments, argument{literal.Text, true})
	}
	return arguments
}

func piped(before *parse.CommandNode) argument {
	if len(before.Args) != 1 {
		return argument{}
	}
	return literals(before.Args)[0]
}

func (p permits) call(function string, arguments []argument) {
	switch {
	case function == "writeToFile":
		p.callWrite(arguments)
	case len(arguments) == 0:
	case function == "secrets":
		p.site(List, arguments[0])
	case function == "secret" && len(arguments) == 1:
		p.site(Read, arguments[0])
	case function == "secret":
		p.site(Write, arguments[0]).pass(arguments[1:])
	case function == "pkiCert":
		p.site(Issue, arguments[0]).pass(arguments[1:])
	}
}

func (p permits) site(verb Verb, path argument) *querySite {
	if path.isLiteral && trimPath(path.text) == "" {
		return &querySite{pairs: map[string]bool{}} // a run fails there
	}
	where := target{verb, trimPath(path.text)}
	if p.queries[where] == nil {
		p.queries[where] = &querySite{pairs: map[string]bool{}}
	}
	return p.queries[where]
}

func (s *querySite) pass(pairs []argument) {
	for _, pair := range pairs {
		if !pair.isLiteral {
			s.anyPairs = true
			continue
		}
		if key, value, ok := cutPair(pair.text); ok {
			s.pairs[key+keyEnd+value] = true
		}
	}
}

// writeArguments is what writeToFile has at least: path, owner, group, mode, content.
const writeArguments = 5

func (p permits) callWrite(arguments []argument) {
	if len(arguments) < writeArguments {
		return
	}
	path := computed
	if name := arguments[0]; name.isLiteral {
		relative, wrong := p.pod.relativePath(name.text)
		if wrong != nil {
			return
		}
		path = relative
	}
	if p.files[path] == nil {
		p.files[path] = &fileSite{}
	}
	site := p.files[path]
	site.uids.parse(arguments[1], func(s string) (int, *problem) { return parseOwner(s, vaultUser, vaultUID) })
	site.gids.parse(arguments[2], func(s string) (int, *problem) { return parseOwner(s, vaultUser, vaultGID) })
	site.perms.parse(arguments[3], func(s string) (int, *problem) {
		perms, wrong := parsePerms(s)
		return int(perms), wrong
	})
}

func (v *values) parse(a argument, parse func(string) (int, *problem)) {
	if !a.isLiteral {
		v.all = true
		return
	}
	if n, wrong := parse(a.text); wrong == nil {
		v.add(n)
	}
}

func (p permits) allowQuery(q Query) bool {
	if q.Path == computed || q.Path != trimPath(q.Path) || limits.VaultPathBytes.Check(len(q.Path)) != nil {
		return false
	}
	return p.queries[target{q.Verb, q.Path}].allows(q) || p.queries[target{q.Verb, computed}].allows(q)
}

func (s *querySite) allows(q Query) bool {
	if s == nil {
		return false
	}
	if q.arguments == "" || s.anyPairs {
		return true
	}
	for pair := range strings.SplitSeq(strings.TrimSuffix(q.arguments, argumentEnd), argumentEnd) {
		if !s.pairs[pair] {
			return false
		}
	}
	return true
}

func (p permits) allowFile(f WrittenFile) bool {
	relative, wrong := p.pod.relativePath(f.Path)
	if wrong != nil || relative != f.Path {
		return false
	}
	// A later call for the same file keeps the owner of an earlier one.
	sites := []*fileSite{p.files[f.Path], p.files[computed]}
	may := func(has func(*fileSite) bool) bool {
		return slices.ContainsFunc(sites, func(s *fileSite) bool { return s != nil && has(s) })
	}
	return may(func(s *fileSite) bool { return s.uids.have(f.UID) }) &&
		may(func(s *fileSite) bool { return s.gids.have(f.GID) }) &&
		may(func(s *fileSite) bool { return s.perms.have(int(f.Perms)) })
}
