package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/spf13/cobra"

	"github.com/vaultmount/vaultmount/driver/injector"
	"github.com/vaultmount/vaultmount/driver/manifest"
	"github.com/vaultmount/vaultmount/driver/volume"
	"github.com/vaultmount/vaultmount/provider/limits"
	"github.com/vaultmount/vaultmount/provider/template"
)

type translateOptions struct {
	translatorOptions

	files []string
	check bool
}

func newTranslateCommand() *cobra.Command {
	var options translateOptions
	command := &cobra.Command{
		Use:   "translate -f FILE|DIRECTORY|-",
		Short: "Translate the Vault Agent Injector's annotations in manifests into volumes",
		Long: `Translate the Vault Agent Injector's annotations in manifests into vaultmount
volumes, for clusters without an admission component and for CI. The output
can be applied as it is. Documents without a pod are printed unchanged. Warnings
and errors go to standard error, and an error makes the exit status 1. The command
also checks templates, as the driver does when a pod starts, and reports volumes
of the driver without readOnly: true. A pod with YAML aliases must be expanded
first, for example with yq 'explode(.)'. Each file, and standard input, may have
16 MiB.`,
		Example: `  vaultmount translate -f deployment.yaml | kubectl apply -f -
  helm template ./chart | vaultmount translate -f - > translated.yaml
  vaultmount translate --check -f manifests/`,
		Args: cobra.NoArgs,
		RunE: func(command *cobra.Command, _ []string) error {
			return options.run(command.InOrStdin(), command.OutOrStdout(), command.ErrOrStderr())
		},
	}
	flags := command.Flags()
	flags.SortFlags = false
	flags.StringArrayVarP(&options.files, "filename", "f", nil, "file, directory (its .yaml, .yml and .json files), or - for standard input; repeatable (required)")
	flags.BoolVar(&options.check, "check", false, "print only warnings and errors")
	options.addFlags(flags)
	return command
}

// errRefused: standard error has the details already.
var errRefused = errors.New("some pods cannot be translated; see above")

func (o *translateOptions) run(stdin io.Reader, stdout, stderr io.Writer) error {
	translator, err := o.translator()
	if err != nil {
		return err
	}
	translator.CheckTemplate = checkTemplate
	paths, err := o.paths()
	if err != nil {
		return err
	}
	refused := false
	separator := ""
	for _, path := range paths {
		result, err := translate(translator, path, stdin)
		if err != nil {
			return err
		}
		for _, diagnostic := range result.Diagnostics {
			fmt.Fprintf(stderr, "%s: %s\n", path, diagnostic)
		}
		refused = refused || result.HasErrors()
		if err := o.print(stdout, separator, result.Text); err != nil {
			return err
		}
		separator = separatorAfter(result.Text)
	}
	if refused {
		return errRefused
	}
	return nil
}

// paths are the files to read, those of a directory in the order of their names.
func (o *translateOptions) paths() ([]string, error) {
	if len(o.files) == 0 {
		return nil, errors.New("-f is missing; name a file, a directory, or - for standard input")
	}
	var paths []string
	for _, name := range o.files {
		if name == "-" {
			paths = append(paths, name)
			continue
		}
		found, err := manifests(name)
		if err != nil {
			return nil, err
		}
		if len(found) == 0 {
			return nil, fmt.Errorf("directory %s holds no .yaml, .yml or .json file", name)
		}
		paths = append(paths, found...)
	}
	return paths, nil
}

func manifests(name string) ([]string, error) {
	var found []string
	err := filepath.WalkDir(name, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		if path == name || slices.Contains([]string{".yaml", ".yml", ".json"}, filepath.Ext(path)) {
			found = append(found, path)
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("find manifests: %w", err)
	}
	return found, nil
}

// checkTemplate is what the driver does with a template when a pod starts. Here it may
// parse the text itself, since whoever runs the command wrote it.
func checkTemplate(file volume.File, text, mountPath string) error {
	return template.Check(template.Template{
		Name: file.Path, Text: text, LeftDelim: file.LeftDelim, RightDelim: file.RightDelim, Pod: template.Pod{MountPath: mountPath},
	})
}

func translate(translator injector.Translator, path string, stdin io.Reader) (manifest.Result, error) {
	input := stdin
	if path != "-" {
		file, err := os.Open(path)
		if err != nil {
			return manifest.Result{}, fmt.Errorf("read manifest: %w", err)
		}
		defer file.Close()
		input = file
	}
	// One byte above the limit shows that it is exceeded.
	text, err := io.ReadAll(io.LimitReader(input, int64(limits.ManifestBytes.Max())+1))
	if err != nil {
		return manifest.Result{}, fmt.Errorf("read manifest: %w", err)
	}
	result, err := manifest.Translate(translator, text)
	if err != nil {
		return manifest.Result{}, fmt.Errorf("%s: %w", path, err)
	}
	return result, nil
}

func (o *translateOptions) print(stdout io.Writer, separator string, text []byte) error {
	if o.check {
		return nil
	}
	if _, err := io.WriteString(stdout, separator); err != nil {
		return err
	}
	_, err := stdout.Write(text)
	return err
}

// separatorAfter begins a line of its own: at the end of another one it would be
// part of that line's value.
func separatorAfter(text []byte) string {
	if len(text) > 0 && text[len(text)-1] != '\n' {
		return "\n---\n"
	}
	return "---\n"
}
