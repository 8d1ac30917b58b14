// Command table prints what tests counted, out of the JSON of their runs, and
// copies it into a document. It fails if anything was lost, or nothing was tried.
package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"

	"github.com/vaultmount/vaultmount/test/tally"
)

func main() {
	into := flag.String("into", "", "Markdown file to copy the table into, between its marks")
	name := flag.String("name", "conformance", "name of these marks")
	flag.Parse()
	if err := run(*into, *name, flag.Args(), os.Stdout); err != nil {
		fmt.Fprintf(os.Stderr, "table: %v\n", err)
		os.Exit(1)
	}
}

func run(into, name string, outputs []string, out io.Writer) error {
	var readers []io.Reader
	for _, path := range outputs {
		file, err := os.Open(path)
		if err != nil {
			return err
		}
		defer file.Close()
		readers = append(readers, file)
	}
	lines, err := tally.Read(io.MultiReader(readers...))
	if err != nil {
		return err
	}
	table := tally.Markdown(lines)
	if _, err := io.WriteString(out, table); err != nil {
		return err
	}
	return errors.Join(copyInto(into, name, table), check(lines))
}

func copyInto(path, name, table string) error {
	if path == "" {
		return nil
	}
	document, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	text, err := tally.Insert(string(document), name, table)
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return os.WriteFile(path, []byte(text), 0o644)
}

func check(lines []tally.Line) error {
	if len(lines) == 0 {
		return errors.New("nothing was tried")
	}
	for _, line := range lines {
		if line.Lost > 0 {
			return fmt.Errorf("%s: %d lost", line.Item, line.Lost)
		}
	}
	return nil
}
