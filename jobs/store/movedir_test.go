package store_test

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/keywright/keywright/internal/durable"
	"github.com/keywright/keywright/jobs/store"
	"github.com/keywright/keywright/rotation"
)

// fillDir makes a journal in a new directory.
func fillDir(t *testing.T) (dir string, j rotation.Journal) {
	t.Helper()
	dir = filepath.Join(t.TempDir(), "state")
	j = rotation.NewDirJournal(dir)
	write(t, j, "a", chain("a", 3), "a1", "a2", "a3")
	write(t, j, "b", nil, "b1")
	write(t, j, "begun", nil)
	return dir, j
}

func put(t *testing.T, path, text string) {
	t.Helper()
	require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o700))
	require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
}

func TestMoveFromDir(t *testing.T) {
	t.Parallel()
	both(t, func(t *testing.T, d database) {
		ctx := t.Context()
		s := d.open(t)
		prepare(t, s)
		dir, _ := fillDir(t)
		const canary = "canary-sealing-key"
		put(t, filepath.Join(dir, "sealing.key"), canary)
		put(t, filepath.Join(dir, "sealing.key.lock"), "")
		put(t, filepath.Join(dir, "not ours", "lock"), "")
		put(t, filepath.Join(dir, "notes", "text"), "")
		put(t, filepath.Join(dir+".moved", "text"), "of an earlier move")
		put(t, dir+".moved2", "")
		// What a power cut has left, and a line that somebody has changed.
		trail, err := os.OpenFile(filepath.Join(dir, "a", "audit.jsonl"), os.O_APPEND|os.O_WRONLY, 0)
		require.NoError(t, err)
		_, err = trail.WriteString("\n" + `{"time":"hal`)
		require.NoError(t, errors.Join(err, trail.Close()))

		moved, err := s.MoveFromDir(ctx, dir)
		require.NoError(t, err)
		require.Equal(t, store.Moved{
			Jobs: []string{"a", "b"}, AuditLines: 5, Source: dir + ".moved3", SealKey: filepath.Join(dir+".moved3", "sealing.key"),
		}, moved)
		require.NoDirExists(t, dir)
		require.NotContains(t, fmt.Sprintf("%+v", moved), canary)
		require.FileExists(t, moved.SealKey)
		require.FileExists(t, filepath.Join(moved.Source, "notes", "text"))
		require.NoFileExists(t, filepath.Join(moved.Source, "notes", "lock"))
		for job, want := range map[string]string{"a": "a3", "b": "b1", "z": "z1"} {
			session := begin(t, s.Journal("w"), job)
			r, damaged, err := session.Load(ctx)
			require.NoError(t, err)
			require.False(t, damaged)
			require.Equal(t, want, string(r))
			require.NoError(t, session.Close())
		}
		require.Equal(t, strings.Join(chain("a", 3), "\n")+"\n\n"+`{"time":"hal`+"\n", trailOf(t, s, "a"))
		n, err := rotation.CheckAudit(strings.NewReader(trailOf(t, s, "a")))
		require.NoError(t, err)
		require.Equal(t, 3, n)
		require.Equal(t, "registered", value(t, s, `SELECT job FROM keywright_facts`), "what was known of a job is read anew")
		row, err := s.Get(ctx, "a")
		require.NoError(t, err)
		require.Equal(t, "new", row.Spec, "its schedule stays")
		_, err = s.MoveFromDir(ctx, dir)
		require.ErrorIs(t, err, fs.ErrNotExist)

		// Another directory, whose jobs are here.
		dir, j := fillDir(t)
		write(t, j, "a", nil, "a4")
		_, err = s.MoveFromDir(ctx, dir)
		var conflict *store.ConflictError
		require.ErrorAs(t, err, &conflict)
		require.Equal(t, []string{"a"}, conflict.Jobs, "the same as what is here is no conflict")
		write(t, j, "a", nil, "a5")
		require.NoDirExists(t, dir+".moved")
	})
}

// A directory that is not a journal is left alone.
func TestMoveFromDirRefused(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	s := sqliteAt(t).open(t)
	for name, spoil := range map[string]struct {
		do   func(dir string) error
		want error
	}{
		"missing":     {os.RemoveAll, fs.ErrNotExist},
		"empty":       {func(dir string) error { return errors.Join(os.RemoveAll(dir), os.Mkdir(dir, 0o700)) }, fs.ErrNotExist},
		"only begun":  {func(dir string) error { return errors.Join(os.RemoveAll(dir+"/a"), os.RemoveAll(dir+"/b")) }, fs.ErrNotExist},
		"others":      {func(dir string) error { return os.Chmod(dir, 0o755) }, rotation.ErrJournal},
		"a link":      {func(dir string) error { return errors.Join(os.Rename(dir, dir+"2"), os.Symlink(dir+"2", dir)) }, rotation.ErrJournal},
		"an open job": {func(dir string) error { return os.Chmod(dir+"/b", 0o755) }, rotation.ErrJournal},
		"damaged":     {func(dir string) error { return os.WriteFile(dir+"/b/state", []byte("x"), 0o600) }, rotation.ErrJournal},
	} {
		t.Run(name, func(t *testing.T) {
			dir, j := fillDir(t)
			require.NoError(t, spoil.do(dir))
			_, err := s.MoveFromDir(ctx, dir)
			require.ErrorIs(t, err, spoil.want)
			require.NoDirExists(t, dir+".moved")
			require.Equal(t, "0", value(t, s, `SELECT COUNT(*) FROM keywright_journal`))
			if name == "damaged" {
				write(t, j, "a", nil, "not locked any more")
			}
		})
	}
}

// A job's directory that has lost its lock file is a journal nevertheless.
func TestMoveFromDirWithoutLock(t *testing.T) {
	t.Parallel()
	for _, gone := range [][]string{{"lock"}, {"lock", "state"}, {"lock", "state", "state.prev"}} {
		s := sqliteAt(t).open(t)
		dir, _ := fillDir(t)
		for _, name := range gone {
			require.NoError(t, os.Remove(filepath.Join(dir, "a", name)))
		}
		moved, err := s.MoveFromDir(t.Context(), dir)
		require.NoError(t, err)
		require.Equal(t, []string{"a", "b"}, moved.Jobs)
		require.Equal(t, strings.Join(chain("a", 3), "\n")+"\n", trailOf(t, s, "a"))
	}
}

// What somebody has put into a directory is not taken for a journal, and does
// no harm.
func TestMoveFromDirHostile(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	for name, c := range map[string]struct {
		do      func(dir string) error
		refused bool // else the rest is moved
	}{
		"a long line": {func(dir string) error {
			f, err := os.Create(filepath.Join(dir, "a", "audit.jsonl"))
			return errors.Join(err, f.Truncate(8<<30), f.Close()) // zeros without an end
		}, true},
		"a huge record": {func(dir string) error { return os.Truncate(filepath.Join(dir, "a", "state"), 8<<30) }, true},
		"the lock is a link": {func(dir string) error {
			lock := filepath.Join(dir, "a", "lock")
			return errors.Join(os.Remove(lock), os.Symlink("/dev/null", lock))
		}, true},
		"the trail is a link": {func(dir string) error {
			trail := filepath.Join(dir, "a", "audit.jsonl")
			return errors.Join(os.Remove(trail), os.Symlink("/etc/passwd", trail))
		}, true},
		"the record is a link": {func(dir string) error {
			state := filepath.Join(dir, "a", "state")
			return errors.Join(os.Remove(state), os.Symlink("/etc/passwd", state))
		}, true},
		"a job is a link": {func(dir string) error { return os.Symlink(filepath.Join(dir, "a"), filepath.Join(dir, "c")) }, false},
		"odd names": {func(dir string) error {
			var errs []error
			for _, name := range []string{"-", "a b", "x\n", "\xff\xfe", ".hidden", "ü", "'; DROP TABLE keywright_journal; --", strings.Repeat("x", 101)} {
				errs = append(errs, os.Mkdir(filepath.Join(dir, name), 0o700))
			}
			return errors.Join(errs...)
		}, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := sqliteAt(t).open(t)
			dir, _ := fillDir(t)
			require.NoError(t, c.do(dir))
			moved, err := s.MoveFromDir(ctx, dir)
			if c.refused {
				require.Error(t, err)
				require.NotContains(t, err.Error(), "root:", "a content")
				require.DirExists(t, dir)
				require.Equal(t, "0", value(t, s, `SELECT COUNT(*) FROM keywright_journal`))
				return
			}
			require.NoError(t, err)
			require.Equal(t, []string{"a", "b"}, moved.Jobs)
		})
	}
}

func TestMoveFromDirBusy(t *testing.T) {
	t.Parallel()
	both(t, func(t *testing.T, d database) {
		s := d.open(t)
		dir, j := fillDir(t)
		held := begin(t, j, "b")
		_, err := s.MoveFromDir(t.Context(), dir)
		var busy *store.BusyError
		require.ErrorAs(t, err, &busy)
		require.Equal(t, "b", busy.Job)
		require.NoError(t, held.Save(t.Context(), []byte("b2")))
		require.NoError(t, held.Close())
		_, err = s.MoveFromDir(t.Context(), dir)
		require.NoError(t, err)
		r, err := s.Journal("w").Peek(t.Context(), "b")
		require.NoError(t, err)
		require.Equal(t, "b2", string(r))
	})
}

// That the latest record is damaged is not forgotten: there was one.
func TestMoveFromDirDamaged(t *testing.T) {
	t.Parallel()
	both(t, func(t *testing.T, d database) {
		ctx := t.Context()
		s := d.open(t)
		dir, _ := fillDir(t)
		put(t, filepath.Join(dir, "a", "state"), "damaged")
		_, err := s.MoveFromDir(ctx, dir)
		require.NoError(t, err)
		session := begin(t, s.Journal("w"), "a")
		r, damaged, err := session.Load(ctx)
		require.NoError(t, err)
		require.True(t, damaged)
		require.Equal(t, "a2", string(r))
		require.NoError(t, session.Save(ctx, []byte("a4")))
		r, damaged, err = session.Load(ctx)
		require.NoError(t, err)
		require.False(t, damaged)
		require.Equal(t, "a4", string(r))
		require.Equal(t, "a2", value(t, s, `SELECT prev_record FROM keywright_journal WHERE job = 'a'`))
		require.NoError(t, session.Close())
	})
}

// noRename is a file system on which a directory is not renamed, unless renames
// is true.
type noRename struct {
	durable.OS
	renames bool
	held    func()
}

func (f *noRename) Rename(from, to string) error {
	if !strings.HasSuffix(to, ".moved") {
		return f.OS.Rename(from, to)
	}
	f.held()
	if f.renames {
		return f.OS.Rename(from, to)
	}
	return errDead
}

// interruptedDir interrupts a move at a statement, if it has so many, and
// finishes it.
func interruptedDir(t *testing.T, d database, dir string, at int, lost bool) (tripped bool) {
	t.Helper()
	ctx := t.Context()
	s, w := open(t, d), &watch{at: at, lost: lost}
	require.NoError(t, s.Interpose(w.connector))
	_, err := s.MoveFromDir(ctx, dir)
	tripped = w.count >= at
	require.Equal(t, tripped, err != nil, "at %d, %v", at, err)
	require.NoError(t, s.Close())
	s = open(t, d)
	if err != nil {
		require.DirExists(t, dir)
		moved, err := s.MoveFromDir(ctx, dir)
		require.NoError(t, err)
		require.Equal(t, []string{"a", "b"}, moved.Jobs)
	}
	require.DirExists(t, dir+".moved")
	require.Equal(t, strings.Join(chain("a", 3), "\n")+"\n", trailOf(t, s, "a"))
	require.Equal(t, "a3", value(t, s, `SELECT record FROM keywright_journal WHERE job = 'a'`))
	require.Equal(t, "b1", value(t, s, `SELECT record FROM keywright_journal WHERE job = 'b'`))
	require.NoError(t, s.Close())
	return tripped
}

// A move that is interrupted at any of its statements, or at the end, is
// finished by the next.
func TestMoveFromDirInterrupted(t *testing.T) {
	t.Parallel()
	both(t, func(t *testing.T, d database) {
		ctx := t.Context()
		require.NoError(t, open(t, d).Close())
		empty := snapshot(t, d)
		full, _ := fillDir(t)
		at, tripped := 1, true
		for ; tripped; at++ {
			for _, lost := range []bool{false, true} {
				if soak || lost == (at%2 == 0) == (d.kind == "sqlite") { // the other half is shown by the other
					d = empty(t)
					dir := filepath.Join(t.TempDir(), "state")
					require.NoError(t, errors.Join(os.CopyFS(dir, os.DirFS(full)), private(dir)))
					tripped = interruptedDir(t, d, dir, at, lost)
				}
			}
		}
		require.Greater(t, at, 20)
		s := d.open(t)
		execute(t, s, `DELETE FROM keywright_journal`)
		execute(t, s, `DELETE FROM keywright_audit`)
		execute(t, s, `DELETE FROM keywright_received`)
		dir, j := fillDir(t)
		fsys := &noRename{held: func() {
			_, err := j.Begin(ctx, "a")
			require.ErrorIs(t, err, rotation.ErrBusy, "until it has another name")
			require.Equal(t, "2", value(t, s, `SELECT COUNT(*) FROM keywright_journal`), "the target is first")
		}}
		_, err := s.MoveFromDir(durable.NewContext(ctx, fsys), dir)
		require.ErrorIs(t, err, errDead)
		require.ErrorContains(t, err, "move them again")
		write(t, s.Journal("w"), "a", nil, "the target goes on")
		fsys.renames = true
		moved, err := s.MoveFromDir(durable.NewContext(ctx, fsys), dir)
		require.NoError(t, err)
		require.Equal(t, []string{"a", "b"}, moved.Before)
		require.Zero(t, moved.AuditLines)
		require.Equal(t, "the target goes on", value(t, s, `SELECT record FROM keywright_journal WHERE job = 'a'`))
	})
}

// Ten thousand directories are locked and moved.
//
// Nothing runs beside it, because it measures.
func TestMoveFromDirTenThousand(t *testing.T) {
	ctx, n := t.Context(), many
	s, dir := sqliteAt(t).open(t), filepath.Join(t.TempDir(), "state")
	write(t, rotation.NewDirJournal(dir), "key", chain("key", 20), strings.Repeat("x", 3000))
	for i := range n - 1 {
		require.NoError(t, os.CopyFS(filepath.Join(dir, fmt.Sprintf("key-%05d", i)), os.DirFS(filepath.Join(dir, "key"))))
		require.NoError(t, private(filepath.Join(dir, fmt.Sprintf("key-%05d", i))))
	}
	began := time.Now()
	moved, err := s.MoveFromDir(ctx, dir)
	require.NoError(t, err)
	require.Len(t, moved.Jobs, n)
	require.True(t, slices.IsSorted(moved.Jobs))
	t.Logf("moved %d directories in %s", n, time.Since(began).Round(time.Millisecond))
}

func private(dir string) error {
	return filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if e.IsDir() {
			return os.Chmod(path, 0o700)
		}
		return os.Chmod(path, 0o600)
	})
}
