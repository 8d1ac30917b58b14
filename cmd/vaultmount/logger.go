package main

import (
	"fmt"
	"io"

	"k8s.io/klog/v2"
	"k8s.io/klog/v2/textlogger"

	"github.com/vaultmount/vaultmount/provider/limits"
)

// newLogger writes log lines to out.
func newLogger(out io.Writer, verbosity int) klog.Logger {
	return textlogger.NewLogger(textlogger.NewConfig(textlogger.Output(boundedLines{out}), textlogger.Verbosity(verbosity)))
}

// boundedLines cuts log lines off at their limit. Errors are bounded where they are made;
// this holds for what other authors log, and for lists of names.
type boundedLines struct{ out io.Writer }

// Write implements io.Writer. The logger calls it once for each line.
func (b boundedLines) Write(line []byte) (int, error) {
	const end = "\n"
	if limits.LogLineBytes.Check(len(line)) != nil {
		cut := limits.Truncate(string(line), limits.LogLineBytes.Max()-len(end)) + end
		if _, err := io.WriteString(b.out, cut); err != nil {
			return 0, fmt.Errorf("write a log line: %w", err)
		}
		return len(line), nil
	}
	return b.out.Write(line)
}
