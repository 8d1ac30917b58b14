package parts

import (
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// quick is how long something may take that nobody needs to hear of.
const quick = 3 * time.Second

// startProgress tells on w that title is under way, once that takes longer than a
// second: one line rewritten each second on a terminal, otherwise a new line every
// half minute. The function it returns ends that, and writes the total.
func startProgress(w io.Writer, title string) (stop func()) {
	p := &progress{w: w, title: title, terminal: isTerminal(w), begin: time.Now()}
	interval := 30 * time.Second
	if p.terminal {
		interval = time.Second
	}
	done := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() { p.run(interval, done) })
	return func() {
		close(done)
		wg.Wait()
	}
}

// progress is one line, or on other than a terminal one series of lines.
type progress struct {
	w        io.Writer
	title    string
	terminal bool
	begin    time.Time
}

func (p *progress) run(interval time.Duration, done <-chan struct{}) {
	select {
	case <-time.After(quick):
	case <-done:
		return
	}
	p.write(time.Now())
	tick := time.NewTicker(interval)
	defer tick.Stop()
	for {
		select {
		case now := <-tick.C:
			p.write(now)
		case <-done:
			p.write(time.Now())
			if p.terminal {
				fmt.Fprintln(p.w)
			}
			return
		}
	}
}

func (p *progress) write(now time.Time) {
	line := fmt.Sprintf("%s … %.0f s", p.title, now.Sub(p.begin).Seconds())
	if p.terminal {
		fmt.Fprint(p.w, "\r"+line)
		return
	}
	fmt.Fprintln(p.w, line)
}

func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	_, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	return err == nil
}
