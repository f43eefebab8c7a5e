package store_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/keywright/keywright/jobs/store"
	"github.com/keywright/keywright/rotation"
)

func TestOpenOptions(t *testing.T) {
	t.Parallel()
	for _, bad := range []store.Option{store.WithLease(0), store.WithPatience(-1), store.WithLogger(nil)} {
		_, err := store.OpenSQLite(t.Context(), filepath.Join(t.TempDir(), "d", "k.db"), bad)
		require.Error(t, err)
		_, err = store.OpenPostgres(t.Context(), "host=/none", bad)
		require.Error(t, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := store.OpenSQLite(ctx, filepath.Join(t.TempDir(), "d", "k.db"))
	require.ErrorIs(t, err, context.Canceled)
}

// Errors of opening show no password.
func TestOpenPostgresShowsNoPassword(t *testing.T) {
	t.Parallel()
	for _, connection := range []string{
		"postgres://me:canary@127.0.0.1:1/db?connect_timeout=1", "postgres://me:can%zzary@127.0.0.1/db", "postgres://me:canary@127.0.0.1:port/db",
		"host=127.0.0.1 port=1 password=canary connect_timeout=1", "host=127.0.0.1 port=1 password='canary", "canary",
	} {
		_, err := store.OpenPostgres(t.Context(), connection)
		require.Error(t, err)
		require.NotContains(t, err.Error(), "canary")
		require.NotContains(t, err.Error(), "can%zzary")
	}
}

func TestOpenSQLiteFiles(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"keywright.db", "a b?c%41#d&e=f.db", "ü;x'y\"z.db"} {
		d := database{kind: "sqlite", where: filepath.Join(t.TempDir(), "private", name)}
		s := d.open(t)
		require.Equal(t, d.where, s.Path())
		require.Nil(t, s.Pool())
		session := begin(t, s.Journal("w"), "a")
		require.NoError(t, session.Reserve(t.Context()))
		n := 0
		require.NoError(t, filepath.Walk(filepath.Dir(d.where), func(path string, info os.FileInfo, err error) error {
			require.NoError(t, err)
			n++
			want := os.FileMode(0o600)
			if info.IsDir() {
				want = 0o700
			}
			assert.Equal(t, want, info.Mode().Perm(), path)
			assert.True(t, info.IsDir() || strings.HasPrefix(info.Name(), name) || strings.HasPrefix(info.Name(), "a.") || strings.HasPrefix(info.Name(), "."), path)
			return nil
		}))
		assert.Equal(t, 9, n, "the directory; the database, its log and its memory; the locks' directory, two locks, two spares")
		require.NoError(t, session.Close())
		for pragma, want := range map[string]string{"journal_mode": "wal", "synchronous": "2", "busy_timeout": "10000", "fullfsync": "1", "checkpoint_fullfsync": "1"} {
			var got string
			require.NoError(t, s.SQL().QueryRowContext(t.Context(), "PRAGMA "+pragma).Scan(&got))
			assert.Equal(t, want, got, pragma)
		}
	}
}

func TestOpenSQLiteRefusesWhatIsOpen(t *testing.T) {
	t.Parallel()
	for name, spoil := range map[string]func(path string) error{
		"directory": func(p string) error { return os.Chmod(filepath.Dir(p), 0o755) },
		"file":      func(p string) error { return os.Chmod(p, 0o640) },
		"locks":     func(p string) error { return os.Chmod(p+".locks", 0o770) },
		"log":       func(p string) error { return os.WriteFile(p+"-wal", nil, 0o644) },
		"two names": func(p string) error { return os.Link(p, p+"2") },
		"a link":    func(p string) error { return os.Rename(p, p+"2") },
		"directories": func(p string) error {
			if err := os.Remove(p); err != nil {
				return err
			}
			return os.Mkdir(p, 0o700)
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			path := filepath.Join(t.TempDir(), "private", "k.db")
			s, err := store.OpenSQLite(t.Context(), path)
			require.NoError(t, err)
			require.NoError(t, s.Close())
			require.NoError(t, spoil(path))
			if name == "a link" {
				require.NoError(t, os.Symlink(path+"2", path))
			}
			_, err = store.OpenSQLite(t.Context(), path)
			require.ErrorIs(t, err, rotation.ErrJournal)
			_, err = store.OpenSQLite(t.Context(), path)
			require.ErrorIs(t, err, rotation.ErrJournal, "and nothing stays locked")
		})
	}
	path := filepath.Join(t.TempDir(), "private", "k.db")
	require.NoError(t, os.Mkdir(filepath.Dir(path), 0o700))
	require.NoError(t, os.WriteFile(path, []byte(strings.Repeat("this is no database ", 1000)), 0o600))
	_, err := store.OpenSQLite(t.Context(), path)
	require.ErrorIs(t, err, rotation.ErrJournal)
}

// A file that is not the one any more that was opened takes no record: nobody
// would find it there.
func TestSQLiteFileReplaced(t *testing.T) {
	t.Parallel()
	for name, spoil := range map[string]func(path string) error{
		"removed": os.Remove,
		"moved":   func(p string) error { return os.Rename(p, p+"2") },
		"restored": func(p string) error {
			b, err := os.ReadFile(p)
			return errors.Join(err, os.WriteFile(p+"2", b, 0o600), os.Rename(p+"2", p))
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ctx := t.Context()
			d := sqliteAt(t)
			st := d.open(t)
			s := begin(t, st.Journal("w"), "a")
			require.NoError(t, s.Save(ctx, []byte("one")))
			require.NoError(t, spoil(d.where))
			require.ErrorIs(t, s.Save(ctx, []byte("two")), rotation.ErrJournal)
			require.ErrorIs(t, s.Reserve(ctx), rotation.ErrJournal)
			require.NoError(t, s.Close())
			_, err := st.Journal("w").Begin(ctx, "a")
			require.ErrorIs(t, err, rotation.ErrJournal)
		})
	}
}

// A file that was restored beside the log of another is refused when the two do
// not fit.
func TestStaleLog(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	d := sqliteAt(t)
	st := d.open(t)
	save := func(texts ...string) {
		for _, text := range texts {
			var events []store.Event
			for i := range 200 {
				events = append(events, store.Event{Job: fmt.Sprint("job-", i%40), Text: string(pad(text, 500))})
			}
			require.NoError(t, st.AddEvent(ctx, events...))
		}
	}
	copyTo := func(suffix, to string) {
		b, err := os.ReadFile(d.where + suffix)
		require.NoError(t, err)
		require.NoError(t, os.WriteFile(to, b, 0o600))
	}
	save("one")
	execute(t, st, `PRAGMA wal_checkpoint(TRUNCATE)`)
	dir := t.TempDir()
	require.NoError(t, os.Chmod(dir, 0o700))
	restored := filepath.Join(dir, "k.db")
	copyTo("", restored)
	save("two", "three")
	execute(t, st, `PRAGMA wal_checkpoint(TRUNCATE)`)
	save("four")
	copyTo("-wal", restored+"-wal")
	_, err := store.OpenSQLite(ctx, restored)
	require.ErrorIs(t, err, rotation.ErrJournal)
}

// A database of a newer program is left alone, and the error says so.
func TestNewerVersion(t *testing.T) {
	t.Parallel()
	both(t, func(t *testing.T, d database) {
		s := d.open(t)
		_, err := s.SQL().ExecContext(t.Context(), `INSERT INTO keywright_schema (version) VALUES (7)`)
		require.NoError(t, err)
		_, err = openAt(t.Context(), d.kind, d.where)
		require.ErrorIs(t, err, store.ErrVersion)
		require.ErrorContains(t, err, "it has version 7, and this program knows versions up to 1")
		if d.kind == "postgres" { // to a role that may not make tables, too
			execute(t, s, `DO $$ BEGIN CREATE ROLE reader LOGIN; EXCEPTION WHEN duplicate_object THEN NULL; END $$; GRANT SELECT ON keywright_schema TO reader`)
			_, err = openAt(t.Context(), d.kind, strings.Replace(d.where, "postgres://postgres@", "postgres://reader@", 1))
			require.ErrorIs(t, err, store.ErrVersion)
		}
	})
}

// A migration happens whole or not at all, and after those before it.
func TestMigrations(t *testing.T) {
	t.Parallel()
	both(t, func(t *testing.T, d database) {
		ctx := t.Context()
		s := d.open(t)
		version := func() (v int) {
			require.NoError(t, s.SQL().QueryRowContext(ctx, `SELECT MAX(version) FROM keywright_schema`).Scan(&v))
			return v
		}
		require.Equal(t, 1, version())
		err := s.MigrateTo(ctx, []string{`CREATE TABLE keywright_second (n {int} NOT NULL, at {time}) {strict}`}, []string{`CREATE TABLE keywright_third (n {int} NOT NULL) {strict}`, `CREATE nonsense`})
		require.ErrorContains(t, err, "migration 3: CREATE nonsense")
		require.Equal(t, 1, version())
		require.NoError(t, s.MigrateTo(ctx, []string{`CREATE TABLE keywright_second (n {int} NOT NULL, at {time}) {strict}`}))
		require.Equal(t, 2, version())
		_, err = s.SQL().ExecContext(ctx, `INSERT INTO keywright_second (n) VALUES (1)`)
		require.NoError(t, err)
		_, err = openAt(ctx, d.kind, d.where)
		require.ErrorIs(t, err, store.ErrVersion)
	})
}

// Four processes that open a database for the first time at once all find it
// migrated once.
func TestMigrateAtOnce(t *testing.T) {
	t.Parallel()
	both(t, func(t *testing.T, d database) {
		var children []*process
		for range 4 {
			children = append(children, spawn(t, "migrate", d, time.Second))
		}
		for _, c := range children {
			require.Equal(t, "ready", c.says())
		}
		for _, c := range children {
			_, err := c.in.Write([]byte("go\n"))
			require.NoError(t, err)
		}
		for _, c := range children {
			assert.Equal(t, "done", c.says())
		}
		var n int
		require.NoError(t, d.open(t).SQL().QueryRowContext(t.Context(), `SELECT COUNT(*) FROM keywright_schema`).Scan(&n))
		assert.Equal(t, 1, n)
	})
}

// A role that may not make tables can work with those that are there.
func TestLimitedRole(t *testing.T) {
	t.Parallel()
	d := postgresAt(t)
	ctx := t.Context()
	s := d.open(t)
	for _, q := range []string{
		`DO $$ BEGIN CREATE ROLE limited LOGIN; EXCEPTION WHEN duplicate_object THEN NULL; END $$`,
		`REVOKE CREATE ON SCHEMA public FROM PUBLIC`,
		`GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO limited`,
		`GRANT USAGE ON ALL SEQUENCES IN SCHEMA public TO limited`,
	} {
		_, err := s.SQL().ExecContext(ctx, q)
		require.NoError(t, err)
	}
	l := database{kind: "postgres", where: strings.Replace(d.where, "postgres://postgres@", "postgres://limited@", 1)}.open(t)
	require.NotNil(t, l.Pool())
	session := begin(t, l.Journal("w"), "a")
	require.NoError(t, session.Reserve(ctx))
	require.NoError(t, session.Save(ctx, []byte("x")))
	require.NoError(t, session.Append(ctx, []byte("x")))
	require.NoError(t, session.Close())
	_, err := l.AddRun(ctx, store.Run{Job: "a"})
	require.NoError(t, err)
}

func TestExclusive(t *testing.T) {
	t.Parallel()
	both(t, func(t *testing.T, d database) {
		a, b := d.open(t), d.open(t)
		unlock, err := a.Exclusive(t.Context())
		require.NoError(t, err)
		second, err := b.Exclusive(t.Context())
		if d.kind == "postgres" {
			require.NoError(t, err)
			require.NoError(t, second())
		} else {
			require.ErrorIs(t, err, store.ErrLocked)
		}
		require.NoError(t, unlock())
		unlock, err = b.Exclusive(t.Context())
		require.NoError(t, err)
		require.NoError(t, unlock())
		require.NoError(t, a.Ping(t.Context()))
	})
}
