package vaultserver

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
)

// Request is one that the server has answered.
type Request struct {
	// Operation is Vault's own name: read, list, update, …
	Operation string
	Path      string
	// Error is what was wrong, empty if nothing was.
	Error string
}

// Audit lists the requests so far, except those that a sealed server refused.
func (d *Durable) Audit() ([]Request, error) {
	file, err := os.Open(d.auditPath())
	if err != nil {
		return nil, err
	}
	defer file.Close()
	var requests []Request
	for lines := bufio.NewReader(file); ; {
		line, err := lines.ReadBytes('\n')
		// The server may be about to write the rest of the last line.
		if errors.Is(err, io.EOF) {
			return requests, nil
		}
		if err != nil {
			return nil, err
		}
		var entry struct {
			Type    string
			Error   string
			Request Request
		}
		if err := json.Unmarshal(line, &entry); err != nil {
			return nil, fmt.Errorf("read the audit log: %w", err)
		}
		// Each request has two entries, this one for its answer.
		if entry.Type == "response" {
			entry.Request.Error = entry.Error
			requests = append(requests, entry.Request)
		}
	}
}
