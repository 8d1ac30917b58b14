package manifest

import (
	"bytes"
	"errors"
	"fmt"
	"io"

	"go.yaml.in/yaml/v3"
)

// part is a document of a stream, with all its bytes: one without a pod must come out
// exactly as it went in. The readers of YAML do not tell where a document begins.
type part struct {
	// start is what comes before the document: directives, and the line "---" as far as
	// it holds no content. The document may begin on that line.
	start, document []byte
	// end is the line "...", if there is one.
	end []byte
}

func (p part) text() []byte {
	return bytes.Join([][]byte{p.start, p.document, p.end}, nil)
}

// isInline says whether the document begins on the line of its "---".
func (p part) isInline() bool {
	return len(p.start) > 0 && len(p.document) > 0 && !bytes.HasSuffix(p.start, []byte("\n"))
}

// header is what a reader needs of the start. The rest of it are comments, which it
// would take for comments of the document.
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

// split takes a stream apart. A line that begins with one of the two markers and a
// blank is never part of a document, not even in a block of text (YAML 1.2, section 9.1).
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

// hasOnlyDirectives tells the lines before "---" that belong to its document.
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

// decode returns the one document of a part, or none. Where a reader of YAML finds
// another one, behind a line break that is none of Unix for example, nothing must be
// lost of it.
func decode(p part) (*yaml.Node, error) {
	if len(bytes.TrimSpace(p.document)) == 0 {
		return &yaml.Node{}, nil
	}
	decoder := yaml.NewDecoder(io.MultiReader(bytes.NewReader(p.header()), bytes.NewReader(p.document)))
	var document, another yaml.Node
	if err := decoder.Decode(&document); err != nil {
		if errors.Is(err, io.EOF) {
			return &yaml.Node{}, nil
		}
		return nil, fmt.Errorf("read YAML: %w", err)
	}
	switch err := decoder.Decode(&another); {
	case errors.Is(err, io.EOF):
		return &document, nil
	case err != nil:
		return nil, fmt.Errorf("read YAML: %w", err)
	}
	return nil, fmt.Errorf("another document begins in line %d of it; write a line --- before it", another.Line)
}
