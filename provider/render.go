package provider

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/vaultmount/vaultmount/provider/template"
	"github.com/vaultmount/vaultmount/provider/vault"
)

const (
	// maxPasses limits how deep templates may compute paths from secrets: each pass
	// fetches one more level.
	maxPasses = 16
	// maxAttempts limits how often the files are rendered to find candidates that fit.
	maxAttempts = 16
)

// execute runs all templates once. The result of a token's file is empty.
func (v *Volume) execute(ctx context.Context, values template.Values) ([]template.Result, error) {
	if ctx.Err() != nil {
		return nil, fmt.Errorf("render the files: %w", ctx.Err())
	}
	var templates []template.Template
	for _, file := range v.files {
		if !file.Token {
			templates = append(templates, file.Template)
		}
	}
	executed, err := v.manager.renderer.Render(ctx, templates, values)
	if err != nil {
		return nil, err
	}
	results, total := make([]template.Result, len(v.files)), int64(0)
	for i, file := range v.files {
		if file.Token {
			continue
		}
		results[i], executed = executed[0], executed[1:]
		total += int64(len(results[i].Output))
		for _, written := range results[i].Files {
			total += int64(len(written.Content))
		}
		if v.size > 0 && total > v.size {
			err := fmt.Errorf("%w: with those before it they have %d bytes, and the size is %d; raise the attribute size", ErrFull, total, v.size)
			return nil, &FileError{Name: file.Template.Name, Err: err}
		}
	}
	return results, nil
}

// render renders all files, and fetches what the templates lack. results are those of a
// first pass, nil for none. It returns which dependencies the templates use.
func (p *fetchPass) render(ctx context.Context, results []template.Result, rejected rejections) ([]RenderedFile, map[template.Dependency]bool, error) {
	values := p.volume.deps.values(rejected)
	for _, value := range values {
		p.origin.hasValues = p.origin.hasValues || value.Secret != nil
	}
	for range maxPasses {
		if results == nil {
			var err error
			if results, err = p.volume.execute(ctx, values); err != nil {
				return nil, nil, err
			}
		}
		missing, names := p.missing(results)
		if len(missing) == 0 {
			files, used := p.complete(results)
			return files, used, nil
		}
		if err := p.fetchMissing(ctx, missing, names, values); err != nil {
			return nil, nil, err
		}
		results = nil
	}
	return nil, nil, fmt.Errorf("%w: its secrets name each other more than %d levels deep", ErrTemplate, maxPasses)
}

// missing returns what results lack, each with the name of the first file that needs it.
func (p *fetchPass) missing(results []template.Result) (missing []*dependency, names []string) {
	known := map[template.Dependency]bool{}
	for i, result := range results {
		for _, key := range result.Missing {
			if !known[key] {
				known[key] = true
				missing = append(missing, &dependency{Key: key, IsSensitive: p.origin.isSensitive(key)})
				names = append(names, p.volume.files[i].Template.Name)
			}
		}
	}
	return missing, names
}

// complete returns the files of results that lack nothing.
func (p *fetchPass) complete(results []template.Result) ([]RenderedFile, map[template.Dependency]bool) {
	files, used := make([]RenderedFile, len(results)), map[template.Dependency]bool{}
	for i, result := range results {
		if p.volume.files[i].Token {
			files[i].Content = []byte(p.token.Token.Secret)
			p.volume.FileGeneration = p.token.Generation
			continue
		}
		for _, key := range result.Used {
			used[key] = true
		}
		files[i] = RenderedFile{Content: result.Output, Written: result.Files}
	}
	return files, used
}

// fetchMissing reads what is missing. Only when there is nothing left to read, it writes:
// nothing else can fail then, and Vault may issue something for a write.
func (p *fetchPass) fetchMissing(ctx context.Context, missing []*dependency, names []string, values template.Values) error {
	if err := p.checkDependencies(len(missing)); err != nil {
		return &FileError{Name: names[len(names)-1], Err: err}
	}
	reads := func(d *dependency) bool { return d.Key.Reads() }
	onlyReads := slices.ContainsFunc(missing, reads)
	var fetches []*dependency
	var fetchNames []string
	for i, each := range missing {
		if !onlyReads || reads(each) {
			fetches, fetchNames = append(fetches, each), append(fetchNames, names[i])
		}
	}
	var failure error
	for i, result := range p.fetch(ctx, fetches) {
		each := fetches[i]
		switch {
		case result.err == nil:
			each.setValue(result, p.volume.manager, p.volume.policy)
			p.volume.deps[each.Key], values[each.Key] = each, each.Value
			p.added++
			p.origin.hasValues = p.origin.hasValues || each.Value.Secret != nil
		case failure != nil:
		case errors.As(result.err, new(*tokenError)):
			failure = result.err // no file is the cause
		default:
			failure = &FileError{Name: fetchNames[i], Err: each.redact(result.err)}
		}
	}
	return failure
}

// rejections are candidates that the files are not made of, with the reason. The files are
// made of their accepted values.
type rejections map[*dependency]error

func (r rejections) add(group []*dependency, reason error) {
	for _, each := range group {
		r[each] = reason
	}
}

// sinkError is about content that could not be written.
type sinkError struct{ err error }

func (e *sinkError) Error() string { return fmt.Sprintf("write the refreshed files: %v", e.err) }
func (e *sinkError) Unwrap() error { return e.err }

// rewrite makes the files of the last values. A candidate that does not fit is rejected,
// so that all others are written: new credentials above all, since those in the files
// expire. What was fetched is saved first: otherwise, a credential is lost if the process
// is killed.
func (p *fetchPass) rewrite(ctx context.Context) error {
	p.volume.save()
	err := p.writeInTime(ctx)
	if !isAboutContent(ctx, err) {
		return err
	}
	rejected, candidates := rejections{}, p.volume.deps.candidates()
	rejected.add(candidates, err)
	if len(candidates) == 0 || p.write(ctx, rejected) != nil {
		return err
	}
	attempts := maxAttempts
	p.admitHalves(ctx, candidates, rejected, &attempts)
	return p.reject(rejected)
}

// writeInTime leaves half of the time for the accepted values: a candidate may be the path
// of what hangs.
func (p *fetchPass) writeInTime(ctx context.Context) error {
	if deadline, ok := ctx.Deadline(); ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, time.Until(deadline)/2)
		defer cancel()
	}
	return p.write(ctx, nil)
}

// write replaces the files, and notes which values they are made of.
func (p *fetchPass) write(ctx context.Context, rejected rejections) error {
	files, used, err := p.render(ctx, nil, rejected)
	if err != nil {
		return err
	}
	if err := p.volume.sink.Replace(files); err != nil {
		return &sinkError{err}
	}
	p.volume.IsDirty = false
	p.volume.deps.accept(used, rejected, p.volume.manager.now())
	return nil
}

// isAboutContent reports whether files may be written of other values. They may not if
// there is no token, or if the volume or the process ends.
func isAboutContent(ctx context.Context, err error) bool {
	return err != nil && ctx.Err() == nil && !errors.As(err, new(*tokenError)) && !errors.Is(err, vault.ErrTokenGone) && !errors.Is(err, ErrClosed)
}

// candidates returns those with an accepted value besides. What Vault has issued comes
// first: it expires.
func (ds dependencies) candidates() []*dependency {
	var issued, static []*dependency
	for _, each := range ds.sorted() {
		switch {
		case !each.IsCandidate || each.Accepted == nil:
		case each.isStatic():
			static = append(static, each)
		default:
			issued = append(issued, each)
		}
	}
	return append(issued, static...)
}

// admitHalves writes the files with the candidates of a group that fit.
func (p *fetchPass) admitHalves(ctx context.Context, group []*dependency, rejected rejections, attempts *int) {
	half := (len(group) + 1) / 2
	for _, part := range [][]*dependency{group[:half], group[half:]} {
		if len(part) == 0 || len(part) == len(rejected) || *attempts == 0 || ctx.Err() != nil {
			continue // with all that is rejected, the files were rendered before
		}
		*attempts--
		reason := rejected[part[0]]
		for _, each := range part {
			delete(rejected, each)
		}
		err := p.write(ctx, rejected)
		if err == nil {
			continue
		}
		if isAboutContent(ctx, err) {
			reason = err
		}
		rejected.add(part, reason)
		if len(part) > 1 {
			p.admitHalves(ctx, part, rejected, attempts)
		}
	}
}

// reject notes why candidates are rejected. Static ones are read again soon, since
// somebody may correct them, and all at one time: each attempt renders all files. The
// error is about what is tried again without a request: what Vault has issued, and what
// does not fit into the volume.
func (p *fetchPass) reject(rejected rejections) (again error) {
	now := p.volume.manager.now()
	var static []*dependency
	var until bootTime
	for _, each := range p.volume.deps.sorted() {
		reason := rejected[each]
		if reason == nil {
			continue
		}
		isFull := errors.As(reason, new(*sinkError))
		if !isFull && each.Misfit.until <= now {
			each.Misfit.fail(reason, now, 0, p.volume.manager.jitter)
		}
		if isFull || !each.isStatic() {
			again = firstError(again, reason)
		} else if each.Retry.err == nil {
			static, until = append(static, each), max(until, each.Misfit.until)
		}
	}
	for _, each := range static {
		each.Misfit.until, each.Due = until, until
	}
	p.volume.IsDirty = again != nil
	return again
}
