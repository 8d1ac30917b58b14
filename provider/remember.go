package provider

// troubleRecord is a trouble for the next process: a restart mends nothing, so what
// fails goes on failing until it was tried once more. When that is, is not kept: what
// an answer lacks has its own time, and all else is tried at once.
type troubleRecord struct {
	// Text is what the log says as well, and holds no secret.
	Text     string
	Failures int
	// Kind is empty for none of the kinds.
	Kind string `json:",omitempty"`
}

// remembered is the error of an earlier process.
type remembered struct {
	text string
	kind error // nil for none of the kinds
}

func (r *remembered) Error() string { return r.text }
func (r *remembered) Unwrap() error { return r.kind }

// record is nil if there is no trouble.
func (t trouble) record() *troubleRecord {
	if t.err == nil {
		return nil
	}
	return &troubleRecord{Text: t.err.Error(), Failures: t.failures, Kind: kindOf(t.err).name}
}

func (r *troubleRecord) trouble() trouble {
	if r == nil {
		return trouble{}
	}
	err := &remembered{text: r.Text}
	for _, k := range kinds() {
		if k.name == r.Kind {
			err.kind = k.err
		}
	}
	return trouble{err: err, failures: max(r.Failures, 1)}
}
