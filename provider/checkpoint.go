package provider

import (
	"context"
	"fmt"
	"reflect"
	"sync"

	"k8s.io/klog/v2"

	"github.com/vaultmount/vaultmount/provider/limits"
)

// records are all records in the store, with a limit for each and for those of a
// namespace. It may be used concurrently.
type records struct {
	logger   klog.Logger
	store    Store
	timeline timeline

	mutex sync.Mutex // not held during I/O
	// owners has the namespace and the size of each record, and sizes their sums.
	owners map[string]recordOwner
	sizes  map[string]int
	// failing are the namespaces of which a record could not be saved last time.
	failing map[string]bool
}

type recordOwner struct {
	namespace string
	size      int
}

func newRecords(c ProviderConfig) *records {
	return &records{
		logger: c.Logger, store: c.Store, timeline: newTimeline(c),
		owners: map[string]recordOwner{}, sizes: map[string]int{}, failing: map[string]bool{},
	}
}

// save replaces a record. One that is over a limit is not saved, and the one before is
// deleted: it says what is not so any more. The error is logged once until a record of
// the namespace is saved again.
func (r *records) save(namespace, key string, content record) error {
	r.timeline.stamp(content)
	text := encode(content)
	err := r.count(namespace, key, len(text))
	if err != nil {
		r.forget(key)
	} else {
		err = r.store.Save(key, text)
	}
	r.mutex.Lock()
	news := err != nil && !r.failing[namespace]
	delete(r.failing, namespace)
	if err != nil {
		r.failing[namespace] = true
	}
	r.mutex.Unlock()
	if news {
		r.logger.Error(err, "State not saved; after a restart of the driver, volumes of the namespace log in again, and tokens to revoke end with their TTL", "namespace", namespace)
	}
	return err
}

// unsaved is how many namespaces had a record last that was not saved.
func (r *records) unsaved() int {
	r.mutex.Lock()
	defer r.mutex.Unlock()
	return len(r.failing)
}

// count notes the size of a record, unless it is too large.
func (r *records) count(namespace, key string, size int) error {
	r.mutex.Lock()
	defer r.mutex.Unlock()
	if err := limits.CheckpointBytes.Check(size); err != nil {
		return err
	}
	before := r.owners[key]
	sum := r.sizes[namespace] + size
	if before.namespace == namespace {
		sum -= before.size
	}
	if err := limits.NamespaceCheckpointBytes.Check(sum); err != nil {
		return err
	}
	r.dropLocked(key)
	r.owners[key] = recordOwner{namespace, size}
	r.sizes[namespace] += size
	return nil
}

func (r *records) dropLocked(key string) {
	owner, known := r.owners[key]
	if !known {
		return
	}
	delete(r.owners, key)
	if r.sizes[owner.namespace] -= owner.size; r.sizes[owner.namespace] == 0 {
		delete(r.sizes, owner.namespace)
	}
}

func (r *records) forget(key string) {
	r.mutex.Lock()
	r.dropLocked(key)
	r.mutex.Unlock()
	if err := r.store.Delete(key); err != nil {
		r.logger.Error(err, "Record not deleted", "record", key)
	}
}

// each decodes the records of a kind one after the other, until ctx ends. use returns
// the namespace of one, and whether it is to be kept. What cannot be read or is
// too large is dropped.
func (r *records) each(ctx context.Context, prefix string, empty func() record, use func(key string, content record) (namespace string, keep bool)) error {
	texts, err := r.store.Load(prefix)
	if err != nil {
		return fmt.Errorf("read the state of the volumes: %w", err)
	}
	for key, text := range texts {
		if err := ctx.Err(); err != nil {
			return fmt.Errorf("take over the state of the volumes: %w", err)
		}
		delete(texts, key) // the text is needed once
		content := empty()
		if err := decode(text, content); err != nil {
			r.logger.Error(err, "Record dropped; its volume logs in again at its next republish, or its token ends with its TTL", "record", key)
			r.forget(key)
			continue
		}
		r.timeline.takeOver(content)
		namespace, keep := use(key, content)
		if keep {
			err := r.count(namespace, key, len(text))
			if err == nil {
				continue
			}
			r.logger.Error(err, "Record dropped; it is saved again when its volume changes", "record", key, "namespace", namespace)
		}
		r.forget(key)
	}
	return nil
}

// checkpoint is the record of one volume or session. Two of them may have one, while one
// takes the place of the other. Its mutex is held during I/O: it is taken without any
// other, and by nobody who only looks.
type checkpoint struct {
	records   *records
	namespace string
	key       string

	mutex sync.Mutex
	owner any
	saved record // what the store has; nil if that is not known
}

func (r *records) checkpoint(namespace, key string) *checkpoint {
	return &checkpoint{records: r, namespace: namespace, key: key}
}

// save writes a snapshot, unless that is nil or in the store already.
func (c *checkpoint) save(owner any, snapshot func() record) {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	now := snapshot()
	if reflect.ValueOf(now).IsNil() {
		return
	}
	c.owner = owner
	if c.saved != nil && now.says(c.saved) {
		return
	}
	c.saved = now
	if c.records.save(c.namespace, c.key, now.clone()) != nil {
		c.saved = nil
	}
}

// resumed notes what was read from the store.
func (c *checkpoint) resumed(owner any, snapshot record) {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	c.owner, c.saved = owner, snapshot
}

// forget deletes the record, unless another owner has saved it.
func (c *checkpoint) forget(owner any) {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	if c.owner != nil && c.owner != owner {
		return
	}
	c.owner, c.saved = nil, nil
	c.records.forget(c.key)
}
