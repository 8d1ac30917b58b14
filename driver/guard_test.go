package driver

import (
	"bytes"
	"os"
	"strings"
	"testing"

	"k8s.io/klog/v2/textlogger"
)

// Somebody removes what the driver is found by while it runs: the kubelet finds it
// anew, and the next process finds it as well.
func TestRegistrationIsGuarded(t *testing.T) {
	t.Parallel()
	config := newNode(t)
	p := newProcess(t, config)
	run(t, p)
	announced := link(t, p)
	notify(t, dial(t, announced))
	must(t, os.Remove(announced))
	must(t, os.Remove(p.registrationSocket()))
	awaitAnnounced(t, p, announced, false)
	anew := link(t, p)
	notify(t, dial(t, anew))
	next := newProcess(t, config)
	run(t, next)
	awaitAnnounced(t, next, anew, true)
}

// The driver is not ready before the kubelet has found it anew. An administrator reads
// one line when the registration is removed, and none while it lasts.
func TestGuardRestoresTheRegistration(t *testing.T) {
	t.Parallel()
	const anew, gone = "it is made anew", "cannot be made anew"
	type change = func(*testing.T, *Plugin)
	removeLink := func(t *testing.T, p *Plugin) { must(t, os.Remove(link(t, p))) }
	removeSocket := func(t *testing.T, p *Plugin) { must(t, os.Remove(p.registrationSocket())) }
	removeBoth := func(t *testing.T, p *Plugin) { removeLink(t, p); removeSocket(t, p) }
	removeDirectory := func(t *testing.T, p *Plugin) { must(t, os.RemoveAll(p.registry())) }
	makeDirectory := func(t *testing.T, p *Plugin) { must(t, os.Mkdir(p.registry(), 0o700)) }
	none := func(*testing.T, *Plugin) {}
	tests := []struct {
		name   string
		before []change // each look
		want   map[string]int
	}{
		{"all is there", []change{none, none}, map[string]int{}},
		{"the link is removed", []change{removeLink, none, none}, map[string]int{anew: 1}},
		{"the socket is removed", []change{removeSocket, none, none}, map[string]int{anew: 1}},
		{"both are removed, twice", []change{removeBoth, none, removeBoth, none}, map[string]int{anew: 2}},
		{"the kubelet's directory is removed", []change{removeDirectory, none, none}, map[string]int{gone: 1}},
		{"the kubelet's directory was removed", []change{removeDirectory, none, makeDirectory, none}, map[string]int{gone: 1, anew: 1}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			p, served := serveRegistered(t)
			var log bytes.Buffer
			served.logger = textlogger.NewLogger(textlogger.NewConfig(textlogger.Output(&log)))
			g := guard{term: served}
			for _, change := range test.before {
				change(t, p)
				g.look()
			}
			for _, words := range []string{anew, gone} {
				if got := strings.Count(log.String(), words); got != test.want[words] {
					t.Errorf("%q is said %d times, want %d:\n%s", words, got, test.want[words], log.String())
				}
			}
			if touched := len(test.want) > 0; p.Numbers().Registered == touched || (p.Ready(t.Context()) != nil) != touched {
				t.Errorf("before any notice of the kubelet: registered %t, ready %v", p.Numbers().Registered, p.Ready(t.Context()))
			}
			if test.want[gone] > test.want[anew] {
				return
			}
			notify(t, dial(t, link(t, p)))
			if err := p.Ready(t.Context()); err != nil {
				t.Errorf("after the notice: %v", err)
			}
			select {
			case err := <-served.failed:
				t.Errorf("a server fails: %v", err)
			default:
			}
		})
	}
}

// serveRegistered is a driver that the kubelet has registered, and that nobody guards.
func serveRegistered(t *testing.T) (*Plugin, *term) {
	t.Helper()
	p := newProcess(t, newNode(t))
	served := p.newTerm(logged(t, t.Context()))
	t.Cleanup(func() { must(t, served.stop()) })
	must(t, p.takeCharge(t.Context(), func() error { return nil }))
	must(t, served.serve())
	must(t, p.announce())
	notify(t, dial(t, link(t, p)))
	return p, served
}
