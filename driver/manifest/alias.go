package manifest

import (
	"fmt"

	"go.yaml.in/yaml/v3"
)

// mostAliased bounds what aliases may add to a manifest, in bytes. The API server
// takes no request above 3 MiB, and ten lines of aliases can stand for gigabytes.
const mostAliased = 4 << 20

// expansion makes of documents ones with a copy of its own at each alias and merge
// key, and without anchors. What is edited at one place then changes at no other, and
// a part of a document can be read without the rest.
type expansion struct {
	added int
	// flow counts the {} and [] around a node.
	flow int
	// open are the anchors whose copies are being made.
	open map[*yaml.Node]bool
}

func (e *expansion) node(node *yaml.Node) (*yaml.Node, error) {
	if node.Kind == yaml.AliasNode {
		return e.alias(node)
	}
	if err := e.count(node); err != nil {
		return nil, err
	}
	plain := *node
	plain.Anchor = ""
	plain.Content = nil
	if len(e.open) > 0 {
		// Comments stay where they were written.
		plain.HeadComment, plain.LineComment, plain.FootComment = "", "", ""
	}
	if node.ShortTag() == "!!null" && node.Value == "" && (e.flow > 0 || len(e.open) > 0) {
		plain.Value = "null" // in a flow the encoder writes an empty one as ""
	}
	if node.Style&yaml.FlowStyle != 0 {
		e.flow++
		defer func() { e.flow-- }()
	}
	if node.Kind == yaml.MappingNode {
		return &plain, e.mapping(node, &plain)
	}
	for _, below := range node.Content {
		expanded, err := e.node(below)
		if err != nil {
			return nil, err
		}
		plain.Content = append(plain.Content, expanded)
	}
	return &plain, nil
}

// alias copies what an alias stands for. It keeps the alias's own comments.
func (e *expansion) alias(alias *yaml.Node) (*yaml.Node, error) {
	if e.open[alias.Alias] {
		return nil, fmt.Errorf("the anchor %q in line %d holds an alias of itself, in line %d", alias.Value, alias.Alias.Line, alias.Line)
	}
	e.open[alias.Alias] = true
	plain, err := e.node(alias.Alias)
	delete(e.open, alias.Alias)
	if err != nil {
		return nil, err
	}
	if len(e.open) == 0 {
		keepComments(alias, plain)
	}
	if isMerge(plain) {
		// Behind an alias it was a key like others.
		plain.Tag, plain.Style = "!!str", yaml.DoubleQuotedStyle
	}
	return plain, nil
}

// keepComments puts what stands beside an alias beside the copy, or before it if
// the copy is longer than a line.
func keepComments(from, to *yaml.Node) {
	to.HeadComment, to.LineComment, to.FootComment = from.HeadComment, from.LineComment, from.FootComment
	if to.Kind != yaml.ScalarNode && to.Style&yaml.FlowStyle == 0 {
		to.HeadComment, to.LineComment = lines(from.HeadComment, from.LineComment), ""
	}
}

func lines(a, b string) string {
	if a == "" || b == "" {
		return a + b
	}
	return a + "\n" + b
}

func (e *expansion) count(node *yaml.Node) error {
	if len(e.open) == 0 {
		return nil
	}
	const structure = 64 // of a node without text
	if e.added += len(node.Value) + structure; e.added > mostAliased {
		return fmt.Errorf("the YAML aliases stand for more than %d MiB; write out what is meant", mostAliased>>20)
	}
	return nil
}
