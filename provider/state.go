package provider

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"time"

	"github.com/hashicorp/vault/api"

	"github.com/vaultmount/vaultmount/provider/limits"
	render "github.com/vaultmount/vaultmount/provider/template"
)

// The records hold all that a new process needs to go on where the last one
// stopped, without a login and without a read: also the tokens, and the secrets
// themselves, since a file with a static and a dynamic secret could not be
// rendered again otherwise but with new credentials.
const (
	volumePrefix     = "volume-"
	sessionPrefix    = "session-"
	revocationPrefix = "revocation-"

	// stateVersion is that of the records that this program writes and reads. Of another
	// one, the volume logs in again at its next republish.
	stateVersion = 2
)

type volumeRecord struct {
	Version   int
	VolumeID  string
	Pod       string
	Session   string
	Shared    string `json:",omitempty"` // session, if there is one
	Endpoint  Endpoint
	Options   ClientOptions
	Outputs   []outputRecord
	Size      int64 `json:",omitempty"`
	Pods      []Pod
	Refresh   RefreshPolicy
	Answers   []answerRecord
	Written   []byte
	Stale     bool
	Shown     int
	Refreshed time.Time
	Trouble   *troubleRecord `json:",omitempty"`
	Saved     *moment        `json:",omitempty"`
}

// outputRecord is an output of which the Pod is one of the record's: it holds a whole
// Secret, and is the same for most templates.
type outputRecord struct {
	FileSpec

	Pod int
}

type answerRecord struct {
	Verb      render.Verb
	Path      string
	Hidden    bool              `json:",omitempty"` // it holds a secret
	Arguments map[string]string `json:",omitempty"`
	Secret    *api.Secret       `json:",omitempty"`
	Names     []string          `json:",omitempty"`
	Lease     term
	Token     int
	Due       time.Time
	Trouble   *troubleRecord `json:",omitempty"`
	// Candidate says that the files are not made of this value yet, and Accepted is the
	// one that they are made of, if there is one.
	Candidate bool           `json:",omitempty"`
	Accepted  *valueRecord   `json:",omitempty"`
	Misfit    *troubleRecord `json:",omitempty"`
}

type valueRecord struct {
	Secret *api.Secret `json:",omitempty"`
	Names  []string    `json:",omitempty"`
}

type sessionRecord struct {
	Version   int
	Key       string
	Namespace string
	Means     means
	Serial    int
	Grants    []grant
	Revoke    bool
	Bearer    string         `json:",omitempty"` // of a session that pods share
	Trouble   *troubleRecord `json:",omitempty"`
	Saved     *moment        `json:",omitempty"`
}

type revocationRecord struct {
	Version   int
	Namespace string
	Means     means
	Grant     grant
	Saved     *moment `json:",omitempty"`
}

func (r *volumeRecord) check() error {
	if r.VolumeID == "" || r.Session == "" || len(r.Outputs) == 0 {
		return errors.New("it lacks a volume id, a session or outputs")
	}
	for _, output := range r.Outputs {
		if output.Pod < 0 || output.Pod >= len(r.Pods) {
			return errors.New("it lacks what its templates know of the pod")
		}
	}
	return nil
}

// says leaves out when all was well last, which is so at each look.
func (r *volumeRecord) says(other record) bool {
	mine, its := *r, *other.(*volumeRecord)
	mine.Refreshed, its.Refreshed = time.Time{}, time.Time{}
	return reflect.DeepEqual(mine, its)
}

func (r *sessionRecord) says(other record) bool    { return reflect.DeepEqual(r, other) }
func (r *revocationRecord) says(other record) bool { return reflect.DeepEqual(r, other) }

func (r *volumeRecord) clone() record {
	copied := *r
	copied.Answers = slices.Clone(r.Answers)
	return &copied
}

func (r *sessionRecord) clone() record {
	copied := *r
	copied.Grants = slices.Clone(r.Grants)
	return &copied
}

func (r *revocationRecord) clone() record {
	copied := *r
	return &copied
}

// encodeOutputs takes out what templates know of their pod.
func encodeOutputs(outputs []FileSpec) (records []outputRecord, pods []Pod) {
	for _, output := range outputs {
		i := slices.IndexFunc(pods, func(p Pod) bool { return reflect.DeepEqual(p, output.Template.Pod) })
		if i < 0 {
			i, pods = len(pods), append(pods, output.Template.Pod)
		}
		output.Template.Pod = Pod{}
		records = append(records, outputRecord{FileSpec: output, Pod: i})
	}
	return records, pods
}

func (r *volumeRecord) outputs() []FileSpec {
	outputs := make([]FileSpec, len(r.Outputs))
	for i, each := range r.Outputs {
		outputs[i] = each.FileSpec
		outputs[i].Template.Pod = r.Pods[each.Pod]
	}
	return outputs
}

func (r *sessionRecord) check() error {
	if r.Key == "" {
		return errors.New("it lacks a key")
	}
	return nil
}

func (r *revocationRecord) check() error {
	if r.Grant.Token.Secret == "" {
		return errors.New("it lacks a token")
	}
	return nil
}

func (r *volumeRecord) times() ([]*time.Time, **moment) {
	all := []*time.Time{&r.Refreshed}
	for i := range r.Answers {
		all = append(all, &r.Answers[i].Lease.Expires, &r.Answers[i].Due)
	}
	return all, &r.Saved
}

func (r *sessionRecord) times() ([]*time.Time, **moment) {
	var all []*time.Time
	for i := range r.Grants {
		all = append(all, r.Grants[i].times()...)
	}
	return all, &r.Saved
}

func (r *revocationRecord) times() ([]*time.Time, **moment) { return r.Grant.times(), &r.Saved }

func (g *grant) times() []*time.Time { return []*time.Time{&g.Term.Expires, &g.Due, &g.Since} }

// record is one kind of record.
type record interface {
	check() error
	// says reports whether another one of the same kind says the same.
	says(other record) bool
	// clone returns a copy of which the times can be changed.
	clone() record
	// times are all that it holds, and when it was saved.
	times() ([]*time.Time, **moment)
}

// decode reads a record. Its errors hold nothing of the
// record's content.
func decode(text []byte, into record) error {
	if err := limits.CheckpointBytes.Check(len(text)); err != nil {
		return err
	}
	var head struct{ Version int }
	if err := json.Unmarshal(text, &head); err != nil {
		return errors.New("it is no record")
	}
	if head.Version != stateVersion {
		return fmt.Errorf("it has version %d, and this program reads version %d", head.Version, stateVersion)
	}
	decoder := json.NewDecoder(bytes.NewReader(text))
	// As the Vault client does: a template shows numbers as Vault wrote them.
	decoder.UseNumber()
	if err := decoder.Decode(into); err != nil {
		return errors.New("it is not of the form that its version has")
	}
	return into.check()
}

// encode cannot fail: what comes from JSON goes back into it. It escapes nothing for
// HTML, which would take six bytes for one.
func encode(r any) []byte {
	var text bytes.Buffer
	encoder := json.NewEncoder(&text)
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(r); err != nil {
		panic(fmt.Errorf("encode the state: %w", err))
	}
	return text.Bytes()
}

func encodeAnswers(all answers) []answerRecord {
	records := make([]answerRecord, 0, len(all))
	for _, a := range all.inOrder() {
		r := answerRecord{
			Verb: a.query.Verb, Path: a.query.Path, Hidden: a.hidden, Secret: a.said.Secret, Names: a.said.Names, Lease: a.lease, Token: a.token, Due: a.due,
			Trouble: a.trouble.record(), Candidate: a.isCandidate, Misfit: a.misfit.record(),
		}
		if a.isCandidate && a.accepted != nil {
			r.Accepted = &valueRecord{Secret: a.accepted.Secret, Names: a.accepted.Names}
		}
		for key, value := range a.query.Data() {
			if r.Arguments == nil {
				r.Arguments = map[string]string{}
			}
			r.Arguments[key] = fmt.Sprint(value)
		}
		records = append(records, r)
	}
	return records
}

func decodeAnswers(records []answerRecord) answers {
	all := answers{}
	for _, r := range records {
		query := render.Dependency{Verb: r.Verb, Path: r.Path}
		switch r.Verb {
		case render.Write:
			query = render.NewWrite(r.Path, r.Arguments)
		case render.Issue:
			query = render.NewIssue(r.Path, r.Arguments)
		}
		a := &answer{
			query: query, hidden: r.Hidden, said: render.Value{Secret: r.Secret, Names: r.Names}, lease: r.Lease, token: r.Token, due: r.Due,
			trouble: r.Trouble.trouble(), isCandidate: r.Candidate, misfit: r.Misfit.trouble(),
		}
		switch {
		case !r.Candidate:
			a.accept()
		case r.Accepted != nil:
			a.accepted = &render.Value{Secret: r.Accepted.Secret, Names: r.Accepted.Names}
		}
		all[query] = a
	}
	return all
}
