//go:build unix

package store_test

import (
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/keywright/keywright/jobs/store"
	"github.com/keywright/keywright/rotation"
)

const shortLease = 700 * time.Millisecond

// takeover waits until a job is free, and begins it.
func takeover(t *testing.T, j rotation.Journal) (s rotation.Session) {
	t.Helper()
	until(t, "takeover", func() bool {
		var err error
		if s, err = j.Begin(t.Context(), "job"); err != nil {
			require.ErrorIs(t, err, rotation.ErrBusy)
		}
		return err == nil
	})
	return s
}

// The job of a process that was killed is free: at once with the kernel's lock,
// after the lease without it.
func TestHolderKilled(t *testing.T) {
	t.Parallel()
	both(t, func(t *testing.T, d database) {
		j := d.open(t, store.WithLease(shortLease)).Journal("parent")
		for range 5 {
			c := spawn(t, "hold", d, shortLease)
			require.Equal(t, "holding", c.says())
			require.Equal(t, "saved", c.ask("from the child"))
			_, err := j.Begin(t.Context(), "job")
			require.ErrorIs(t, err, rotation.ErrBusy)
			require.NoError(t, c.cmd.Process.Kill())
			require.Error(t, c.cmd.Wait())
			var s rotation.Session
			if d.kind == "sqlite" {
				spares, err := filepath.Glob(d.where + ".locks/job.spare*")
				require.NoError(t, err)
				require.Len(t, spares, 2)
				s = begin(t, j, "job")
				spares, err = filepath.Glob(d.where + ".locks/job.spare*")
				require.NoError(t, err)
				require.Empty(t, spares, "what a dead process has reserved is given back")
			} else {
				s = takeover(t, j)
			}
			b, damaged, err := s.Load(t.Context())
			require.NoError(t, err)
			assert.False(t, damaged)
			assert.Equal(t, "from the child", string(b))
			require.NoError(t, s.Close())
		}
	})
}

// A process that is killed in the middle of its writes leaves the record that
// it was told is saved, or the one that it was writing.
func TestKilledWhileSaving(t *testing.T) {
	t.Parallel()
	both(t, func(t *testing.T, d database) {
		j := d.open(t, store.WithLease(shortLease)).Journal("parent")
		for range 5 {
			c := spawn(t, "hold", d, shortLease)
			require.Equal(t, "holding", c.says())
			told := make(chan string)
			go func() {
				last := ""
				for c.out.Scan() {
					last = c.out.Text()
				}
				told <- last
			}()
			n := 0
			for end := time.Now().Add(100 * time.Millisecond); time.Now().Before(end); n++ {
				if _, err := c.in.Write(append(pad("", n%5000), '\n')); err != nil {
					break
				}
			}
			require.NoError(t, c.cmd.Process.Kill())
			assert.Contains(t, []string{"saved", ""}, <-told)
			_ = c.cmd.Wait()
			s := takeover(t, j)
			_, damaged, err := s.Load(t.Context())
			require.NoError(t, err)
			assert.False(t, damaged)
			require.NoError(t, s.Save(t.Context(), []byte("next")))
			require.NoError(t, s.Close())
		}
	})
}

// A process that was stopped for longer than its lease finds the job taken
// over, and writes nothing.
func TestHolderStoppedLosesLease(t *testing.T) {
	t.Parallel()
	d := postgresAt(t)
	j := d.open(t, store.WithLease(shortLease)).Journal("parent")
	c := spawn(t, "hold", d, shortLease)
	require.Equal(t, "holding", c.says())
	require.Equal(t, "saved", c.ask("from the child"))
	require.NoError(t, c.cmd.Process.Signal(syscall.SIGSTOP))
	s := takeover(t, j)
	require.NoError(t, s.Save(t.Context(), []byte("from the parent")))
	require.NoError(t, c.cmd.Process.Signal(syscall.SIGCONT))
	require.Equal(t, "fenced true", c.ask("late"))
	require.Equal(t, "fenced true", c.ask("late again"))
	b, err := j.Peek(t.Context(), "job")
	require.NoError(t, err)
	assert.Equal(t, "from the parent", string(b))
	require.NoError(t, s.Close())
	require.Equal(t, "fenced true", c.ask("too late"), "also when the job is free again")
}

// With the kernel's lock a process that is stopped keeps its job, and goes on
// when it continues. Only if somebody removes the lock file is it fenced.
func TestHolderStoppedKeepsLock(t *testing.T) {
	t.Parallel()
	d := sqliteAt(t)
	st := d.open(t)
	j := st.Journal("parent")
	c := spawn(t, "hold", d, shortLease)
	require.Equal(t, "holding", c.says())
	require.NoError(t, c.cmd.Process.Signal(syscall.SIGSTOP))
	for end := time.Now().Add(2 * shortLease); time.Now().Before(end); {
		_, err := j.Begin(t.Context(), "job")
		require.ErrorIs(t, err, rotation.ErrBusy)
		<-time.After(shortLease / 10)
	}
	require.NoError(t, c.cmd.Process.Signal(syscall.SIGCONT))
	require.Equal(t, "saved", c.ask("from the child"))

	require.NoError(t, c.cmd.Process.Signal(syscall.SIGSTOP))
	require.NoError(t, os.Remove(filepath.Join(d.where+".locks", "job.lock")))
	s := begin(t, j, "job")
	require.NoError(t, s.Save(t.Context(), []byte("from the parent")))
	require.NoError(t, c.cmd.Process.Signal(syscall.SIGCONT))
	require.Equal(t, "fenced true", c.ask("late"))
	b, err := j.Peek(t.Context(), "job")
	require.NoError(t, err)
	assert.Equal(t, "from the parent", string(b))
	require.NoError(t, s.Close())
}

// A session that could not renew its lease knows so without the database.
func TestHeldWithoutDatabase(t *testing.T) {
	t.Parallel()
	d := postgresAt(t)
	st := d.open(t, store.WithLease(shortLease))
	s := begin(t, st.Journal("w"), "job")
	require.NoError(t, st.Held("job"))
	_, err := st.SQL().ExecContext(t.Context(), `ALTER TABLE keywright_journal RENAME TO gone`)
	require.NoError(t, err)
	until(t, "the lease is over", func() bool { return st.Held("job") != nil })
	require.ErrorIs(t, st.Held("job"), store.ErrFenced)
	_, err = st.SQL().ExecContext(t.Context(), `ALTER TABLE gone RENAME TO keywright_journal`)
	require.NoError(t, err)
	until(t, "the lease is renewed", func() bool { return st.Held("job") == nil })
	require.NoError(t, s.Save(t.Context(), []byte("x")))
	require.NoError(t, s.Close())
}

// A database that may not grow takes what was reserved.
func TestFullDatabase(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	d := sqliteAt(t)
	st := d.open(t)
	j := st.Journal("w")
	s := begin(t, j, "a")
	require.NoError(t, s.Save(ctx, pad("one", 3000)))
	require.NoError(t, s.Reserve(ctx))
	var pages int
	require.NoError(t, st.SQL().QueryRowContext(ctx, `PRAGMA page_count`).Scan(&pages))
	exec := func(query string, args ...any) error {
		_, err := st.SQL().ExecContext(ctx, query, args...)
		return err
	}
	require.NoError(t, st.SQL().QueryRowContext(ctx, `PRAGMA max_page_count = 1`).Scan(&pages)) // as few as there are
	var err error
	for i := 0; err == nil; i++ { // fill what is free
		err = exec(`INSERT INTO keywright_reserve (job, n, ballast) VALUES ('filler', ?, zeroblob(100))`, i)
	}
	require.ErrorContains(t, err, "full")
	require.NoError(t, s.Save(ctx, pad("two", 20_000)), "reserved")
	require.ErrorIs(t, s.Reserve(ctx), store.ErrFull)
	for i := 0; ; i++ {
		if exec(`INSERT INTO keywright_reserve (job, n, ballast) VALUES ('filler2', ?, zeroblob(2000))`, i) != nil {
			break
		}
	}
	require.NoError(t, s.Save(ctx, pad("three", 50_000)), "reserved")
	for i := 0; ; i++ {
		if exec(`INSERT INTO keywright_reserve (job, n, ballast) VALUES ('filler3', ?, zeroblob(2000))`, i) != nil {
			break
		}
	}
	require.ErrorIs(t, s.Save(ctx, pad("four", 200_000)), store.ErrFull, "nothing was reserved for this one")
	b, damaged, err := s.Load(ctx)
	require.NoError(t, err)
	assert.False(t, damaged)
	assert.Equal(t, string(pad("three", 50_000)), string(b))
	require.NoError(t, exec(`PRAGMA max_page_count = 100000`))
	require.NoError(t, s.Save(ctx, []byte("five")))
	require.NoError(t, s.Reserve(ctx))
	require.NoError(t, s.Close())
	var n int
	require.NoError(t, st.SQL().QueryRowContext(ctx, `SELECT COUNT(*) FROM keywright_reserve WHERE job = 'a'`).Scan(&n))
	assert.Zero(t, n)
}

// The same on a disk that is really full.
func TestFullDisk(t *testing.T) {
	t.Parallel()
	dir := smallDisk(t)
	ctx := t.Context()
	d := database{kind: "sqlite", where: filepath.Join(dir, "private", "k.db")}
	st, err := store.OpenSQLite(ctx, d.where)
	require.NoError(t, err)
	j := st.Journal("w")
	s := begin(t, j, "a")
	require.NoError(t, s.Save(ctx, pad("one", 3000)))
	require.NoError(t, s.Reserve(ctx))
	fill := func() {
		f, err := os.OpenFile(filepath.Join(dir, "filler"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
		require.NoError(t, err)
		for err == nil {
			_, err = f.Write(make([]byte, 4096))
		}
		require.ErrorIs(t, err, syscall.ENOSPC)
		require.NoError(t, f.Close())
	}
	// The log has room for what it has held before: that does not count.
	fillLog := func() {
		for i := 0; ; i++ {
			fill()
			err := st.AddEvent(ctx, store.Event{Job: "filler", Text: string(pad("", 1900))}, store.Event{Job: "filler", Text: string(pad("", 1900))})
			if err != nil {
				require.ErrorIs(t, err, store.ErrFull)
				return
			}
			require.Less(t, i, 10_000)
		}
	}
	fillLog()
	require.NoError(t, s.Save(ctx, pad("two", 3000)), "reserved")
	fillLog()
	require.NoError(t, s.Save(ctx, pad("three", 3000)), "reserved")
	fillLog()
	err = s.Save(ctx, pad("four", 100_000))
	require.ErrorIs(t, err, store.ErrFull)
	require.ErrorIs(t, s.Reserve(ctx), store.ErrFull)
	b, damaged, err := s.Load(ctx)
	require.NoError(t, err)
	assert.False(t, damaged)
	assert.Equal(t, string(pad("three", 3000)), string(b))
	require.NoError(t, os.Remove(filepath.Join(dir, "filler")))
	require.NoError(t, s.Reserve(ctx))
	require.NoError(t, s.Save(ctx, pad("five", 100_000)))
	require.NoError(t, s.Close())
	require.NoError(t, st.Close())
}

// smallDisk returns a directory on a file system of its own, of 4 MiB.
func smallDisk(t *testing.T) string {
	dir := t.TempDir()
	if err := mountSmall(dir); err != nil {
		t.Skip("no file system of its own can be mounted: " + err.Error())
	}
	t.Cleanup(func() { require.NoError(t, unmount(dir)) })
	return dir
}
