// Package canary looks for what must be nowhere: values that a test has planted as
// secrets, and whatever has the form of a Vault token or of a service-account
// token. Logs, errors, Events, metrics, status pages and files are all compared with
// the same list.
//
// It never prints what it finds, only what kind of thing it was and where.
package canary

import (
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// forms are what tokens look like, whoever made them.
var forms = map[string]*regexp.Regexp{
	"a service-account token": regexp.MustCompile(`eyJ[A-Za-z0-9_-]{10,}`),
	"a Vault token":           regexp.MustCompile(`hv[sb]\.[A-Za-z0-9_-]{10,}`),
}

// Canaries are planted values by what they are.
type Canaries map[string]string

// Find names what a text holds, nothing if it holds none.
func (c Canaries) Find(text string) []string {
	var found []string
	for _, name := range slices.Sorted(maps.Keys(c)) {
		if strings.Contains(text, c[name]) {
			found = append(found, name)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(forms)) {
		if forms[name].MatchString(text) {
			found = append(found, name)
		}
	}
	return found
}

// RequireNone fails the test if a text holds a canary; and if the text is empty,
// since then it proves nothing.
func (c Canaries) RequireNone(t testing.TB, where, text string) {
	t.Helper()
	if text == "" {
		t.Errorf("the %s is empty, so it proves nothing", where)
	}
	for name, value := range c {
		if len(value) < 4 {
			t.Fatalf("the canary %s is too short to be one", name)
		}
	}
	for _, name := range c.Find(text) {
		t.Errorf("the %s holds %s", where, name)
	}
}

// RequireNoneBelow fails the test if a file below a directory holds a canary. Files
// in the directories that are excepted are where secrets belong; one of them must
// hold one, or the search proves nothing. It returns how many files it read.
func (c Canaries) RequireNoneBelow(t testing.TB, directory string, except ...string) (files int) {
	t.Helper()
	belongs := 0
	err := filepath.WalkDir(directory, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || !entry.Type().IsRegular() {
			return err
		}
		content, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		files++
		inside := slices.ContainsFunc(except, func(place string) bool { return strings.HasPrefix(path, place+"/") })
		for _, name := range c.Find(string(content)) {
			if inside {
				belongs++
				continue
			}
			t.Errorf("%s holds %s", path, name)
		}
		return nil
	})
	if err != nil {
		t.Error(fmt.Errorf("look for canaries: %w", err))
	}
	if len(except) > 0 && belongs == 0 {
		t.Error("no canary is where it belongs, so the search proves nothing")
	}
	return files
}
