package main

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"github.com/vaultmount/vaultmount/provider/limits"
)

func TestLogLinesAreBounded(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("x", 1<<20)
	for _, test := range []struct {
		name string
		log  func(out *bytes.Buffer)
	}{
		{"a value", func(out *bytes.Buffer) { newLogger(out, 0).Info("Call failed", "pod", long) }},
		{"a value of many lines", func(out *bytes.Buffer) { newLogger(out, 0).Info("Call failed", "pod", strings.Repeat("x\n", 1<<19)) }},
		{"an error", func(out *bytes.Buffer) { newLogger(out, 0).Error(errors.New(long), "Call failed") }},
		{"names", func(out *bytes.Buffer) {
			newLogger(out, 0).Info("Call failed", "names", strings.SplitAfter(strings.Repeat("name ", 1<<18), " "))
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			var out bytes.Buffer
			test.log(&out)
			got := out.String()
			if len(got) > limits.LogLineBytes.Max() || len(got) < limits.LogLineBytes.Max()-4 || !strings.Contains(got, "Call failed") || !strings.HasSuffix(got, "...\n") {
				t.Errorf("%d bytes: %s", len(got), got)
			}
		})
	}
}

func TestLogLineAtTheLimitAndOneAbove(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	line := append(bytes.Repeat([]byte("x"), limits.LogLineBytes.Max()-1), '\n')
	if n, err := (boundedLines{&out}).Write(line); n != len(line) || err != nil || !bytes.Equal(out.Bytes(), line) {
		t.Errorf("at the limit: wrote %d bytes, %v", out.Len(), err)
	}
	out.Reset()
	line = append([]byte("x"), line...)
	if n, err := (boundedLines{&out}).Write(line); n != len(line) || err != nil || out.Len() != limits.LogLineBytes.Max() {
		t.Errorf("one above: wrote %d bytes, %v", out.Len(), err)
	}
}
