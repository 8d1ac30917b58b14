package tally

import (
	"os"
	"os/exec"
	"strings"
	"testing"
)

// endVariable has TestAtEnd fail in a process of its own, to be looked at.
const endVariable = "TALLY_FAILS"

// A test that ends before its end has lost something, and says so.
func TestAtEnd(t *testing.T) {
	if os.Getenv(endVariable) != "" {
		AtEnd(t, "an item", 7)
		t.FailNow()
	}
	command := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestAtEnd$", "-test.v")
	command.Env = append(os.Environ(), endVariable+"=1")
	printed, err := command.CombinedOutput()
	if err == nil || !strings.Contains(string(printed), `tally {"Item":"an item","Tried":7,"Lost":1,"Measured":""}`) {
		t.Errorf("%v: %s", err, printed)
	}
}
