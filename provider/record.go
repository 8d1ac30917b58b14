package provider

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"sync"

	"k8s.io/klog/v2"

	"github.com/vaultmount/vaultmount/provider/limits"
)

// The records hold all that the next process needs to go on without a request: also the
// tokens, and the secret values, since a file with a static secret and credentials could
// only be rendered with new credentials otherwise.
const (
	// RevocationPrefix begins the keys of tokens that wait for their revocation: the Store
	// keeps space for them.
	RevocationPrefix = "revocation-"
	sharedPrefix     = "session-"

	// recordVersion is that of the records that this program reads and writes.
	recordVersion = 3
)

type volumeRecord struct {
	volumeState

	Version       int
	VolumeID, Pod string
	SharedKey     string `json:",omitempty"`
	Files         []fileRecord
	Pods          []Pod // of the files' templates
	Size          int64 `json:",omitempty"`
	Refresh       RefreshPolicy
	Dependencies  []dependency
}

// fileRecord names its Pod by a number: that holds a whole Secret, and most templates have
// the same.
type fileRecord struct {
	FileSpec

	Pod int
}

type sharedRecord struct {
	Version        int
	Key, Namespace string
	IsRevoke       bool
	Session        *session
}

type revocationRecord struct {
	Version   int
	Namespace string
	Config    loginConfig
	Token     issuedToken
}

// encodeFiles takes out what templates know of their pod.
func encodeFiles(files []FileSpec) (records []fileRecord, pods []Pod) {
	for _, file := range files {
		i := slices.IndexFunc(pods, func(p Pod) bool { return reflect.DeepEqual(p, file.Template.Pod) })
		if i < 0 {
			i, pods = len(pods), append(pods, file.Template.Pod)
		}
		file.Template.Pod = Pod{}
		records = append(records, fileRecord{file, i})
	}
	return records, pods
}

func (v *Volume) record() *volumeRecord {
	r := &volumeRecord{volumeState: v.volumeState, Version: recordVersion, VolumeID: v.id, Pod: v.pod, Size: v.size, Refresh: v.policy}
	if v.shared != nil {
		r.SharedKey = v.shared.key
	}
	r.Files, r.Pods = encodeFiles(v.files)
	for _, each := range v.deps.sorted() {
		r.Dependencies = append(r.Dependencies, *each)
		if !each.IsCandidate {
			r.Dependencies[len(r.Dependencies)-1].Accepted = nil // the same value
		}
	}
	return r
}

// save keeps the volume for the next process, if anything has changed. The goroutine of
// the volume calls it.
func (v *Volume) save() {
	record := encode(v.record())
	sum := sha256.Sum256(record)
	if sum == v.savedHash {
		return
	}
	err := limits.CheckpointBytes.Check(len(record))
	if err == nil {
		err = v.sink.Save(record)
	}
	if err != nil && !v.isUnsaved {
		v.manager.logger.Error(err, "Volume not saved; after a restart of the driver, it logs in again", logVolumeID, v.id, logPod, v.pod)
	}
	if v.isUnsaved = err != nil; err == nil {
		v.savedHash = sum
	}
}

// restoreVolume makes a volume of its record.
func (m *Manager) restoreVolume(r *volumeRecord, sink Sink) *Volume {
	files := make([]FileSpec, len(r.Files))
	for i, each := range r.Files {
		files[i] = each.FileSpec
		files[i].Template.Pod = r.Pods[each.Pod]
	}
	v := m.newVolume(Request{VolumeID: r.VolumeID, Pod: r.Pod, Files: files, Size: r.Size, Refresh: r.Refresh}, sink)
	v.volumeState = r.volumeState
	v.Session.manager = m
	for _, each := range r.Dependencies {
		if !each.IsCandidate {
			each.accept()
		}
		v.deps[each.Key] = &each
	}
	v.failure = firstError(v.Retry.err, v.deps.err(), v.Session.Retry.err)
	if r.SharedKey != "" && m.sharing == ShareServiceAccount {
		v.shared = m.joinShared(v, r.SharedKey)
	}
	v.updateRetained()
	v.updateStatus(0)
	return v
}

func (m *Manager) restoreShared(ctx context.Context) error {
	return m.records.load(ctx, sharedPrefix, func(key string, text []byte) (namespace string, err error) {
		r := &sharedRecord{}
		if err := decode(text, r); err != nil {
			return "", err
		}
		s := m.newSharedSession(r.Key, r.Namespace)
		s.recordKey, s.isRevoke, s.session = key, r.IsRevoke, r.Session
		s.session.manager = m
		s.updateSnapshot()
		m.mutex.Lock()
		defer m.mutex.Unlock()
		m.shared[r.Key] = s
		return r.Namespace, nil
	})
}

// versioned is a record that can be checked after it was decoded.
type versioned interface {
	version() int
	check() error
}

func (r *volumeRecord) version() int     { return r.Version }
func (r *sharedRecord) version() int     { return r.Version }
func (r *revocationRecord) version() int { return r.Version }

func (r *volumeRecord) check() error {
	if r.VolumeID == "" || len(r.Files) == 0 || r.Session == nil {
		return errors.New("it has no volume id, no files or no session")
	}
	for _, file := range r.Files {
		if file.Pod < 0 || file.Pod >= len(r.Pods) {
			return errors.New("it has a file without its pod")
		}
	}
	return nil
}

func (r *sharedRecord) check() error {
	if r.Key == "" || r.Session == nil {
		return errors.New("it has no key or no session")
	}
	return nil
}

func (r *revocationRecord) check() error {
	if r.Token.Token.Secret == "" {
		return errors.New("it has no token")
	}
	return nil
}

// decode reads a record. Its errors hold nothing of the content.
func decode(text []byte, into versioned) error {
	if err := limits.CheckpointBytes.Check(len(text)); err != nil {
		return err
	}
	decoder := json.NewDecoder(bytes.NewReader(text))
	decoder.UseNumber() // a template shows numbers as Vault wrote them
	if err := decoder.Decode(into); err != nil {
		return errors.New("it is not a valid record")
	}
	if into.version() != recordVersion {
		return fmt.Errorf("it has version %d, and this program reads version %d", into.version(), recordVersion)
	}
	return into.check()
}

// encode cannot fail: what comes from JSON can be encoded. It escapes nothing for HTML,
// which takes six bytes for one.
func encode(record any) []byte {
	var text bytes.Buffer
	encoder := json.NewEncoder(&text)
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(record); err != nil {
		panic(fmt.Errorf("encode a record: %w", err))
	}
	return text.Bytes()
}

// records are those of shared sessions and revocations, with a limit for each namespace.
type records struct {
	logger klog.Logger
	store  Store

	mutex  sync.Mutex
	owners map[string]recordOwner // by key
	sizes  map[string]int         // by namespace
}

type recordOwner struct {
	namespace string
	size      int
}

// save replaces a record, and logs why it could not.
func (r *records) save(namespace, key string, record []byte) {
	err := r.count(namespace, key, len(record))
	if err == nil {
		err = r.store.Save(key, record)
	}
	if err != nil {
		r.logger.Error(err, "Vault token not saved; after a restart of the driver, it expires with its TTL", logNamespace, namespace)
		r.remove(key) // it is not true any more
	}
}

func (r *records) count(namespace, key string, size int) error {
	r.mutex.Lock()
	defer r.mutex.Unlock()
	if err := limits.NamespaceTokenBytes.Check(r.sizes[namespace] - r.owners[key].size + size); err != nil {
		return err
	}
	r.dropLocked(key)
	r.owners[key] = recordOwner{namespace, size}
	r.sizes[namespace] += size
	return nil
}

func (r *records) dropLocked(key string) {
	owner := r.owners[key]
	delete(r.owners, key)
	if r.sizes[owner.namespace] -= owner.size; r.sizes[owner.namespace] == 0 {
		delete(r.sizes, owner.namespace)
	}
}

func (r *records) remove(key string) {
	r.mutex.Lock()
	r.dropLocked(key)
	r.mutex.Unlock()
	if err := r.store.Delete(key); err != nil {
		r.logger.Error(err, "Record not deleted", "record", key)
	}
}

// load calls use with each record of a kind, until ctx ends. It drops those that use
// returns an error for.
func (r *records) load(ctx context.Context, prefix string, use func(key string, text []byte) (namespace string, err error)) error {
	texts, err := r.store.Load(prefix)
	if err != nil {
		return fmt.Errorf("read the records of the previous process: %w", err)
	}
	for key, text := range texts {
		if err := ctx.Err(); err != nil {
			return fmt.Errorf("restore the records of the previous process: %w", err)
		}
		namespace, err := use(key, text)
		if err == nil {
			err = r.count(namespace, key, len(text))
		}
		if err != nil {
			r.logger.Error(err, "Record dropped; its Vault token expires with its TTL", "record", key)
			r.remove(key)
		}
	}
	return nil
}
