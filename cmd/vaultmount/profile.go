//go:build profile

package main

import (
	"fmt"
	"net"
	"net/http"
	_ "net/http/pprof" // serves on http.DefaultServeMux
	"os"
)

// A program that is built with the tag "profile" shows where its time goes at the
// unix socket $VAULTMOUNT_PROFILE. None that is given out is: a profile shows
// what is in memory.
func init() {
	socket := os.Getenv("VAULTMOUNT_PROFILE")
	if socket == "" {
		return // a process that runs templates
	}
	listener, err := net.Listen("unix", socket)
	if err != nil {
		panic(fmt.Errorf("$VAULTMOUNT_PROFILE: %w", err))
	}
	go func() { _ = http.Serve(listener, nil) }() // for as long as the process runs
}
