//go:build unix

package store_test

import (
	"fmt"
	"net"
	"net/url"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
)

// pooled puts PgBouncer between a store and its database.
func pooled(t *testing.T, d database, mode string, size int) database {
	t.Helper()
	program, err := exec.LookPath("pgbouncer")
	if err != nil {
		t.Skip("PgBouncer is not installed")
	}
	dir, err := os.MkdirTemp("", "kwpb-")
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, os.RemoveAll(dir)) })
	u, err := url.Parse(d.where)
	require.NoError(t, err)
	name := strings.TrimPrefix(u.Path, "/")
	settings := filepath.Join(dir, "pgbouncer.ini")
	require.NoError(t, os.WriteFile(settings, fmt.Appendf(nil, `[databases]
%s = host=%s dbname=%s user=postgres
[pgbouncer]
listen_addr =
listen_port = 5432
unix_socket_dir = %s
auth_type = any
pool_mode = %s
default_pool_size = %d
`, name, u.Query().Get("host"), name, dir, mode, size), 0o644))
	cmd := exec.Command(program, settings)
	if os.Geteuid() == 0 { // it does not run as root
		who, err := user.Lookup("postgres")
		require.NoError(t, err)
		uid, err := strconv.Atoi(who.Uid)
		require.NoError(t, err)
		require.NoError(t, os.Chown(dir, uid, -1))
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(uid)}}
	}
	require.NoError(t, cmd.Start())
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	until(t, "PgBouncer", func() bool {
		conn, err := net.Dial("unix", filepath.Join(dir, ".s.PGSQL.5432"))
		return err == nil && conn.Close() == nil
	})
	u.RawQuery = "host=" + url.QueryEscape(dir)
	return database{kind: "postgres", where: u.String()}
}

// A pooler that gives each transaction another session is refused; one that does
// not is used.
func TestPooler(t *testing.T) {
	t.Parallel()
	d := postgresAt(t)
	d.open(t)
	for mode, size := range map[string]int{"transaction": 1, "transaction ": 3, "statement": 3, "session": 12} {
		t.Run(mode, func(t *testing.T) {
			t.Parallel()
			p := pooled(t, d, strings.TrimSpace(mode), size)
			if mode != "session" {
				_, err := openAt(t.Context(), p.kind, p.where)
				require.ErrorContains(t, err, "pooler in transaction mode")
				return
			}
			journalSuite(t, p.open(t).Journal("w"))
		})
	}
}
