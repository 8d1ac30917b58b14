// Package tally keeps what tests counted, for the table of make conformance: how
// often something was tried, and how often it went wrong. A count travels as an
// attribute of its test in go test's own output, so that the table shows what ran
// and nothing else.
//
// It judges nothing: a test that loses something fails by itself.
package tally

import (
	"encoding/json"
	"testing"
)

// key is the attribute's name.
const key = "tally"

// Line is one line of the table.
type Line struct {
	Item string
	// Tried is how often; Lost is how often not everything was as it must be.
	Tried, Lost int
}

// Record notes a count with its test.
func Record(t testing.TB, item string, tried, lost int) {
	t.Helper()
	text, err := json.Marshal(Line{Item: item, Tried: tried, Lost: lost})
	if err != nil {
		t.Fatal(err)
	}
	t.Attr(key, string(text))
	t.Logf("%s: %d tried, %d lost", item, tried, lost)
}

// AtEnd notes a count when its test ends, however that is. Of a test that has failed,
// or that never came to its end, one is lost.
func AtEnd(t testing.TB, item string, tried int) {
	t.Helper()
	t.Cleanup(func() {
		lost := 0
		if t.Failed() {
			lost = 1
		}
		Record(t, item, tried, lost)
	})
}
