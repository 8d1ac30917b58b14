// Package provider turns what a volume asks for into files: it opens a session
// with Vault, reads what the templates need, renders them, and closes the session
// when the volume is gone.
//
// It never touches the file system: where the files go is the driver's business.
package provider

import (
	"context"
	"fmt"
	"sync"

	"k8s.io/klog/v2"

	"github.com/vaultmount/vaultmount/provider/render"
	"github.com/vaultmount/vaultmount/provider/vault"
)

// The kinds of failure of Open, for errors.Is.
var (
	// ErrTemplate is a template that no data can make good.
	ErrTemplate = render.ErrInvalid
	// ErrData is a template that does not fit the secrets it names.
	ErrData = render.ErrData
	// ErrInvalid is a request that no Vault could answer.
	ErrInvalid = vault.ErrInvalid
	// ErrRefused is Vault's refusal with a reason: asking again changes nothing.
	ErrRefused = vault.ErrRefused
	// ErrNotFound is a secret that is not there.
	ErrNotFound = vault.ErrNotFound
	// ErrUnavailable is anything that may be otherwise in a moment.
	ErrUnavailable = vault.ErrUnavailable
)

// Login is what a pod shows to Vault.
type Login = vault.Login

// Endpoint is one way to one Vault.
type Endpoint = vault.Endpoint

// Options are how patient a session is.
type Options = vault.Options

// Template is the program of one file.
type Template = render.Template

// FileError says which file cannot be made.
type FileError struct {
	// Name is that of the file's template.
	Name string
	err  error
}

// Error implements error.
func (e *FileError) Error() string { return fmt.Sprintf("render file %q: %v", e.Name, e.err) }

// Unwrap returns why.
func (e *FileError) Unwrap() error { return e.err }

// Request is what a volume needs.
type Request struct {
	// VolumeID names the volume until Close.
	VolumeID string
	Endpoint Endpoint
	Options  Options
	Login    Login
	// Templates are rendered in order, one for each file.
	Templates []Template
}

// Renderer runs templates, which are programs of whoever wrote the pod. It may be
// used concurrently.
type Renderer interface {
	// Check refuses a template that no data can make good: render.ErrInvalid.
	Check(ctx context.Context, template render.Template) error
	// Render runs a template with the answers at hand. The error is that of
	// render.Render, or one that says why it was not run to its end.
	Render(ctx context.Context, template render.Template, answers render.Answers) (render.Result, error)
}

// Provider holds a session for each open volume. It may be used concurrently.
type Provider struct {
	servers     *vault.Servers
	renderer    Renderer
	revocations *revocations

	mutex    sync.Mutex
	sessions map[string]*vault.Session
}

// New returns a provider that gets its secrets from servers and runs templates by
// renderer. Stop ends it.
func New(logger klog.Logger, servers *vault.Servers, renderer Renderer) *Provider {
	return &Provider{
		servers:     servers,
		renderer:    renderer,
		revocations: startRevocations(logger),
		sessions:    map[string]*vault.Session{},
	}
}

// Stop revokes what waits for it, for at most the time that ctx leaves. Nothing
// may be opened or closed any more.
func (p *Provider) Stop(ctx context.Context) error {
	defer p.servers.Close()
	return p.revocations.stop(ctx)
}

// Open logs in and renders the templates of a volume; the outputs are in the
// order of the templates. After an error nothing is left: neither a session here
// nor a token in Vault. A second Open of a volume replaces its session.
func (p *Provider) Open(ctx context.Context, request Request) ([][]byte, error) {
	// What no secret can make good costs no login.
	for _, t := range request.Templates {
		if err := p.renderer.Check(ctx, t); err != nil {
			return nil, &FileError{Name: t.Name, err: err}
		}
	}
	session, err := p.servers.Login(ctx, request.Endpoint, request.Options, request.Login)
	if err != nil {
		return nil, err
	}
	outputs, err := p.renderAll(ctx, session, request.Templates)
	if err != nil {
		p.revocations.add(session)
		return nil, err
	}
	p.keep(request.VolumeID, session)
	return outputs, nil
}

// Close gives up a volume's session. It does not wait for Vault, and does nothing
// for a volume that is not open.
func (p *Provider) Close(volumeID string) {
	p.keep(volumeID, nil)
}

// keep stores the session of a volume, or none, and revokes the one before.
func (p *Provider) keep(volumeID string, session *vault.Session) {
	p.mutex.Lock()
	previous := p.sessions[volumeID]
	delete(p.sessions, volumeID)
	if session != nil {
		p.sessions[volumeID] = session
	}
	p.mutex.Unlock()
	if previous != nil {
		p.revocations.add(previous)
	}
}

// renderAll renders every template with answers that they share, so that two
// files which name the same secret show the same version of it.
func (p *Provider) renderAll(ctx context.Context, session *vault.Session, templates []render.Template) ([][]byte, error) {
	answers := render.Answers{}
	outputs := make([][]byte, len(templates))
	for i, t := range templates {
		output, err := p.renderOne(ctx, session, t, answers)
		if err != nil {
			return nil, &FileError{Name: t.Name, err: err}
		}
		outputs[i] = output
	}
	return outputs, nil
}

// maxRounds bounds how deep a template may compute paths from secrets that it
// has read before: each round answers one more level.
const maxRounds = 16

// renderOne renders until nothing is missing. A round without an answer to give
// it a path may ask for less than the next.
func (p *Provider) renderOne(ctx context.Context, session *vault.Session, t render.Template, answers render.Answers) ([]byte, error) {
	for range maxRounds {
		result, err := p.renderer.Render(ctx, t, answers)
		if err != nil {
			return nil, err
		}
		if len(result.Missing) == 0 {
			return result.Output, nil
		}
		for _, query := range result.Missing {
			answer, err := ask(ctx, session, query)
			if err != nil {
				return nil, err
			}
			answers[query] = answer
		}
	}
	return nil, fmt.Errorf("%w: its secrets name each other more than %d levels deep", ErrTemplate, maxRounds)
}

func ask(ctx context.Context, session *vault.Session, query render.Query) (render.Answer, error) {
	switch query.Verb {
	case render.List:
		names, err := session.List(ctx, query.Path)
		return render.Answer{Names: names}, err
	case render.Write:
		secret, err := session.Write(ctx, query.Path, query.Data())
		return render.Answer{Secret: secret}, err
	default:
		secret, err := session.Read(ctx, query.Path)
		return render.Answer{Secret: secret}, err
	}
}
