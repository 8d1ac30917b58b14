package provider

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"slices"

	render "github.com/vaultmount/vaultmount/provider/template"
)

// render renders every output, asking Vault for what the answers lack, and returns which
// queries the templates use. previews are nil, or what each output came to without an
// answer.
func (v *volume) render(ctx context.Context, a *access, previews []render.Result, held heldBack) ([]RenderedFile, map[render.Dependency]bool, error) {
	known := v.answers.forRenderer(held)
	a.knowsSecret = v.answers.holdSecret()
	results := previews
	for _, preview := range previews {
		for _, query := range preview.Missing {
			a.firstPass[query] = true
		}
	}
	for range maxRounds {
		if results == nil {
			var err error
			if results, err = v.provider.renderAll(ctx, v.outputs, v.size, known); err != nil {
				return nil, nil, err
			}
		}
		complete, err := v.fetchMissing(ctx, a, results, known)
		if err != nil {
			return nil, nil, err
		}
		if complete {
			contents, used := v.contents(a, results)
			return contents, used, nil
		}
		results = nil
	}
	return nil, nil, fmt.Errorf("%w: its secrets name each other more than %d levels deep", ErrTemplate, maxRounds)
}

// renderAll executes the templates of all outputs once. The result of the token's file is
// empty.
func (p *Provider) renderAll(ctx context.Context, outputs []FileSpec, size int64, known render.Values) ([]render.Result, error) {
	templates := make([]render.Template, 0, len(outputs))
	for _, output := range outputs {
		if !output.Token {
			templates = append(templates, output.Template)
		}
	}
	executed, err := p.renderer.Render(ctx, templates, known)
	if err != nil {
		return nil, err
	}
	results, kept := make([]render.Result, len(outputs)), fill{size: size}
	for i, output := range outputs {
		if output.Token {
			continue
		}
		results[i], executed = executed[0], executed[1:]
		if err := kept.add(results[i].Output, results[i].Files); err != nil {
			return nil, &FileError{Name: output.Template.Name, Err: err}
		}
	}
	return results, nil
}

// contents are those of results that lack nothing, and the queries that they used.
func (v *volume) contents(a *access, results []render.Result) ([]RenderedFile, map[render.Dependency]bool) {
	contents, used := make([]RenderedFile, len(results)), map[render.Dependency]bool{}
	for i, result := range results {
		if v.outputs[i].Token {
			contents[i], v.shown = RenderedFile{Content: []byte(a.grant.Token.Secret)}, a.grant.Serial
			continue
		}
		for _, query := range result.Used {
			used[query] = true
		}
		contents[i] = RenderedFile{Content: result.Output, Written: result.Files}
	}
	return contents, used
}

// fetchMissing asks Vault for what the results lack. It writes only when all that is read
// is known: nothing else can fail any more then.
func (v *volume) fetchMissing(ctx context.Context, a *access, results []render.Result, known render.Values) (complete bool, err error) {
	var asked []render.Dependency
	for _, result := range results {
		asked = append(asked, result.Missing...)
	}
	if len(asked) == 0 {
		return true, nil
	}
	failed := v.gather(ctx, a, asked, known)
	writes := !slices.ContainsFunc(asked, render.Dependency.Reads)
	for i, result := range results {
		for _, query := range result.Missing {
			err := failed[query]
			if _, have := known[query]; err == nil && writes && !have {
				err = v.askOne(ctx, a, query, known)
			}
			if err != nil {
				return false, &FileError{Name: v.outputs[i].Template.Name, Err: err}
			}
		}
	}
	return false, nil
}

// askOne asks one query that is written.
func (v *volume) askOne(ctx context.Context, a *access, query render.Dependency, known render.Values) error {
	fresh := a.newAnswer(query)
	err := a.checkDependencies(1)
	if err == nil {
		var said reply
		if said, err = a.ask(ctx, fresh); err == nil {
			a.learn(fresh, said, known)
			return nil
		}
	}
	return fresh.conceal(err)
}

// maxRounds bounds how deep a template may compute paths from secrets that it
// has read before: each round answers one more level.
const maxRounds = 16

// fill is how much of a volume its files take so far.
type fill struct{ used, size int64 }

// add counts a file and those that its template writes. The renderer bounds each; without
// a bound on their sum, five hundred files of some MiB would be in memory at one time.
func (f *fill) add(content []byte, written []WrittenFile) error {
	f.used += int64(len(content))
	for _, file := range written {
		f.used += int64(len(file.Content))
	}
	if f.size > 0 && f.used > f.size {
		return fmt.Errorf("%w: with those before it they have %d bytes, and the size is %d; raise the attribute size", ErrFull, f.used, f.size)
	}
	return nil
}

// digest tells one set of contents from another.
func digest(contents []RenderedFile) [sha256.Size]byte {
	h := sha256.New()
	add := func(part []byte, numbers ...int64) {
		_ = binary.Write(h, binary.BigEndian, append(numbers, int64(len(part)))) // a hash takes everything
		h.Write(part)
	}
	for _, output := range contents {
		add(output.Content)
		for _, file := range output.Written {
			add([]byte(file.Path), -1, int64(file.UID), int64(file.GID), int64(file.Perms))
			add(file.Content)
		}
	}
	return [sha256.Size]byte(h.Sum(nil))
}
