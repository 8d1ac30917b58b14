// Command textlint checks the text of the repository against .ci/words, and the length of its
// Go files. It prints one line for each finding and fails if there is one. It knows no Go but
// identifiers: golangci-lint checks the rest.
//
//	go run ./textlint ROOT
package main

import (
	"bufio"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// maxFileLines is the longest Go file of the product.
const maxFileLines = 500

func main() {
	flag.Parse()
	findings, err := run(flag.Arg(0))
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(2)
	}
	for _, finding := range findings {
		fmt.Println(finding)
	}
	if len(findings) > 0 {
		os.Exit(1)
	}
}

func run(root string) ([]string, error) {
	text, err := os.ReadFile(filepath.Join(root, ".ci/words"))
	if err != nil {
		return nil, err
	}
	words, err := parseWords(string(text))
	if err != nil {
		return nil, err
	}
	var findings []string
	err = filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name, err := filepath.Rel(root, path)
		if err != nil {
			return err
		}
		if entry.IsDir() {
			if isIgnoredDirectory(entry.Name()) || words.skip(name) {
				return filepath.SkipDir
			}
			return nil
		}
		if !isText(name) || words.skip(name) {
			return nil
		}
		lines, err := readLines(path)
		if err != nil {
			return err
		}
		findings = append(findings, words.check(name, lines)...)
		if isProduct(name) && len(lines) > maxFileLines {
			findings = append(findings, fmt.Sprintf("%s: %d lines; a file has at most %d", name, len(lines), maxFileLines))
		}
		return nil
	})
	return findings, err
}

func isIgnoredDirectory(name string) bool {
	return slices.Contains([]string{".git", ".build", "testdata"}, name)
}

func isText(name string) bool {
	base := filepath.Base(name)
	return slices.Contains([]string{".go", ".md", ".yaml", ".tpl", ".txt", ".sh", ".json", ".svg", ".yml"}, filepath.Ext(name)) ||
		slices.Contains([]string{"Makefile", "Dockerfile", "run"}, base)
}

// isProduct is true of Go files that are linked into the binary.
func isProduct(name string) bool {
	top, _, _ := strings.Cut(name, "/")
	return slices.Contains([]string{"cmd", "driver", "provider"}, top) && strings.HasSuffix(name, ".go") && !strings.HasSuffix(name, "_test.go")
}

func readLines(path string) ([]string, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	var lines []string
	scanner := bufio.NewScanner(file)
	scanner.Buffer(nil, 16<<20)
	for scanner.Scan() {
		lines = append(lines, scanner.Text())
	}
	return lines, scanner.Err()
}
