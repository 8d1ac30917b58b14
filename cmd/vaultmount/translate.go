package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

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
and errors go to standard error. The exit status is 1 after an error, and 2 for a wrong
flag or a file that cannot be read: --check continues with the next one. The command
also checks templates, as the driver does when a pod starts, and reports volumes
of the driver without readOnly: true. A pod with YAML aliases must be expanded
first, for example with yq 'explode(.)'. Each file, and standard input, may have
16 MiB.`,
		Example: `  vaultmount translate -f deployment.yaml | kubectl apply -f -
  helm template ./chart | vaultmount translate -f - > translated.yaml
  vaultmount translate --check -f manifests/`,
		Args: func(_ *cobra.Command, arguments []string) error {
			if len(arguments) > 0 {
				return fmt.Errorf("unknown argument %q; use -f %s", arguments[0], arguments[0])
			}
			return nil
		},
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

// errUnreadable is the same for files, of which --check reads the others as well.
var errUnreadable = errors.New("some files cannot be read; see above")

func (o *translateOptions) run(stdin io.Reader, stdout, stderr io.Writer) error {
	translator, err := o.translator()
	if err != nil {
		return usageError{err}
	}
	translator.CheckTemplate = checkTemplate
	paths, err := o.paths()
	if err != nil {
		return usageError{err}
	}
	refused, unreadable := false, false
	separator := ""
	for _, path := range paths {
		result, err := translate(translator, path, stdin)
		if err != nil && !o.check {
			return usageError{err}
		}
		if err != nil {
			fmt.Fprintf(stderr, "error: %s\n", err)
			unreadable = true
			continue
		}
		for _, diagnostic := range result.Diagnostics {
			fmt.Fprintf(stderr, "%s: %s\n", path, diagnostic)
		}
		refused = refused || result.HasErrors()
		if err := o.print(stdout, separator, result.Text); err != nil {
			return usageError{err}
		}
		separator = separatorAfter(result.Text)
	}
	switch {
	case unreadable:
		return usageError{errUnreadable}
	case refused:
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

// translatorOptions are the settings of a translation. The webhook and the command
// have the same, so that what CI says of a manifest holds in the cluster.
type translatorOptions struct {
	settings injector.Translator
	fallback string
	format   string

	setSecurityContext bool
}

// addSecurityContextFlag is for the driver as well, which translates volumes that
// hold annotations.
func addSecurityContextFlag(flags *pflag.FlagSet, value *bool) {
	flags.BoolVar(value, "agent-set-security-context", true, "default of the annotation: true for files owned by 100:1000, false for files owned by the pod's user, as the injector does on OpenShift")
}

func (o *translatorOptions) addFlags(flags *pflag.FlagSet) {
	flags.StringVar(&o.settings.Prefix, "annotation-prefix", injector.DefaultPrefix, "prefix of the annotations, with the slash")
	flags.StringVar(&o.settings.Driver, "driver-name", injector.DefaultDriver, "name of the CSIDriver object")
	flags.StringVar(&o.fallback, "fallback", string(injector.FallbackReject), "what to do with a pod that cannot be translated in full: reject, leave-to-injector, or warn")
	flags.StringVar(&o.settings.Address, "vault-address", "", "URL of the driver's Vault; pods that name the same URL get no address attribute")
	flags.StringVar(&o.settings.AuthPath, "auth-path", "", "auth-path for pods without one; empty means auth/kubernetes")
	flags.StringVar(&o.format, "default-template", string(volume.Map), "built-in template for pods without one: map or json")
	flags.StringArrayVar(&o.settings.Audiences, "audience", nil, "audience in the CSIDriver's tokenRequests, empty for the API server's; repeatable; other audiences are refused; without the flag the driver decides when the pod starts")
	flags.BoolVar(&o.settings.ForbidSkipVerify, "forbid-tls-skip-verify", false, "refuse tls-skip-verify; set it if the driver has the same flag")
	flags.BoolVar(&o.settings.ForbidToken, "forbid-token-file", false, "refuse agent-inject-token; set it if the driver has the same flag")
	flags.BoolVar(&o.settings.AllowQuit, "allow-quit", false, "warn about agent-enable-quit instead of refusing it")
	flags.BoolVar(&o.settings.AllowUnknownPerms, "allow-unknown-perms", false, "warn about agent-inject-perms-X without a file X instead of refusing it")
	addSecurityContextFlag(flags, &o.setSecurityContext)
}

func (o *translatorOptions) translator() (injector.Translator, error) {
	settings := o.settings
	settings.NoSecurityContext = !o.setSecurityContext
	settings.Fallback = injector.Fallback(o.fallback)
	known := []injector.Fallback{injector.FallbackReject, injector.FallbackLeave, injector.FallbackWarn}
	if !slices.Contains(known, settings.Fallback) {
		return settings, fmt.Errorf("--fallback %q is unknown; use one of %q", o.fallback, known)
	}
	settings.DefaultTemplate = volume.Format(o.format)
	if formats := []volume.Format{volume.Map, volume.JSON}; !slices.Contains(formats, settings.DefaultTemplate) {
		return settings, fmt.Errorf("--default-template %q is unknown; use one of %q", o.format, formats)
	}
	if name, ok := strings.CutSuffix(settings.Prefix, "/"); !ok || name == "" || strings.Contains(name, "/") {
		return settings, fmt.Errorf("--annotation-prefix %q is not a prefix of annotations; write it like %s", settings.Prefix, injector.DefaultPrefix)
	}
	if settings.Driver == "" {
		return settings, fmt.Errorf("--driver-name is empty; omit it for %s", injector.DefaultDriver)
	}
	if address := settings.Address; address != "" {
		parsed, err := url.Parse(address)
		if err != nil || parsed.Host == "" || parsed.Scheme != "https" && parsed.Scheme != "http" {
			return settings, fmt.Errorf("--vault-address %q is not a URL; write it like https://vault.vault.svc:8200", address)
		}
	}
	if settings.AuthPath != "" {
		// The driver's own parser judges, here and not at each pod.
		if _, err := volume.Parse(map[string]string{"role": "any", "secret/any": "any", "auth-path": settings.AuthPath}); err != nil {
			return settings, fmt.Errorf("--auth-path: %w", err)
		}
	}
	return settings, nil
}
