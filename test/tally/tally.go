// Package tally keeps what tests counted, for the tables of make conformance and make attacks: how
// often something was tried, and how often it went wrong. A count travels as an
// attribute of its test in go test's own output, so that the table shows what ran
// and nothing else.
//
// It judges nothing: a test that loses something fails by itself.
package tally

import (
	"encoding/json"
	"testing"

	"github.com/stretchr/testify/require"
)

// key is the attribute's name.
const key = "tally"

// Line is one line of the table.
type Line struct {
	Item string
	// Tried is how often; Lost is how often not everything was as it must be.
	Tried, Lost int
	// Measured is what a test tells besides; empty for nothing.
	Measured string
}

// Record notes a count with its test.
func Record(t testing.TB, item string, tried, lost int) {
	t.Helper()
	Line{Item: item, Tried: tried, Lost: lost}.Record(t)
}

// Record notes the line with its test.
func (l Line) Record(t testing.TB) {
	t.Helper()
	text, err := json.Marshal(l)
	require.NoError(t, err)
	t.Attr(key, string(text))
	t.Logf("%s: %d tried, %d lost; %s", l.Item, l.Tried, l.Lost, l.Measured)
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
