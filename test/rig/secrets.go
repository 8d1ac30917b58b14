package rig

import (
	"testing"

	"github.com/vaultmount/vaultmount/driver/kubeletplugin"
	"github.com/vaultmount/vaultmount/test/canary"
)

// Planted are the canaries of every test: what Vault holds at first. The forms of
// tokens are looked for in any case.
func Planted() canary.Canaries { return canary.Canaries{"the password": Password} }

// RequireNoSecretIn holds a log against what is planted, once its test is over. One
// of a process that was killed at once may be empty.
func RequireNoSecretIn(t testing.TB, of string, log *Log) {
	t.Helper()
	if text := log.String(); text != "" {
		Planted().RequireNone(t, "log of the "+of, text)
	}
}

// Shown is where a driver that runs can be looked at; secrets are directories below
// the kubelet's root, beside the state, where secrets belong.
func (p *Process) Shown(t testing.TB, kubelet *Kubelet, secrets ...string) canary.Driver {
	t.Helper()
	return canary.Driver{
		Program: p.Args[0], PID: p.Process.Pid, Log: p.Log.String(),
		Health: "http://" + p.Address(t, "Serving health and metrics"), Socket: kubeletplugin.StatusSocket(kubelet.Root, DriverName),
		Root: kubelet.Root, Secret: append(secrets, kubelet.StateDirectory()),
	}
}
