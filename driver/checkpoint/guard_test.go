package checkpoint

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"k8s.io/klog/v2/textlogger"
)

// What an administrator reads when somebody unmounts the state: one line when it
// happens, and none while it lasts.
func TestGuardTellsOnce(t *testing.T) {
	t.Parallel()
	const back, gone = "it is mounted again", "cannot be mounted again"
	occupied := errors.New("something else is there")
	tests := []struct {
		name  string
		looks []error // nil is a state that was unmounted and is mounted again
		fine  int     // looks after which it is there, at the end
		want  map[string]int
	}{
		{"it is there", nil, 3, map[string]int{}},
		{"it was unmounted", []error{nil}, 2, map[string]int{back: 1}},
		{"it was unmounted twice", []error{nil, nil}, 0, map[string]int{back: 2}},
		{"something is in the way", []error{occupied, occupied, occupied}, 0, map[string]int{gone: 1}},
		{"something was in the way", []error{occupied, occupied, nil, occupied}, 0, map[string]int{gone: 2, back: 1}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			var log bytes.Buffer
			left := test.looks
			g := guard{logger: textlogger.NewLogger(textlogger.NewConfig(textlogger.Output(&log))), tmpfs: inDirectory{attach: func() (bool, error) {
				if len(left) == 0 {
					return false, nil
				}
				err := left[0]
				left = left[1:]
				return err == nil, err
			}}}
			for range len(test.looks) + test.fine {
				g.look()
			}
			for _, words := range []string{back, gone} {
				if got := strings.Count(log.String(), words); got != test.want[words] {
					t.Errorf("%q is said %d times, want %d:\n%s", words, got, test.want[words], log.String())
				}
			}
		})
	}
}

// A process that ends looks once more: the unmount may have been since the last look.
func TestCloseBringsTheStateBack(t *testing.T) {
	t.Parallel()
	for name, end := range map[string]func(*Store) error{"close": (*Store).Close, "discard": (*Store).Discard} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			looks := 0
			s := openWith(t, t.TempDir(), func() (bool, error) { looks++; return true, nil })
			if err := s.Save("volume-1", nil); err != nil {
				t.Fatal(err)
			}
			if err := end(s); err != nil || looks != 1 {
				t.Errorf("%d looks, %v", looks, err)
			}
		})
	}
}
