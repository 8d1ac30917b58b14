package template

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/vaultmount/vaultmount/provider/cost"
	"github.com/vaultmount/vaultmount/provider/limits"
)

// What a process returns that another template has taken over.
func TestResultThatTheTemplateCannotHave(t *testing.T) {
	t.Parallel()
	write := func(path string, pairs ...string) Result {
		data := map[string]string{}
		for i := 0; i < len(pairs); i += 2 {
			data[pairs[i]] = pairs[i+1]
		}
		return Result{Missing: []Dependency{NewWrite(path, data)}}
	}
	issue := func(path string, pairs ...string) Result {
		result := write(path, pairs...)
		result.Missing[0].Verb = Issue
		return result
	}
	read := func(path string) Result { return Result{Missing: []Dependency{{Verb: Read, Path: path}}} }
	file := func(path string, uid, gid int, perms uint32) Result {
		return Result{Files: []WrittenFile{{Path: path, UID: uid, GID: gid, Perms: perms}}}
	}
	const (
		reads    = `{{ with secret "/kv/app" }}{{ .Data }}{{ end }}{{ define "x" }}{{ secrets "kv/names" }}{{ end }}`
		computes = `{{ with secret "kv/app" }}{{ secret .Data.path }}{{ end }}`
		writes   = `{{ secret "transit/encrypt/a" "plaintext=QQ==" " key = b " }}{{ "c=d" | secret "pipe/d" }}`
		encrypts = `{{ secret "transit/encrypt/a" (printf "plaintext=%s" "x") }}`
		anywhere = `{{ secret (printf "transit/%s" "a") "plaintext=QQ==" }}`
		issues   = `{{ with pkiCert "pki/issue/web" "common_name=web.example" }}{{ .Key | writeToFile "/vault/secrets/k" "vault" "" "0400" }}{{ end }}`
		names    = `{{ "x" | writeToFile (printf "%s" "k") "0" "0" "0400" "append" }}{{ "x" | writeToFile "l" "" "" (print "0600") }}`
		appends  = `{{ "x" | writeToFile (printf "%s" "k") "7" "" "0400" }}{{ "x" | writeToFile "k" "" "8" "0440" "append" }}`
	)
	for _, test := range []struct {
		name, text string
		result     Result
		allowed    bool
	}{
		{"its read", reads, read("kv/app"), true},
		{"a read of another path", reads, read("kv/other"), false},
		{"a path that is not trimmed", reads, read("/kv/app"), false},
		{"no path", computes, read(""), false},
		{"a list in a definition", reads, Result{Missing: []Dependency{{Verb: List, Path: "kv/names"}}}, true},
		{"a list of what it reads", reads, Result{Missing: []Dependency{{Verb: List, Path: "kv/app"}}}, false},
		{"a computed read", computes, read("kv/anything"), true},
		{"a path that is too long", computes, read(strings.Repeat("x", limits.VaultPathBytes.Max()+1)), false},
		{"arguments of a read", reads, Result{Missing: []Dependency{{Verb: Read, Path: "kv/app", Arguments: `{"a":"b"}`}}}, false},
		{"an unknown verb", reads, Result{Missing: []Dependency{{Verb: "delete", Path: "kv/app"}}}, false},
		{"its write", writes, write("transit/encrypt/a", "plaintext", "QQ==", "key", "b"), true},
		{"its write by a pipe", writes, write("pipe/d", "c", "d"), true},
		{"a write of another value", writes, write("transit/encrypt/a", "plaintext", "QUFB", "key", "b"), true},
		{"a write of one value more", writes, write("transit/encrypt/a", "plaintext", "QQ==", "key", "b", "c", "d"), true},
		{"a write to another path", writes, write("sys/policy/x", "plaintext", "QQ=="), false},
		{"a value for another path", writes, write("pipe/d", "plaintext", "QQ=="), true},
		{"a computed value", encrypts, write("transit/encrypt/a", "plaintext", "eA=="), true},
		{"a computed value for another path", encrypts, write("transit/encrypt/b", "plaintext", "eA=="), false},
		{"a computed path", anywhere, write("transit/b", "plaintext", "QQ=="), true},
		{"another value for a computed path", anywhere, write("transit/b", "plaintext", "eA=="), true},
		{"an issue", issues, issue("pki/issue/web", "common_name", "web.example"), true},
		{"an issue for another name", issues, issue("pki/issue/web", "common_name", "admin.example"), true},
		{"an issue as a write", issues, write("pki/issue/web", "common_name", "web.example"), false},
		{"its file", issues, file("k", 100, -1, 0o400), true},
		{"its file with another owner", issues, file("k", 0, -1, 0o400), true},
		{"its file with another group", issues, file("k", 100, 0, 0o400), true},
		{"its file with another mode", issues, file("k", 100, -1, 0o644), true},
		{"a mode beyond the permissions", issues, file("k", 100, -1, 0o4400), false},
		{"an owner of no user", issues, file("k", 1<<31, -1, 0o400), false},
		{"another file", issues, file("l", 100, -1, 0o400), false},
		{"a file where it writes none", reads, file("k", -1, -1, 0o644), false},
		{"a file with a computed name", names, file("a/b", 0, 0, 0o400), true},
		{"a computed mode", names, file("l", -1, -1, 0o777), true},
		{"a file outside", names, file("../l", 0, 0, 0o400), false},
		{"an absolute file", names, file("/etc/passwd", 0, 0, 0o400), false},
		{"a file that is not clean", names, file("a//b", 0, 0, 0o400), false},
		{"an owner of an earlier call", appends, file("k", 7, 8, 0o440), true},
		{"an owner of no call", appends, file("k", 9, 8, 0o440), true},
		{"a write where it lists", `{{ secrets "kv/names" }}`, write("kv/names"), false},
		{"a template that does not parse", `{{ if`, read("kv/app"), false},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			err := CheckResult(Template{Text: test.text}, test.result)
			if test.allowed != (err == nil) || err != nil && !errors.Is(err, ErrInvalid) {
				t.Errorf("got %v", err)
			}
		})
	}
}

// Whatever the tests run, a result that comes from a template passes.
func TestResultsOfTemplatesPass(t *testing.T) {
	t.Parallel()
	for _, test := range errorCases(t) {
		for name, given := range map[string]Values{"no": nil, "all": canaries()} {
			if result, err := Execute(test.template, given); err == nil {
				if err := CheckResult(test.template, result); err != nil {
					t.Errorf("%s, with %s values: %v", test.name, name, err)
				}
			}
		}
	}
}

func TestCountsAtTheLimitAndOneAbove(t *testing.T) {
	t.Parallel()
	deep := strings.Repeat("d/", limits.DirectoryDepth.Max())
	for _, test := range []struct {
		name    string
		limit   limits.Limit
		text    string // with a number
		correct int    // how many less make the limit
	}{
		{"dependencies", limits.Dependencies, `{{ range $i := loop %d }}{{ with secret (printf "kv/%%d" $i) }}{{ end }}{{ end }}`, 0},
		{"files", limits.Files, `{{ range $i := loop %d }}{{ "x" | writeToFile (printf "f%%d" $i) "" "" "0644" }}{{ end }}`, 0},
		{"directories", limits.Directories, `{{ range $i := loop %d }}{{ "x" | writeToFile (printf "d%%d/` + strings.Repeat("d/", 9) + `f" $i) "" "" "0644" }}{{ end }}`, limits.Directories.Max() * 9 / 10},
		{"depth", limits.DirectoryDepth, `{{ "x" | writeToFile (print "` + deep + `" (sprig_repeat (sprig_int (sprig_sub %d 16)) "d/") "f") "" "" "0644" }}`, 0},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			n := test.limit.Max() - test.correct
			result, err := Execute(Template{Text: fmt.Sprintf(test.text, n)}, nil)
			if err != nil {
				t.Fatalf("at the limit: %v", err)
			}
			if err := CheckResult(Template{Text: fmt.Sprintf(test.text, n)}, result); err != nil {
				t.Errorf("at the limit: %v", err)
			}
			_, err = Execute(Template{Text: fmt.Sprintf(test.text, n+1)}, nil)
			if !errors.Is(err, ErrInvalid) || !strings.Contains(fmt.Sprint(err), "("+test.limit.String()+")") {
				t.Errorf("one above the limit: %v", err)
			}
		})
	}
}

// The limits hold for what a process returns as well.
func TestResultOverALimit(t *testing.T) {
	t.Parallel()
	var files Result
	for i := range limits.Files.Max() + 1 {
		files.Files = append(files.Files, WrittenFile{Path: fmt.Sprint(i)})
	}
	many := Result{Used: make([]Dependency, limits.Dependencies.Max()+1)}
	for name, result := range map[string]Result{"(files)": files, "(dependencies)": many} {
		if err := CheckResult(Template{Text: "x"}, result); !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), name) {
			t.Errorf("got %v, want %s", err, name)
		}
	}
}

// Not parallel: it counts what the whole process allocates.
func TestCheckResultIsLinear(t *testing.T) {
	for name, unit := range map[string][3]string{
		"writes":   {"", `{{secret . "a=1"}}`, ""},
		"literals": {"{{secret .", ` "a=1"`, "}}"},
		"files":    {"", `{{writeToFile . "1" "2" "3" .}}`, ""},
		"open":     {"", `secret "`, ""},
		"escapes":  {"secret \"", `\"secret `, ""},
		"raw":      {"", "secret `", ""},
		"blanks":   {"", "secret    ", ""},
	} {
		t.Run(name, func(t *testing.T) {
			count := (limits.TemplateBytes.Max() - len(unit[0]) - len(unit[2])) / len(unit[1])
			given := Template{Text: unit[0] + strings.Repeat(unit[1], count) + unit[2]}
			var hostile Result
			for i := range limits.Dependencies.Max() {
				hostile.Missing = append(hostile.Missing, NewWrite(fmt.Sprint(i), map[string]string{"a": "1", "b": "2"}))
			}
			for i := range limits.Files.Max() {
				hostile.Files = append(hostile.Files, WrittenFile{Path: fmt.Sprint(i)})
			}
			cost.Assert(t, len(given.Text), func() {
				if err := CheckResult(given, hostile); !errors.Is(err, ErrNotAsked) {
					t.Errorf("got %v", err)
				}
			})
		})
	}
}
