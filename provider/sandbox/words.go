package sandbox

import (
	"bytes"
	"sync"
)

// words are the beginning of what a worker wrote to standard error. They may hold
// anything, also secrets, and are never shown.
type words struct {
	mutex sync.Mutex
	text  bytes.Buffer
}

// Write implements io.Writer and never fails.
func (w *words) Write(p []byte) (int, error) {
	w.mutex.Lock()
	defer w.mutex.Unlock()
	w.text.Write(p[:min(len(p), messageLimit-w.text.Len())])
	return len(p), nil
}

func (w *words) contain(phrases ...string) bool {
	w.mutex.Lock()
	defer w.mutex.Unlock()
	for _, phrase := range phrases {
		if bytes.Contains(w.text.Bytes(), []byte(phrase)) {
			return true
		}
	}
	return false
}
