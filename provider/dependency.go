package provider

import (
	"cmp"
	"encoding/json"
	"errors"
	"maps"
	"reflect"
	"slices"
	"strings"

	"github.com/vaultmount/vaultmount/provider/limits"
	"github.com/vaultmount/vaultmount/provider/template"
	"github.com/vaultmount/vaultmount/provider/vault"
)

// dependency is what a template needs from Vault, with its value. The goroutine of the
// volume owns it, and the record holds it.
type dependency struct {
	Key template.Dependency
	// IsSensitive says that the path or an argument may hold the value of a secret.
	IsSensitive bool `json:",omitzero"`
	// Value is Vault's last one: a candidate, while IsCandidate is true. The files are made
	// of Accepted, which is nil before they are made of any value.
	Value       template.Value
	IsCandidate bool            `json:",omitzero"`
	Accepted    *template.Value `json:",omitempty"`
	// Misfit is why the files could not be made of the candidate.
	Misfit retryState `json:",omitzero"`
	Lease  lease      `json:",omitzero"`
	// FetchedAt is when the value was requested.
	FetchedAt bootTime
	// Generation is that of the token that the lease belongs to.
	Generation int        `json:",omitzero"`
	Due        bootTime   // it is renewed or fetched next
	Retry      retryState `json:",omitzero"`
}

// dependencies are those of one volume. Its files share them, so that files which read the
// same secret show the same version.
type dependencies map[template.Dependency]*dependency

func (d *dependency) isStatic() bool { return isStatic(d.Key, d.Value) }

func (d *dependency) isDue(now bootTime) bool { return d.Due != 0 && d.Due <= now }

func (d *dependency) err() error { return firstError(d.Retry.err, d.Misfit.err) }

// setValue takes over what Vault returned, and reports whether the files have to be
// rendered again: a renewed lease alone does not change them.
func (d *dependency) setValue(f fetched, m *Manager, policy RefreshPolicy) (changed bool) {
	if !sameContent(d.Value, f.value) {
		d.IsCandidate = true
	}
	d.Value, d.FetchedAt, d.Generation, d.Retry = f.value, f.requested, f.generation, retryState{}
	if !d.IsCandidate {
		d.accept() // the same value is rejected once
	}
	d.Lease = leaseOf(f.value, f.requested)
	// What another pod has read is not fresh for longer than there.
	d.schedule(policy, f.requested, m)
	if d.Due != 0 {
		d.Due = max(d.Due, m.now()+minRest)
	}
	return d.IsCandidate
}

func sameContent(a, b template.Value) bool {
	if !reflect.DeepEqual(a.Names, b.Names) || (a.Secret == nil) != (b.Secret == nil) {
		return false
	}
	return a.Secret == nil ||
		a.Secret.LeaseID == b.Secret.LeaseID && reflect.DeepEqual(a.Secret.Data, b.Secret.Data) && reflect.DeepEqual(a.Secret.Auth, b.Secret.Auth)
}

func (d *dependency) schedule(policy RefreshPolicy, now bootTime, m *Manager) {
	wasRenewable := isLeased(d.Value) && d.Value.Secret.Renewable
	switch {
	case d.Lease.Renewable, wasRenewable && !policy.Disabled:
		d.Due = d.Lease.due(now, m.jitter)
	default:
		if d.Due = policy.fetchAfter(d.Key, d.Value, m.clock.Now(), m.jitter); d.Due != 0 {
			d.Due += now
		}
	}
}

func (d *dependency) scheduleRetry(err error, m *Manager) {
	d.Retry.fail(err, m.now(), d.Lease.ExpireTime, m.jitter)
	d.Due = d.Retry.until
}

// accept notes that the files are made of the last value.
func (d *dependency) accept() {
	value := d.Value
	d.Accepted, d.IsCandidate, d.Misfit = &value, false, retryState{}
}

// sorted makes refreshes repeatable.
func (ds dependencies) sorted() []*dependency {
	return slices.SortedFunc(maps.Values(ds), func(a, b *dependency) int {
		return cmp.Or(cmp.Compare(a.Key.Path, b.Key.Path), cmp.Compare(a.Key.Verb, b.Key.Verb), cmp.Compare(a.Key.Arguments, b.Key.Arguments))
	})
}

// byFewestFailures has those that failed wait for the others: what takes long to fail must
// not starve them.
func (ds dependencies) byFewestFailures() []*dependency {
	all := ds.sorted()
	slices.SortStableFunc(all, func(a, b *dependency) int { return cmp.Compare(a.Retry.failures, b.Retry.failures) })
	return all
}

func (ds dependencies) leases() int {
	count := 0
	for _, each := range ds {
		if isLeased(each.Value) {
			count++
		}
	}
	return count
}

func (ds dependencies) err() error {
	for _, each := range ds.sorted() {
		if err := each.err(); err != nil {
			return err
		}
	}
	return nil
}

// due returns the first time of all that are due after a time.
func (ds dependencies) due(after bootTime) bootTime {
	var first bootTime
	for _, each := range ds {
		if each.Due > after {
			first = earliest(first, each.Due)
		}
	}
	return first
}

// values are for the renderer. In place of rejected candidates are the accepted values.
func (ds dependencies) values(rejected rejections) template.Values {
	values := template.Values{}
	for key, each := range ds {
		values[key] = each.Value
		if rejected[each] != nil {
			values[key] = *each.Accepted
		}
	}
	return values
}

// accept notes that the files are made of the used ones that are not rejected, and drops
// the rest, whose leases expire. While candidates are rejected, it keeps what Vault has
// made for them: they need it at the next attempt.
func (ds dependencies) accept(used map[template.Dependency]bool, rejected rejections, now bootTime) {
	keepMade := len(rejected) > 0 && len(ds) <= limits.Dependencies.Max()
	for key, each := range ds {
		switch {
		case used[key] && rejected[each] == nil:
			each.accept()
		case used[key]:
		case keepMade && each.Accepted == nil && !each.isStatic() && !each.Lease.isExpired(now):
		default:
			delete(ds, key)
		}
	}
}

// size is that of all values.
func (ds dependencies) size() vault.Size {
	var total vault.Size
	for _, each := range ds {
		total = total.Add(sizeOf(each.Value))
	}
	return total
}

// memory counts the accepted values beside candidates as well. They do not count as read:
// the secret that replaces a candidate could not be read otherwise.
func (ds dependencies) memory() int64 {
	total := ds.size().Memory()
	for _, each := range ds {
		if each.IsCandidate && each.Accepted != nil {
			total += sizeOf(*each.Accepted).Memory()
		}
	}
	return total
}

// sizeOf is about the size of a value as JSON.
func sizeOf(value template.Value) vault.Size {
	size := vault.Size{}
	for _, name := range value.Names {
		size = size.Add(sizeOfJSON(name))
	}
	if value.Secret == nil {
		return size
	}
	size = size.Add(sizeOfJSON(value.Secret.Data))
	size.Bytes += 256 // request id, lease and the like
	texts := slices.Clone(value.Secret.Warnings)
	if auth := value.Secret.Auth; auth != nil {
		texts = append(texts, auth.ClientToken, auth.Accessor)
		texts = append(texts, auth.Policies...)
		for key, each := range auth.Metadata {
			texts = append(texts, key, each)
		}
	}
	for _, text := range texts {
		size = size.Add(sizeOfJSON(text))
	}
	return size
}

func sizeOfJSON(value any) vault.Size {
	size := vault.Size{Bytes: 3, Values: 1}
	switch v := value.(type) {
	case string:
		size.Bytes += len(v)
	case json.Number:
		size.Bytes += len(v)
	case []any:
		for _, each := range v {
			size = size.Add(sizeOfJSON(each))
		}
	case map[string]any:
		size.Objects++
		for key, each := range v {
			size.Bytes += len(key) + 3
			size = size.Add(sizeOfJSON(each))
		}
	}
	return size
}

// redactedError is about a path that a template has computed of a secret. It is of the
// kinds of the error itself, which nobody can unwrap: url.Parse, net/http and Vault repeat
// a path in forms that no search finds.
type redactedError struct {
	err  error
	text string
}

func (r *redactedError) Error() string        { return r.text }
func (r *redactedError) Is(target error) bool { return errors.Is(r.err, target) }

// redact keeps secret values out of an error about a dependency:
// {{ secret .Data.password }} must not show the password to readers of Events.
func (d *dependency) redact(err error) error {
	// That there is no token has nothing to do with the path.
	if !d.IsSensitive || errors.As(err, new(*tokenError)) {
		return err
	}
	return &redactedError{err, "a path made of a secret: " + kindText(err) +
		"; the template computes the path or an argument, so it may hold the value of a secret and is not shown: see Vault's audit log for the request"}
}

// kindText is what may be shown of an error that holds a secret value.
func kindText(err error) string {
	if errors.Is(err, vault.ErrDenied) {
		return vault.ErrDenied.Error() + ": permission denied"
	}
	if exceeded := (*limits.ExceededError)(nil); errors.As(err, &exceeded) {
		return exceeded.Error() // numbers
	}
	for _, kind := range []error{ErrInvalid, ErrTooLarge, ErrRefused, ErrNotFound, ErrUnavailable} {
		if errors.Is(err, kind) {
			return kind.Error()
		}
	}
	return "the request failed"
}

// displayPath is the path for an operator.
func (d *dependency) displayPath() string {
	if d.IsSensitive {
		return "[made of a secret]"
	}
	return d.Key.Path
}

// origin tells which dependencies a template may have computed of a secret. It does not
// search for the values, which a template can encode in any way.
type origin struct {
	// hasSecretKeys says that templates know a Secret from the start, and hasValues that
	// they know values of Vault by now.
	hasSecretKeys, hasValues bool
	firstPass                map[template.Dependency]bool // known without any value
	files                    []FileSpec
	literals                 map[string]bool // of files; nil until it is needed
}

func (o *origin) isSensitive(key template.Dependency) bool {
	if !o.hasSecretKeys && (!o.hasValues || o.firstPass[key]) {
		return false
	}
	if o.literals == nil {
		o.literals = literalsOf(o.files)
	}
	if !o.literals[key.Path] {
		return true
	}
	for name, value := range key.Data() {
		if text, _ := value.(string); !o.literals[name] || text != "" && !o.literals[text] {
			return true
		}
	}
	return false
}

// literalsOf returns the paths, keys and values between quotation marks in
// templates: their author wrote them. Text between two strings is the author's as well.
func literalsOf(files []FileSpec) map[string]bool {
	literals := map[string]bool{}
	for _, file := range files {
		for text := range strings.FieldsFuncSeq(file.Template.Text, func(r rune) bool { return r == '"' || r == '`' }) {
			literals[strings.Trim(strings.TrimSpace(text), "/")] = true // as the function secret does
			if key, value, ok := strings.Cut(text, "="); ok {
				literals[strings.TrimSpace(key)] = true
				literals[strings.TrimSpace(value)] = true
			}
		}
	}
	return literals
}
