package pgtest_test

import (
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/keywright/keywright/jobs/internal/pgtest"
)

func TestStart(t *testing.T) {
	t.Parallel()
	a, b := pgtest.Start(t), pgtest.Start(t)
	require.NotEqual(t, a, b)
	for _, url := range []string{a, b} {
		conn, err := pgx.Connect(t.Context(), url)
		require.NoError(t, err)
		_, err = conn.Exec(t.Context(), "CREATE TABLE t (n int)")
		require.NoError(t, err)
		require.NoError(t, conn.Close(t.Context()))
	}
}

func TestOutage(t *testing.T) {
	t.Parallel()
	s := pgtest.New(t)
	url := s.Database(t)
	for _, end := range []func(testing.TB){s.Stop, s.Crash} {
		end(t)
		_, err := pgx.Connect(t.Context(), url)
		require.Error(t, err)
		s.Start(t)
		conn, err := pgx.Connect(t.Context(), url)
		require.NoError(t, err)
		require.NoError(t, conn.Close(t.Context()))
	}
}
