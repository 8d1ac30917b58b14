package tally

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestTable(t *testing.T) {
	t.Parallel()
	const output = `{"Action":"run","Test":"TestA"}
{"Action":"attr","Test":"TestA","Key":"tally","Value":"{\"Item\":\"b\",\"Tried\":3,\"Lost\":1}"}
not of go test
{"Action":"attr","Test":"TestA","Key":"other","Value":"x"}
{"Action":"attr","Test":"TestB","Key":"tally","Value":"{\"Item\":\"a\",\"Tried\":2,\"Lost\":0}"}
{"Action":"attr","Test":"TestB","Key":"tally","Value":"{\"Item\":\"b\",\"Tried\":4,\"Lost\":0}"}`
	lines, err := Read(strings.NewReader(output))
	require.NoError(t, err)
	got, err := Insert("# Title\n<!-- conformance -->\nold\n<!-- /conformance -->\nmore\n", "conformance", Markdown(lines))
	require.NoError(t, err)
	const want = `# Title
<!-- conformance -->
| what | tried | survived | lost |
|---|---:|---:|---:|
| a | 2 | 2 | 0 |
| b | 7 | 6 | 1 |
<!-- /conformance -->
more
`
	if got != want {
		t.Errorf("got\n%s", got)
	}
	if _, err := Insert("# Title\n", "conformance", ""); err == nil {
		t.Error("a document without marks is accepted")
	}
}

func TestTableShowsWhatWasMeasured(t *testing.T) {
	t.Parallel()
	const want = "| what | tried | survived | lost | measured |\n|---|---:|---:|---:|---|\n| a | 2 | 2 | 0 | 5 ms |\n| b | 1 | 0 | 1 |  |\n"
	if got := Markdown([]Line{{Item: "a", Tried: 2, Measured: "5 ms"}, {Item: "b", Tried: 1, Lost: 1}}); got != want {
		t.Errorf("got\n%s", got)
	}
}
