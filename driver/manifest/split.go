package manifest

import (
	"bytes"
	"errors"
	"fmt"
	"io"

	"go.yaml.in/yaml/v3"
)

// part is a document of a stream with all its bytes: a document without a pod must come
// out exactly as it went in, and YAML parsers do not report where a document begins.
type part struct {
	// start is what comes before the document: directives, and the line "---" up to its
	// content. The document may begin on that line.
	start, document []byte
	// end is the line "...", if there is one.
	end []byte
}

func (p part) text() []byte {
	return bytes.Join([][]byte{p.start, p.document, p.end}, nil)
}

// isInline is true if the document begins on the line of its "---".
func (p part) isInline() bool {
	return len(p.start) > 0 && len(p.document) > 0 && !bytes.HasSuffix(p.start, []byte("\n"))
}

// header is the part of the start that a parser needs. The rest are comments, which it
// would read as comments of the document.
func (p part) header() []byte {
	var header []byte
	for line := range bytes.Lines(p.start) {
		if bytes.HasPrefix(line, []byte("%")) {
			header = append(header, line...)
		}
	}
	switch {
	case p.isInline():
		return append(header, "---"...)
	case len(header) > 0:
		return append(header, "---\n"...)
	}
	return nil
}

const byteOrderMark = "\uFEFF"

// split separates the documents of a stream. A line that begins with a marker and white
// space is never inside a document, not even in a block scalar (YAML 1.2, section 9.1).
func split(text []byte) []part {
	var parts []part
	var current part
	begun := false // the part has its "---"
	flush := func() {
		if len(current.start)+len(current.document)+len(current.end) > 0 {
			parts = append(parts, current)
		}
		current, begun = part{}, false
	}
	for line := range bytes.Lines(text) {
		content := bytes.TrimPrefix(line, []byte(byteOrderMark))
		switch {
		case isMarker(content, "---"):
			if begun || !hasOnlyDirectives(current.document) {
				flush()
			}
			begun = true
			rest := bytes.TrimSpace(content[len("---"):])
			cut := len(line)
			if len(rest) > 0 && rest[0] != '#' {
				cut -= len(content) - len("---")
			}
			current.start = append(append(current.start, current.document...), line[:cut]...)
			current.document = append([]byte(nil), line[cut:]...)
		case isMarker(content, "..."):
			current.end = line
			flush()
		default:
			current.document = append(current.document, line...)
		}
	}
	flush()
	return parts
}

func isMarker(line []byte, marker string) bool {
	rest, ok := bytes.CutPrefix(line, []byte(marker))
	return ok && (len(rest) == 0 || bytes.IndexByte([]byte(" \t\r\n"), rest[0]) >= 0)
}

// hasOnlyDirectives is true for lines before "---" that belong to its document.
func hasOnlyDirectives(text []byte) bool {
	found := false
	for line := range bytes.Lines(text) {
		line = bytes.TrimSpace(bytes.TrimPrefix(line, []byte(byteOrderMark)))
		if len(line) > 0 && line[0] != '#' && line[0] != '%' {
			return false
		}
		found = found || len(line) > 0 && line[0] == '%'
	}
	return found
}

// decode returns the root of the document of a part, or nil without one. It rejects a
// part in which a parser finds another document, for example behind a line break that is
// not "\n": the edit would lose it.
func decode(p part) (*yaml.Node, error) {
	decoder := yaml.NewDecoder(io.MultiReader(bytes.NewReader(p.header()), bytes.NewReader(p.document)))
	var document, another yaml.Node
	err := decoder.Decode(&document)
	if errors.Is(err, io.EOF) || len(bytes.TrimSpace(p.document)) == 0 {
		return nil, nil
	}
	if err == nil {
		err = decoder.Decode(&another)
	}
	switch {
	case err == nil:
		return nil, fmt.Errorf("another document begins in line %d of it; write a line --- before it", another.Line)
	case !errors.Is(err, io.EOF):
		return nil, fmt.Errorf("read YAML: %w", err)
	case len(document.Content) == 0:
		return nil, nil
	}
	return &document, nil
}
