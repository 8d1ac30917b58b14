package template

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/vaultmount/vaultmount/provider/limits"
)

// checkBounds refuses a template whose parse tree or parser stack would be large. A
// tree takes up to a hundred times the bytes of its text, and the parser calls
// itself once for each level. The scan takes linear time and no memory to speak of.
// Within the bounds, parsing and checking take less than 16 MiB and 100 ms.
func checkBounds(t Template) error {
	if err := limits.TemplateBytes.Check(len(t.Text)); err != nil {
		return fmt.Errorf("%w: %w; split it into several files", ErrInvalid, err)
	}
	s := scanner{left: t.LeftDelim, right: t.RightDelim}
	s.scan(t.Text)
	if err := limits.TemplateTokens.Check(s.tokens); err != nil {
		return fmt.Errorf("%w: %w; use range, or split it into several files", ErrInvalid, err)
	}
	if err := limits.TemplateDepth.Check(s.deepest); err != nil {
		return fmt.Errorf("%w: %w; close blocks and parentheses earlier, or use define", ErrInvalid, err)
	}
	return nil
}

// scanner counts what the parser makes nodes of. It finds the end of an action as the
// lexer of text/template does. It may count too much in a text that does not parse,
// and never too little.
type scanner struct {
	left, right string
	// ends says that the lexer finds the right delimiter wherever it is outside of
	// a string. It does not if the delimiter begins like a part of a word, a string or
	// an operator. Then all the rest of the text counts as the action.
	ends bool
	// tokens are the actions, and the words and other characters in them.
	tokens int
	// depth counts the open blocks and parentheses; deepest is its maximum.
	depth, deepest int
	// blocks has the levels of each open block. An "else if" adds one: the parser
	// puts the second if inside the first, and one end closes both.
	blocks []int
}

const (
	defaultLeft  = "{{"
	defaultRight = "}}"
	commentStart = "/*"
	commentEnd   = "*/"
)

func (s *scanner) scan(text string) {
	if s.left == "" {
		s.left = defaultLeft
	}
	if s.right == "" {
		s.right = defaultRight
	}
	first, _ := utf8.DecodeRuneInString(s.right)
	s.ends = !isWord(first) && !strings.ContainsRune("\"'`.$+-=", first)
	for {
		_, rest, found := strings.Cut(text, s.left)
		if !found {
			return
		}
		s.tokens++
		text = s.action(skipStart(rest))
	}
}

// skipStart returns what follows the trim marker and a comment at the start of an
// action.
func skipStart(text string) string {
	if len(text) > 1 && text[0] == '-' && isBlank(rune(text[1])) {
		text = text[2:]
	}
	if comment, ok := strings.CutPrefix(text, commentStart); ok {
		_, text, _ = strings.Cut(comment, commentEnd)
	}
	return text
}

// action counts the tokens of an action and returns the text after it.
func (s *scanner) action(text string) string {
	outside := s.depth // parentheses end with the action
	opened := 0
	var words [2]string // the first ones of the action
	for count := 0; text != ""; {
		if s.ends && strings.HasPrefix(text, s.right) {
			text = text[len(s.right):]
			break
		}
		token, isSpace := nextToken(text)
		text = text[len(token):]
		if isSpace {
			continue
		}
		s.tokens++
		if count < len(words) {
			words[count] = token
			count++
		}
		switch token {
		case "(":
			opened++
			s.deepest = max(s.deepest, outside+opened)
		case ")":
			opened--
		}
	}
	s.nest(words[0], words[1])
	return text
}

// nest follows the blocks that the first two words of an action open or close.
func (s *scanner) nest(first, second string) {
	last := len(s.blocks) - 1
	switch first {
	case "if", "with", "range", "define", "block":
		s.blocks = append(s.blocks, 1)
		s.depth++
	case "else":
		if (second == "if" || second == "with") && last >= 0 {
			s.blocks[last]++
			s.depth++
		}
	case "end":
		if last >= 0 {
			s.depth -= s.blocks[last]
			s.blocks = s.blocks[:last]
		}
	}
	s.deepest = max(s.deepest, s.depth)
}

// nextToken returns the first token of the inside of an action: a string, a word
// with the dot before it, or one character.
func nextToken(text string) (token string, isSpace bool) {
	first, size := utf8.DecodeRuneInString(text)
	switch {
	case isBlank(first):
		return text[:size], true
	case first == '`':
		return text[:closingQuote(text, '`', false)], false
	case first == '"', first == '\'':
		return text[:closingQuote(text, byte(first), true)], false
	case isWord(first), first == '.':
		for size < len(text) {
			r, n := utf8.DecodeRuneInString(text[size:])
			if !isWord(r) {
				break
			}
			size += n
		}
	}
	return text[:size], false
}

// closingQuote returns the length of the string that text starts with. Where it is
// not closed, the lexer stops as well.
func closingQuote(text string, quote byte, escapes bool) int {
	for i := 1; i < len(text); i++ {
		switch {
		case text[i] == quote:
			return i + 1
		case escapes && text[i] == '\\':
			i++
		case escapes && text[i] == '\n':
			return i
		}
	}
	return len(text)
}

func isBlank(r rune) bool { return r == ' ' || r == '\t' || r == '\r' || r == '\n' }

// isWord is isAlphaNumeric of the lexer.
func isWord(r rune) bool { return r == '_' || unicode.IsLetter(r) || unicode.IsDigit(r) }
