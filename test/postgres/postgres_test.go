package postgres

import (
	"errors"
	"os"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"
)

func TestServerChecksPasswords(t *testing.T) {
	s := ForTest(t)
	admin, err := pgx.Connect(t.Context(), s.DSN(Admin, AdminPassword))
	require.NoError(t, err)
	defer admin.Close(t.Context())
	if _, err := admin.Exec(t.Context(), `CREATE ROLE app LOGIN PASSWORD 'right'`); err != nil {
		t.Fatal(err)
	}
	if err := s.Ping(t.Context(), "app", "right"); err != nil {
		t.Error(err)
	}
	if err := s.Ping(t.Context(), "app", "wrong"); err == nil || !strings.Contains(err.Error(), "password authentication failed") {
		t.Errorf("with a wrong password: %v", err)
	}
}

func TestStopRemovesItsFiles(t *testing.T) {
	s := ForTest(t)
	require.NoError(t, s.stop())
	if _, err := os.Stat(s.directory); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("its directory is still there: %v", err)
	}
	if err := s.Ping(t.Context(), Admin, AdminPassword); err == nil {
		t.Error("it still answers")
	}
}
