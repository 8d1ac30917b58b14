package main

import (
	"fmt"
	"path/filepath"
	"regexp"
	"strings"
)

// words is the content of .ci/words.
type words struct {
	text   []entry
	any    *regexp.Regexp    // matches if an entry of text does
	code   map[string]string // identifier to replacement
	allows *regexp.Regexp
	skips  []string
}

type entry struct {
	pattern *regexp.Regexp
	instead string
}

func parseWords(text string) (words, error) {
	w := words{code: map[string]string{}}
	var all, allows []string
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		kind, rest, _ := strings.Cut(line, " ")
		pattern, instead, isEntry := strings.Cut(line, " => ")
		switch {
		case line == "" || strings.HasPrefix(line, "#"):
		case kind == "allow":
			allows = append(allows, rest)
		case kind == "skip":
			w.skips = append(w.skips, rest)
		case kind == "code" && isEntry:
			w.code[strings.TrimPrefix(pattern, "code ")] = instead
		case isEntry:
			compiled, err := regexp.Compile(`\b(?:` + pattern + `)\b`)
			if err != nil {
				return words{}, err
			}
			w.text = append(w.text, entry{compiled, instead})
			all = append(all, pattern)
		default:
			return words{}, fmt.Errorf(".ci/words: cannot read %q", line)
		}
	}
	var err error
	if w.any, err = regexp.Compile(`\b(?:` + strings.Join(all, "|") + `)\b`); err != nil {
		return words{}, err
	}
	w.allows, err = regexp.Compile(strings.Join(allows, "|"))
	return w, err
}

// skip reports whether a path is left out, itself or by a directory or a pattern.
func (w words) skip(path string) bool {
	for _, skipped := range w.skips {
		if matches, err := filepath.Match(skipped, path); matches && err == nil || strings.HasPrefix(path, skipped+"/") {
			return true
		}
	}
	return false
}

var (
	identifier = regexp.MustCompile(`[A-Za-z_][A-Za-z0-9_]*`)
	// camelCase finds the end of a word within an identifier.
	camelCase = regexp.MustCompile(`([a-z0-9])([A-Z])`)
	// between is what may be between the words of a phrase, such as the start of a comment line.
	between = regexp.MustCompile(`[\s_#*>/|-]+`)
)

// check returns the findings in a file. A phrase may go on in the next line.
func (w words) check(path string, lines []string) []string {
	var findings []string
	report := func(i int, word, instead string) {
		findings = append(findings, fmt.Sprintf("%s:%d: %s -> %s", path, i+1, word, instead))
	}
	plain := make([]string, len(lines)+1)
	for i, line := range lines {
		line = w.allows.ReplaceAllString(line, " . ")
		plain[i] = between.ReplaceAllString(strings.ToLower(camelCase.ReplaceAllString(line, "$1 $2")), " ")
		if strings.HasSuffix(path, ".go") {
			for _, name := range identifier.FindAllString(codeOf(line), -1) {
				if instead, banned := w.code[name]; banned {
					report(i, name, instead)
				}
			}
		}
	}
	for i := range lines {
		here := len(plain[i])
		both := plain[i] + " " + strings.TrimLeft(plain[i+1], " ")
		if !w.any.MatchString(both) {
			continue
		}
		for _, e := range w.text {
			for _, match := range e.pattern.FindAllStringIndex(both, -1) {
				if match[0] < here {
					report(i, strings.TrimSpace(both[match[0]:match[1]]), e.instead)
				}
			}
		}
	}
	return findings
}

// quoted is a string literal, or what of it is on one line.
var quoted = regexp.MustCompile("\"(?:[^\"\\\\]|\\\\.)*\"|`[^`]*`?|'(?:[^'\\\\]|\\\\.)*'")

// codeOf leaves out comments and string literals.
func codeOf(line string) string {
	code, _, _ := strings.Cut(quoted.ReplaceAllString(line, `""`), "//")
	return code
}
