package template

import (
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/vaultmount/vaultmount/provider/limits"
)

// ErrNotAsked is for a result that the template cannot have: code in the process that
// executed it has taken the process over. It is an ErrInvalid and shows nothing of the
// result.
var ErrNotAsked = fmt.Errorf("%w: its process returned what the template does not ask for", ErrInvalid)

// CheckResult rejects a result that the template cannot have, and one over a limit. Use
// it for results of a process that a template may have taken over.
//
// A dependency or a file needs a call of its function in the text of the template. If all
// calls have their path in quotation marks, the path must be one of these. Nothing is
// parsed: the cost is linear in the text and the result. The error is ErrInvalid;
// ErrNotAsked is what no limit explains.
func CheckResult(t Template, r Result) error {
	for _, dependencies := range [][]Dependency{r.Used, r.Missing} {
		if err := limits.Dependencies.Check(len(dependencies)); err != nil {
			return fmt.Errorf("%w: %w", ErrInvalid, err)
		}
	}
	var written layout
	for _, file := range r.Files {
		if err := written.add(file.Path); err != nil {
			return fmt.Errorf("%w: %w", ErrInvalid, err)
		}
	}
	p := plausible{template: t, calls: map[string]*callPaths{}}
	if !slices.ContainsFunc(r.Missing, p.rejectsDependency) && !slices.ContainsFunc(r.Files, p.rejectsFile) {
		return nil
	}
	return ErrNotAsked
}

// plausible decides whether a part of a result may come from a template.
type plausible struct {
	template Template
	calls    map[string]*callPaths // by function
}

// callPaths are the first arguments of all calls of a function.
type callPaths struct {
	literal map[string]bool
	// computed is true if a call has another first argument than a string literal.
	computed bool
}

func (p *plausible) rejectsDependency(d Dependency) bool {
	function := map[Verb]string{Read: "secret", Write: "secret", List: "secrets", Issue: "pkiCert"}[d.Verb]
	return function == "" || d.Path == "" || d.Path != trimPath(d.Path) || limits.VaultPathBytes.Check(len(d.Path)) != nil ||
		!isEncoded(d.Arguments) || d.Reads() && d.Arguments != "" || !p.callsOf(function, trimPath).allow(d.Path)
}

// isEncoded reports whether NewWrite would encode the arguments in this way.
func isEncoded(arguments string) bool {
	var data map[string]string
	return arguments == "" || json.Unmarshal([]byte(arguments), &data) == nil && encode(data) == arguments
}

func (p *plausible) rejectsFile(f WrittenFile) bool {
	relative := func(name string) string {
		relative, _ := p.template.Pod.relativePath(name)
		return relative
	}
	return f.Path == "" || relative(f.Path) != f.Path || min(f.UID, f.GID) < -1 || max(f.UID, f.GID) > math.MaxInt32 || f.Perms > 0o777 ||
		!p.callsOf("writeToFile", relative).allow(f.Path)
}

func (c *callPaths) allow(path string) bool { return c.computed || c.literal[path] }

// callsOf finds the calls of a function; clean gives a path its form in results. It may
// find too many, for example in comments, and never too few.
func (p *plausible) callsOf(function string, clean func(string) string) *callPaths {
	if known := p.calls[function]; known != nil {
		return known
	}
	// A delimiter with a quotation mark may end a call where a string seems to start.
	found := &callPaths{literal: map[string]bool{}, computed: strings.ContainsAny(p.template.LeftDelim+p.template.RightDelim, "\"`")}
	_, rest, more := strings.Cut(p.template.Text, function)
	for ; more; _, rest, more = strings.Cut(rest, function) {
		if next, _ := utf8.DecodeRuneInString(rest); isWord(next) {
			continue // it is the start of a longer name
		}
		literal, err := strconv.QuotedPrefix(strings.TrimLeft(rest, " \t\r\n"))
		if err == nil {
			literal, err = strconv.Unquote(literal)
		}
		if err != nil {
			found.computed = true
			continue
		}
		found.literal[clean(literal)] = true
	}
	p.calls[function] = found
	return found
}

// isWord reports what text/template takes for a part of a name.
func isWord(r rune) bool { return r == '_' || unicode.IsLetter(r) || unicode.IsDigit(r) }
