package provider

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"fmt"

	render "github.com/vaultmount/vaultmount/provider/template"
)

// render renders every output, asking Vault for what the answers lack, and returns which
// queries the templates use. previews are nil, or what each output came to without an
// answer.
func (v *volume) render(ctx context.Context, a *access, previews []render.Result, held heldBack) ([]RenderedFile, map[render.Query]bool, error) {
	known := v.answers.forRenderer(held)
	a.knowsSecret = v.answers.holdSecret()
	if err := v.prefetch(ctx, a, previews, known); err != nil {
		return nil, nil, err
	}
	used := map[render.Query]bool{}
	contents, kept := make([]RenderedFile, len(v.outputs)), fill{size: v.size}
	for i, output := range v.outputs {
		if ctx.Err() != nil {
			return nil, nil, fmt.Errorf("render the files: %w", ctx.Err())
		}
		if output.Token {
			contents[i], v.shown = RenderedFile{Content: []byte(a.grant.Token.Secret)}, a.grant.Serial
			continue
		}
		var preview *render.Result
		if previews != nil {
			preview = &previews[i]
		}
		content, err := v.renderOne(ctx, a, output.Template, preview, known, used)
		if err == nil {
			err = kept.add(content.Content, content.Written)
		}
		if err != nil {
			return nil, nil, &FileError{Name: output.Template.Name, err: err}
		}
		contents[i] = content
	}
	return contents, used, nil
}

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

// round runs a template with the answers at hand, unless a preview has shown what
// it lacks.
func (v *volume) round(ctx context.Context, t render.Template, preview *render.Result, known render.Answers) (render.Result, error) {
	if preview != nil {
		return *preview, nil
	}
	return v.provider.render(ctx, t, known)
}

// render fills in what is plain, and leaves the rest to the renderer: a trip to a
// confined process is a good part of the time that a pod waits for its secrets.
func (p *Provider) render(ctx context.Context, t render.Template, known render.Answers) (render.Result, error) {
	if filled, plain := render.Fill(t, known); plain {
		return filled, nil
	}
	return p.renderer.Render(ctx, t, known)
}

// maxRounds bounds how deep a template may compute paths from secrets that it
// has read before: each round answers one more level.
const maxRounds = 16

// renderOne renders until nothing is missing. A round without an answer to give
// it a path may ask for less than the next.
func (v *volume) renderOne(ctx context.Context, a *access, t render.Template, preview *render.Result, known render.Answers, used map[render.Query]bool) (RenderedFile, error) {
	for range maxRounds {
		result, err := v.round(ctx, t, preview, known)
		if err != nil {
			return RenderedFile{}, err
		}
		preview = nil // it is the first round, if there is one
		if len(result.Missing) == 0 {
			for _, query := range result.Used {
				used[query] = true
			}
			return RenderedFile{Content: result.Output, Written: result.Files}, nil
		}
		failed := v.gather(ctx, a, result.Missing, known)
		for _, query := range result.Missing {
			if _, have := known[query]; have {
				continue // this round or another file has asked
			}
			fresh, said, err := a.newAnswer(query), reply{}, failed[query]
			if err == nil {
				err = a.checkDependencies(1)
			}
			if err == nil {
				said, err = a.ask(ctx, fresh)
			}
			if err != nil {
				return RenderedFile{}, fresh.conceal(err)
			}
			a.learn(fresh, said, known)
		}
	}
	return RenderedFile{}, fmt.Errorf("%w: its secrets name each other more than %d levels deep", ErrTemplate, maxRounds)
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
