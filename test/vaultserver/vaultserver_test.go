package vaultserver

import (
	"context"
	"errors"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/vault/api"
	"github.com/stretchr/testify/require"
)

func TestServerStoresAndReadsASecret(t *testing.T) {
	t.Setenv("VAULT_ADDR", "http://192.0.2.1:1") // must not reach the client
	t.Setenv("VAULT_NAMESPACE", "elsewhere")
	client, err := ForTest(t, nil).Client()
	require.NoError(t, err)
	kv := client.KVv2("secret")
	if _, err := kv.Put(t.Context(), "app", map[string]any{"password": "hunter2"}); err != nil {
		t.Fatal(err)
	}
	secret, err := kv.Get(t.Context(), "app")
	if err != nil || secret.Data["password"] != "hunter2" {
		t.Fatalf("read %v, %v", secret, err)
	}
}

func TestServerHasTheKubernetesAuthMethod(t *testing.T) {
	client, err := ForTest(t, nil).Client()
	require.NoError(t, err)
	require.NoError(t, client.Sys().EnableAuthWithOptionsWithContext(t.Context(), "kubernetes", &api.EnableAuthOptions{Type: "kubernetes"}))
}

func TestStopEndsTheServerAndRemovesItsFiles(t *testing.T) {
	s := ForTest(t, nil)
	require.NoError(t, s.Stop())
	if _, err := os.Stat(s.dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("its directory is still there: %v", err)
	}
	if response, err := http.Get(s.Address); err == nil {
		response.Body.Close()
		t.Error("it still answers")
	}
}

func TestStartShowsWhyTheServerEnded(t *testing.T) {
	program, err := exec.LookPath("false")
	require.NoError(t, err)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	_, err = Start(ctx, program, nil)
	if err == nil || !strings.Contains(err.Error(), "exit status 1") {
		t.Fatalf("start gives %v; want the exit status", err)
	}
}
