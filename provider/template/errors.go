package template

import (
	"cmp"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/vaultmount/vaultmount/provider/limits"
)

const (
	quotedBytes = 64      // of a name or an argument, enough to find it in the template
	reasonBytes = 200     // of a reason, so that the place and the remedy fit as well
	maxReason   = 4 << 10 // bytes of a reason that is compared with the safe ones
	maxNested   = 16      // errors that are parsed: each takes time in proportion to its text
)

// newError makes all errors about a template. None is longer than limits.ErrorBytes: the
// author of the template chooses much of the text.
func newError(kind error, format string, arguments ...any) error {
	longest := limits.ErrorBytes.Max() - len(kind.Error()) - len(": ")
	return fmt.Errorf("%w: %s", kind, limits.Truncate(fmt.Sprintf(format, arguments...), longest))
}

// quote repeats a name or an argument of the author.
func quote(text string) string { return strconv.Quote(limits.Truncate(text, quotedBytes)) }

// syntaxError says where a template does not parse, and how to correct it. Nothing was
// executed, so the error has no data. The parser knows only the line.
func syntaxError(t Template, err error) error {
	parts := regexp.MustCompile(`(?s)^(?:parse: )?template: :(\d+): (?:template: )?(.*)$`).FindStringSubmatch(err.Error())
	if parts == nil {
		return newError(ErrInvalid, "%s", err)
	}
	reason := limits.Truncate(parts[2], reasonBytes)
	return newError(ErrInvalid, "line %s: %s%s", parts[1], reason, syntaxHint(reason, t.LeftDelim, t.RightDelim))
}

// syntaxHint is the remedy for what the parser's words do not explain.
func syntaxHint(reason, left, right string) string {
	left, right = cmp.Or(left, "{{"), cmp.Or(right, "}}")
	hints := []struct{ pattern, hint string }{
		{`^unexpected EOF$`, fmt.Sprintf("an if, with, range or define has no %s end %s", left, right)},
		{`^unexpected \{\{(end|else)\}\}$`, "no if, with, range or define is open there"},
		{`^unclosed action$`, right + " is missing"},
		{`^unexpected "}"`, right + " is not complete"},
		{`^unclosed comment$`, fmt.Sprintf("a comment is written %s/* … */%s", left, right)},
		{`^(unterminated|newline in) .*quoted string$`, "a quote is missing"},
		{`[‘’“”]'$`, `write straight quotes (")`},
		{`^(unterminated|malformed) character constant`, `write strings in double quotes`},
		{`^bad character U\+002D '-'$`, `a key with a dash is written index .Data.data "my-key"`},
		{`^bad character U\+005B '\['$`, `a key is written .key or index .Data.data "key"`},
		{`^unexpected "=" in operand$`, "to compare, write eq A B"},
		{`^undefined variable `, "a variable is known from its := to the end of its block"},
		{`^multiple definition`, "rename one of them"},
		{`^missing value for command$`, fmt.Sprintf("there is nothing between %s and %s", left, right)},
	}
	for _, h := range hints {
		if regexp.MustCompile(h.pattern).MatchString(reason) {
			return "; " + h.hint
		}
	}
	return ""
}

// executionError says where an execution failed, and why. The place that text/template
// reports is the author's text. The reason is shown only if its form is known to have no
// values: text/template prints values into errors, and functions print their arguments.
func executionError(t Template, err error, own *functionError) error {
	message := strings.TrimPrefix(err.Error(), "execute: ")
	if strings.HasPrefix(message, "parse: ") {
		return syntaxError(t, err)
	}
	e := parseExecError(message)
	if own != nil {
		return newError(own.kind, "%s%s", e.place(t), own.reason)
	}
	return newError(ErrData, "%s%s", e.place(t), e.safeReason(t))
}

// execError is an error of text/template in its parts.
type execError struct {
	line, offset int // offset in bytes; line is 0 if nothing is known
	code, reason string
}

// parseExecError reads template: NAME:LINE:OFFSET: executing "NAME" at <CODE>: REASON.
// With executeTemplate, the reason may be another error of that form, which is closer to
// the cause.
func parseExecError(message string) execError {
	form := regexp.MustCompile(`(?s)^(?:error calling executeTemplate: )?template: .*?:(\d+):(\d+): executing ".*?" at <(.*?)>: (.*)$`)
	e := execError{reason: message}
	for range maxNested {
		parts := form.FindStringSubmatch(e.reason)
		if parts == nil {
			break
		}
		e.code, e.reason = parts[3], parts[4]
		e.line, _ = strconv.Atoi(parts[1])
		e.offset, _ = strconv.Atoi(parts[2])
	}
	return e
}

func (e execError) place(t Template) string {
	if e.line == 0 {
		return ""
	}
	column := e.offset + 1
	if lines := strings.Split(t.Text, "\n"); e.line <= len(lines) && e.offset <= len(lines[e.line-1]) {
		column = utf8.RuneCountInString(lines[e.line-1][:e.offset]) + 1
	}
	return fmt.Sprintf("line %d, column %d, at <%s>: ", e.line, column, limits.Truncate(e.code, quotedBytes))
}

// redactedReason is in place of a reason that may quote a secret.
const redactedReason = "the reason is not shown, since it may hold a secret value"

// safeReason returns the first safe form that fits.
func (e execError) safeReason(t Template) string {
	if cut := len(e.reason) - maxReason; cut > 0 { // an argument in the middle is long
		e.reason = e.reason[:maxReason/2] + e.reason[maxReason/2+cut:]
	}
	for _, safe := range append(engineReasons(), functionReasons()...) {
		pattern := regexp.MustCompile(`(?s)^` + safe.pattern + `$`)
		groups := pattern.FindStringSubmatchIndex(e.reason)
		if groups == nil {
			continue
		}
		if safe.quotes && !strings.Contains(t.Text, e.reason[groups[2]:groups[3]]) {
			break
		}
		return limits.Truncate(string(pattern.ExpandString(nil, safe.shown, e.reason, groups)), reasonBytes) + e.hint()
	}
	if function := regexp.MustCompile(`^error calling (\w+): `).FindStringSubmatch(e.reason); function != nil {
		return "error calling " + function[1] + ": " + redactedReason
	}
	return redactedReason
}

// hint is the remedy for the most frequent errors.
func (e execError) hint() string {
	field := strings.TrimPrefix(e.code, "$.")
	if strings.HasPrefix(e.reason, "map has no entry") && regexp.MustCompile(`^\.?Data\.`).MatchString(field) && !regexp.MustCompile(`^\.?Data\.(data|metadata)\b`).MatchString(field) {
		return "; the keys of a KV version 2 secret are below .Data.data"
	}
	if strings.Contains(e.reason, "json.Number") {
		return "; a number of Vault is a json.Number, write .Int64, .Float64 or .String after it"
	}
	return ""
}

// safeReason is a form of a reason, and what is shown of it.
type safeReason struct {
	pattern, shown string
	quotes         bool // show the first group, if it is in the template: it may come from a secret
}

// A type is Go's printed form, a name is that of a function, and a node is text of the
// template.
const (
	aType = `([\w.*{}\[\] ]+)`
	aName = `(\w+)`
	aNode = `(.*)`
)

// engineReasons are those of text/template. Forms with numbers are left out: these may be
// computed from a secret.
func engineReasons() []safeReason {
	same := func(pattern, hint string) safeReason { return safeReason{pattern: pattern, shown: "${0}" + hint} }
	quoting := func(pattern, hint string) safeReason { return safeReason{pattern, "${0}" + hint, true} }
	return []safeReason{
		quoting(`map has no entry for key "(.*)"`, ""),
		quoting(`nil data; no entry for key "(.*)"`, "; the value before it is missing"),
		same(`nil pointer evaluating `+aType, "; the value before the last dot is missing"),
		same(`can't evaluate field \w+ in type (?:string|interface \{\})`, "; the value before the dot has no fields"),
		same(`can't evaluate field \w+ in type `+aType, ""),
		same(`wrong type for value; expected `+aType+`; got `+aType, ""),
		same(`wrong number of args for \w+: want (?:at least )?\d+ got \d+`, ""),
		same(`invalid value; expected `+aType, "; the value is missing"),
		same(`dereference of nil pointer of type `+aType, ""),
		same(`cannot assign nil to `+aType, "; the value is missing"),
		quoting(`template "(.*)" not defined`, "; there is no define of that name"),
		same(`exceeded maximum template depth \(\d+\)`, "; a template calls itself without an end"),
		same(`expected (?:bool|string|integer|unsigned integer|float); found '.*'`, "; write strings in double quotes"),
		same(`expected (?:bool|string|integer|unsigned integer|float); found `+aNode, ""),
		same(`can't give argument to non-function `+aNode, "; to compare, write eq A B"),
		same(`\w+ has arguments but cannot be invoked as function`, ""),
		same(`\w+ is not a method but has arguments`, ""),
		same(`\w+ is an unexported field of struct type `+aType, ""),
		same(`can't handle `+aNode+` for arg of type `+aType, ""),
		same(`can't print `+aNode+` of type `+aType, ""),
		same(`nil is not a command`, ""),
		{pattern: `range can't iterate over .*`, shown: "range can't iterate over the value, which is neither a list nor a map"},
		{pattern: `can't use .* (?:to )?iterate over more than one variable`, shown: "range can't give more than one variable for each of these values"},
	}
}

// functionReasons are those of functions, of text/template and of the libraries.
func functionReasons() []safeReason {
	calling := func(pattern, shown string) safeReason {
		return safeReason{pattern: `error calling ` + aName + `: (?:\w+: )?` + pattern, shown: "error calling ${1}: " + shown}
	}
	same := func(pattern string) safeReason { return calling("("+pattern+")", "${2}") }
	return []safeReason{
		calling(`strconv\.(?:ParseInt|ParseUint|Atoi): parsing .*: (invalid syntax|value out of range)`, "the value is not a whole number that fits (${2})"),
		calling(`strconv\.ParseFloat: parsing .*: (invalid syntax|value out of range)`, "the value is not a number that fits (${2})"),
		calling(`strconv\.ParseBool: parsing .*: invalid syntax`, `the value is neither "true" nor "false"`),
		calling(`illegal base64 data at input byte \d+`, "the value is not base64"),
		calling(`(?:invalid character .*|unexpected end of JSON input)`, "the value is not JSON"),
		calling(`json: unsupported (type|value): .*`, "the value cannot be written as JSON (unsupported ${2})"),
		calling(`yaml: .*`, "the value is not YAML"),
		calling(`toml: .*`, "the value cannot be written as TOML"),
		calling(`error parsing regexp: ([a-z ()*?:\[\]\\-]+): .*`, "the regular expression is wrong: ${2}"),
		calling(`unknown type for .* \(`+aType+`\)`, "a value is of type ${2} and no number"),
		calling(`not a map: .*`, "a key has a value and is the beginning of another key as well"),
		calling(`index out of range: -?\d+`, "index out of range"),
		calling(`invalid slice index: .*`, "invalid slice index"),
		calling(`runtime error: (index|slice bounds) out of range.*`, "${2} out of range"),
		calling(`reflect: (?:slice|string) (?:index|slice index) out of range`, "index out of range"),
		calling(`non-comparable types? .*`, "a value cannot be compared"),
		same(`runtime error: integer divide by zero`),
		same(`runtime error: invalid memory address or nil pointer dereference`),
		same(`(?:index|slice) of untyped nil`),
		same(`(?:index|len|slice) of nil pointer`),
		same(`(?:can't index|can't slice) item of type ` + aType),
		same(`len of type ` + aType),
		same(`cannot index slice/array with (?:nil|type ` + aType + `)`),
		same(`value has type ` + aType + `; should be ` + aType),
		same(`value is nil; should be of type ` + aType),
		same(`incompatible types for comparison(?:: ` + aType + ` and ` + aType + `)?`),
		same(`invalid type for comparison`),
		same(`missing argument for comparison`),
		same(`strings: negative Repeat count`),
		same(`indent value must be a positive integer`),
		same(`(?:timestamp|executeTemplate): wrong number of arguments, expected \d or \d, but got \d+`),
		same(`wrong argument type ` + aType),
		{`error calling executeTemplate: template: no template "(.*)" associated with template ".*"`, `error calling executeTemplate: there is no define "${1}"`, true},
		{`error calling sprig_fail: (.*)`, `${1}`, true},
	}
}
