package template

import (
	"fmt"
	"regexp"

	"github.com/vaultmount/vaultmount/provider/limits"
)

const (
	defaultLeft  = "{{"
	defaultRight = "}}"
)

// syntaxFailure says where a template does not parse, and how to put it right.
// Nothing was executed, so no data is near. The parser knows the line alone.
func syntaxFailure(t Template, err error) error {
	parts := regexp.MustCompile(`(?s)^(?:parse: )?template: :(\d+): (?:template: )?(.*)$`).FindStringSubmatch(err.Error())
	if parts == nil {
		return newError(ErrInvalid, "%s", err)
	}
	reason := limits.Truncate(parts[2], reasonBytes)
	left, right := t.LeftDelim, t.RightDelim
	if left == "" {
		left = defaultLeft
	}
	if right == "" {
		right = defaultRight
	}
	return newError(ErrInvalid, "line %s: %s%s", parts[1], reason, syntaxHint(reason, left, right))
}

// syntaxHint tells the way out of what the parser's words do not explain.
func syntaxHint(reason, left, right string) string {
	hints := []struct{ pattern, hint string }{
		{`^unexpected EOF$`, fmt.Sprintf("; an if, with, range or define has no %s end %s", left, right)},
		{`^unexpected \{\{(end|else)\}\}$`, "; no if, with, range or define is open there"},
		{`^unclosed action$`, fmt.Sprintf("; %s is missing", right)},
		{`^unexpected "}"`, fmt.Sprintf("; %s is not complete", right)},
		{`^unclosed comment$`, fmt.Sprintf("; a comment is written %s/* … */%s", left, right)},
		{`^(unterminated|newline in) .*quoted string$`, "; a quote is missing"},
		{`[‘’“”]'$`, `; write straight quotes (")`},
		{`^(unterminated|malformed) character constant`, `; write strings in double quotes`},
		{`^bad character U\+002D '-'$`, `; a key with a dash is written index .Data.data "my-key"`},
		{`^bad character U\+005B '\['$`, `; a key is written .key or index .Data.data "key"`},
		{`^unexpected "=" in operand$`, "; to compare, write eq A B"},
		{`^undefined variable `, "; a variable is known from its := to the end of its block"},
		{`^multiple definition`, "; rename one of them"},
		{`^missing value for command$`, fmt.Sprintf("; there is nothing between %s and %s", left, right)},
	}
	for _, h := range hints {
		if regexp.MustCompile(h.pattern).MatchString(reason) {
			return h.hint
		}
	}
	return ""
}
