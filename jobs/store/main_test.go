package store_test

import (
	"bufio"
	"context"
	"database/sql"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/keywright/keywright/jobs/internal/pgtest"
	"github.com/keywright/keywright/jobs/store"
	"github.com/keywright/keywright/rotation"
)

// A test starts this binary again to have another process.
const childVariable = "KEYWRIGHT_STORE_CHILD"

func TestMain(m *testing.M) {
	if what := os.Getenv(childVariable); what != "" {
		os.Exit(child(what, os.Args[1:]))
	}
	// Most tests wait, for a disk or for a lease, and cost little meanwhile.
	flag.Parse()
	if err := flag.Set("test.parallel", "12"); err != nil {
		panic(err)
	}
	goleak.VerifyTestMain(m)
}

// database is a place that stores are opened at.
type database struct{ kind, where string }

func (d database) open(t testing.TB, opts ...store.Option) *store.Store {
	t.Helper()
	s, err := openAt(t.Context(), d.kind, d.where, opts...)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, s.Close()) })
	return s
}

func openAt(ctx context.Context, kind, where string, opts ...store.Option) (*store.Store, error) {
	if kind == "postgres" {
		return store.OpenPostgres(ctx, where, opts...)
	}
	return store.OpenSQLite(ctx, where, opts...)
}

func sqliteAt(t testing.TB) database {
	return database{kind: "sqlite", where: filepath.Join(t.TempDir(), "private", "keywright.db")}
}

func postgresAt(t testing.TB) database {
	return database{kind: "postgres", where: pgtest.Start(t)}
}

// soak says that there is time for all that a test can show; else it shows each
// thing once.
var soak = os.Getenv("KEYWRIGHT_SOAK") == "1"

// pick returns the greater number when there is time for it.
func pick(quick, long int) int {
	if soak {
		return long
	}
	return quick
}

// snapshot keeps what is in a database that nobody has open, and returns what
// brings it back, much faster than it is made: in another file on SQLite, in the
// same database on PostgreSQL.
func snapshot(t *testing.T, d database) (restore func(*testing.T) database) {
	t.Helper()
	if d.kind == "sqlite" {
		b, err := os.ReadFile(d.where)
		require.NoError(t, err)
		require.NoFileExists(t, d.where+"-wal")
		return func(t *testing.T) database {
			t.Helper()
			d := sqliteAt(t)
			require.NoError(t, os.Mkdir(filepath.Dir(d.where), 0o700))
			require.NoError(t, os.WriteFile(d.where, b, 0o600))
			return d
		}
	}
	db, err := sql.Open("pgx", d.where)
	require.NoError(t, err)
	defer db.Close()
	var names, keep, bring string
	require.NoError(t, db.QueryRowContext(t.Context(), `SELECT string_agg(tablename, ', '), string_agg('CREATE TABLE kept.' || tablename || ' AS TABLE ' || tablename, '; '),
		string_agg('INSERT INTO ' || tablename || ' SELECT * FROM kept.' || tablename, '; ') FROM pg_tables WHERE tablename LIKE 'keywright%' AND schemaname = 'public'`).Scan(&names, &keep, &bring))
	_, err = db.ExecContext(t.Context(), `CREATE SCHEMA kept; `+keep)
	require.NoError(t, err)
	return func(t *testing.T) database {
		t.Helper()
		db, err := sql.Open("pgx", d.where)
		require.NoError(t, err)
		_, err = db.ExecContext(t.Context(), `TRUNCATE `+names+`; `+bring)
		require.NoError(t, errors.Join(err, db.Close()))
		return d
	}
}

// both runs a test on either database.
func both(t *testing.T, test func(*testing.T, database)) {
	t.Run("sqlite", func(t *testing.T) { t.Parallel(); test(t, sqliteAt(t)) })
	t.Run("postgres", func(t *testing.T) { t.Parallel(); test(t, postgresAt(t)) })
}

// child is what this binary does as another process.
func child(what string, args []string) int {
	ctx := context.Background()
	fail := func(err error) int { fmt.Println("failed:", err); return 1 }
	in := bufio.NewScanner(os.Stdin)
	if what == "migrate" {
		fmt.Println("ready")
		in.Scan() // so that all begin at once
	}
	lease, err := time.ParseDuration(args[2])
	if err != nil {
		return fail(err)
	}
	s, err := openAt(ctx, args[0], args[1], store.WithLease(lease))
	if err != nil {
		return fail(err)
	}
	if what == "migrate" {
		if err := s.Close(); err != nil {
			return fail(err)
		}
		fmt.Println("done")
		return 0
	}
	session, err := s.Journal("child").Begin(ctx, "job")
	if err != nil {
		return fail(err)
	}
	if err := session.Reserve(ctx); err != nil {
		return fail(err)
	}
	fmt.Println("holding")
	for in.Scan() {
		err := session.Save(ctx, in.Bytes())
		switch {
		case errors.Is(err, store.ErrFenced):
			err = s.Held("job")
			fmt.Println("fenced", errors.Is(err, store.ErrFenced))
		case err != nil:
			fmt.Println("failed:", err)
		default:
			fmt.Println("saved")
		}
	}
	return 0
}

// process is a child.
type process struct {
	t   *testing.T
	cmd *exec.Cmd
	in  io.WriteCloser
	out *bufio.Scanner
}

func spawn(t *testing.T, what string, d database, lease time.Duration) *process {
	t.Helper()
	exe, err := os.Executable()
	require.NoError(t, err)
	p := &process{t: t, cmd: exec.Command(exe, d.kind, d.where, lease.String())}
	p.cmd.Env = append(os.Environ(), childVariable+"="+what)
	p.cmd.Stderr = os.Stderr
	p.in, err = p.cmd.StdinPipe()
	require.NoError(t, err)
	out, err := p.cmd.StdoutPipe()
	require.NoError(t, err)
	p.out = bufio.NewScanner(out)
	require.NoError(t, p.cmd.Start())
	t.Cleanup(func() { _ = p.cmd.Process.Kill(); _ = p.cmd.Wait() })
	return p
}

func (p *process) says() string {
	p.t.Helper()
	require.True(p.t, p.out.Scan(), "the child has ended")
	return p.out.Text()
}

func (p *process) ask(line string) string {
	p.t.Helper()
	_, err := io.WriteString(p.in, line+"\n")
	require.NoError(p.t, err)
	return p.says()
}

// begin opens a session.
func begin(t *testing.T, j rotation.Journal, job string) rotation.Session {
	t.Helper()
	s, err := j.Begin(t.Context(), job)
	require.NoError(t, err)
	return s
}

// pad makes a record of about n bytes.
func pad(text string, n int) []byte { return []byte(text + strings.Repeat("x", n)) }
