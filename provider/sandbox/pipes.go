package sandbox

import "os"

// pipes connect a worker's standard streams.
type pipes struct {
	child           [3]*os.File
	requests        *os.File
	replies, errors *os.File
}

func (f *pipes) open() (err error) {
	if f.child[0], f.requests, err = os.Pipe(); err != nil {
		return err
	}
	if f.replies, f.child[1], err = os.Pipe(); err != nil {
		return err
	}
	f.errors, f.child[2], err = os.Pipe()
	return err
}

func (f *pipes) closeChild() {
	for _, file := range f.child {
		_ = file.Close() // absent, or written by nobody
	}
}

func (f *pipes) closeParent() {
	for _, file := range []*os.File{f.requests, f.replies, f.errors} {
		_ = file.Close()
	}
}
