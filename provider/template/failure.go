package template

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/vaultmount/vaultmount/provider/limits"
)

// executionFailure says where a template went wrong, and why. Of what
// text/template reports, the place is the author's own text. The reason is shown
// only as far as it is known to hold names and types alone: text/template prints
// values into many of its errors, and functions print their arguments.
func executionFailure(t Template, err error, own *ownFailure) error {
	message := strings.TrimPrefix(err.Error(), "execute: ")
	if strings.HasPrefix(message, "parse: ") {
		return syntaxFailure(t, err)
	}
	f := takeApart(message)
	if own != nil {
		return newError(own.kind, "%s%s", f.place(t), own.reason)
	}
	return newError(ErrData, "%s%s", f.place(t), f.safeReason(t))
}

// failure is an error of text/template, taken apart.
type failure struct {
	line, offset int // offset in bytes; line is 0 if nothing is known
	code, reason string
}

const (
	// maxNested is how many nested errors are taken apart: each takes time in
	// proportion to what it holds.
	maxNested = 16
	// maxReason is the length in bytes of a reason that is compared with the known ones.
	maxReason = 4 << 10
)

// takeApart reads template: NAME:LINE:OFFSET: executing "NAME" at <CODE>: REASON.
// Through executeTemplate the reason may be another one of that kind, which is
// closer to what is wrong.
func takeApart(message string) failure {
	form := regexp.MustCompile(`(?s)^(?:error calling executeTemplate: )?template: .*?:(\d+):(\d+): executing ".*?" at <(.*?)>: (.*)$`)
	var f failure
	rest := message
	for range maxNested {
		parts := form.FindStringSubmatch(rest)
		if parts == nil {
			break
		}
		rest = parts[4]
		f = failure{code: parts[3], reason: rest}
		f.line, _ = strconv.Atoi(parts[1])
		f.offset, _ = strconv.Atoi(parts[2])
	}
	return f
}

func (f failure) place(t Template) string {
	if f.line == 0 {
		return ""
	}
	column := f.offset + 1
	if lines := strings.Split(t.Text, "\n"); f.line <= len(lines) && f.offset <= len(lines[f.line-1]) {
		column = utf8.RuneCountInString(lines[f.line-1][:f.offset]) + 1
	}
	return fmt.Sprintf("line %d, column %d, at <%s>: ", f.line, column, limits.Truncate(f.code, quotedBytes))
}

// withheld stands for a reason that may quote a secret.
const withheld = "the reason is not shown, since it may hold a secret value"

// safeReason is the first known reason that fits, as far as it may be shown.
func (f failure) safeReason(t Template) string {
	if cut := len(f.reason) - maxReason; cut > 0 { // an argument in the middle is long
		f.reason = f.reason[:maxReason/2] + f.reason[maxReason/2+cut:]
	}
	for _, reason := range knownReasons() {
		pattern := regexp.MustCompile(`(?s)^` + reason.pattern + `$`)
		groups := pattern.FindStringSubmatchIndex(f.reason)
		if groups == nil {
			continue
		}
		if reason.quotes && !strings.Contains(t.Text, f.reason[groups[2]:groups[3]]) {
			break
		}
		return limits.Truncate(string(pattern.ExpandString(nil, reason.shown, f.reason, groups)), reasonBytes) + f.hint()
	}
	if function := regexp.MustCompile(`^error calling (\w+): `).FindStringSubmatch(f.reason); function != nil {
		return "error calling " + function[1] + ": " + withheld
	}
	return withheld
}

// hint is for what goes wrong most often.
func (f failure) hint() string {
	field := strings.TrimPrefix(f.code, "$.")
	if strings.HasPrefix(f.reason, "map has no entry") && regexp.MustCompile(`^\.?Data\.`).MatchString(field) && !regexp.MustCompile(`^\.?Data\.(data|metadata)\b`).MatchString(field) {
		return "; the keys of a KV version 2 secret are below .Data.data"
	}
	if strings.Contains(f.reason, "json.Number") {
		return "; a number of Vault is a json.Number, write .Int64, .Float64 or .String after it"
	}
	return ""
}
