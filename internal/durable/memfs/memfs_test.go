package memfs_test

import (
	"context"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/keywright/keywright/internal/durable"
	"github.com/keywright/keywright/internal/durable/memfs"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// states returns what a power cut may leave, one line for each world.
func states(w *memfs.FS) []string {
	var out []string
	for world := range w.CrashStates() {
		var line []string
		for _, name := range world.Names("/") {
			b, _ := world.ReadFile(name)
			line = append(line, fmt.Sprintf("%s=%q", name, b))
		}
		out = append(out, strings.Join(line, " "))
	}
	slices.Sort(out)
	return slices.Compact(out)
}

func write(t *testing.T, f durable.File, s string) {
	t.Helper()
	n, err := io.WriteString(f, s)
	require.NoError(t, err)
	require.Equal(t, len(s), n)
}

func TestCrashStates(t *testing.T) {
	t.Parallel()
	w := memfs.New()
	w.WriteFile("/j", []byte("ab"), 0o600)
	require.Equal(t, []string{`/j="ab"`}, states(w))

	// What is appended may be lost, torn, zeros or there.
	f, err := w.OpenWrite("/j")
	require.NoError(t, err)
	_, err = io.ReadAll(f)
	require.NoError(t, err)
	write(t, f, "cdef")
	require.Equal(t, []string{`/j="ab"`, `/j="ab\x00\x00\x00\x00"`, `/j="abcd"`, `/j="abcdef"`}, states(w)[:4:4])
	require.NoError(t, f.Sync())
	require.Equal(t, []string{`/j="abcdef"`}, states(w))

	// A new file may be missing, or be there and empty.
	g, err := w.Create("/n")
	require.NoError(t, err)
	write(t, g, "x")
	require.Equal(t, []string{`/j="abcdef"`, `/j="abcdef" /n=""`, `/j="abcdef" /n="\x00"`, `/j="abcdef" /n="x"`}, states(w))
	require.NoError(t, g.Sync())
	require.Equal(t, []string{`/j="abcdef"`, `/j="abcdef" /n="x"`}, states(w), "its name is not durable yet")
	require.NoError(t, w.SyncDir("/"))
	require.Equal(t, []string{`/j="abcdef" /n="x"`}, states(w))

	// Names persist in order: never the second without the first.
	require.NoError(t, w.Rename("/n", "/j"))
	require.NoError(t, w.Link("/j", "/k"))
	require.NoError(t, w.Remove("/j"))
	require.Equal(t, []string{`/j="abcdef" /n="x"`, `/j="x"`, `/j="x" /k="x"`, `/k="x"`}, states(w))
	require.NoError(t, w.SyncDir("/"))

	// A directory that is not durable takes what is in it with it.
	require.NoError(t, w.Mkdir("/d"))
	h, err := w.Create("/d/f")
	require.NoError(t, err)
	write(t, h, "y")
	require.NoError(t, h.Sync())
	require.NoError(t, w.SyncDir("/d"))
	require.Equal(t, []string{`/d/f="y" /k="x"`, `/k="x"`}, states(w))
	require.NoError(t, w.SyncDir("/"))
	require.Equal(t, []string{`/d/f="y" /k="x"`}, states(w))

	// The worlds are apart from each other and from this one.
	for world := range w.CrashStates() {
		require.NoError(t, world.Remove("/k"))
	}
	require.Equal(t, []string{"/d/f", "/k"}, w.Names("/"))
}

func TestCrashStatesAreBounded(t *testing.T) {
	t.Parallel()
	w := memfs.New()
	for i := range 80 {
		f, err := w.Create(fmt.Sprintf("/f%d", i))
		require.NoError(t, err)
		write(t, f, "content")
	}
	var first []string
	for range 2 {
		var got []string
		for world := range w.CrashStates() {
			got = append(got, fmt.Sprint(len(world.Names("/"))))
		}
		require.LessOrEqual(t, len(got), 64*32)
		require.Contains(t, got, "0")
		require.Contains(t, got, "80")
		if first == nil {
			first = got
		}
		require.Equal(t, first, got, "the same each time")
	}
}

func TestKill(t *testing.T) {
	t.Parallel()
	w := memfs.New()
	p, q := w.Process(), w.Process()
	_, err := p.Lock(t.Context(), "/lock", false)
	require.NoError(t, err)
	f, err := p.Create("/f")
	require.NoError(t, err)

	waiting := make(chan error)
	go func() {
		unlock, err := q.Lock(t.Context(), "/lock", true)
		if err == nil {
			err = unlock()
		}
		waiting <- err
	}()
	p.Kill()
	require.NoError(t, <-waiting, "its locks are free")

	_, err = f.Write([]byte("x"))
	require.ErrorIs(t, err, memfs.ErrKilled)
	for _, err := range []error{f.Sync(), f.Chmod(0o600), f.Close(), p.Mkdir("/d"), p.Remove("/f"), p.SyncDir("/")} {
		require.ErrorIs(t, err, memfs.ErrKilled)
	}
	_, err = p.Lock(t.Context(), "/lock", true)
	require.ErrorIs(t, err, memfs.ErrKilled)
	b, ok := w.ReadFile("/f")
	require.True(t, ok)
	require.Empty(t, b)

	// Who waits for a lock dies too.
	unlock, err := q.Lock(t.Context(), "/lock", true)
	require.NoError(t, err)
	r := w.Process()
	go func() {
		_, err := r.Lock(context.Background(), "/lock", true)
		waiting <- err
	}()
	r.Kill()
	require.ErrorIs(t, <-waiting, memfs.ErrKilled)
	require.NoError(t, unlock())
}

func TestHook(t *testing.T) {
	t.Parallel()
	w := memfs.New()
	var calls []string
	var fail error
	failAfter := false
	w.Hook = func(op, name string, after bool) error {
		calls = append(calls, fmt.Sprint(op, " ", name, " ", after))
		if after == failAfter {
			return fail
		}
		return nil
	}
	f, err := w.Create("/a")
	require.NoError(t, err)
	write(t, f, "x")
	require.NoError(t, f.Sync())
	require.NoError(t, w.Rename("/a", "/b"))
	require.Equal(t, []string{
		"create /a false", "create /a true", "write /a false", "write /a true",
		"sync /a false", "sync /a true", "rename /b false", "rename /b true",
	}, calls)

	fail = syscall.EIO
	require.ErrorIs(t, w.Remove("/b"), syscall.EIO)
	require.Equal(t, []string{"/b"}, w.Names("/"), "before: it has not happened")
	failAfter = true
	require.ErrorIs(t, w.Remove("/b"), syscall.EIO)
	require.Empty(t, w.Names("/"), "after: it has")
	_, err = w.Lock(t.Context(), "/lock", false)
	require.ErrorIs(t, err, syscall.EIO)
	fail = nil
	_, err = w.Lock(t.Context(), "/lock", false)
	require.NoError(t, err, "a lock that failed is not held")

	f, err = w.Create("/t")
	require.NoError(t, err)
	fail, failAfter = memfs.Torn(2), false
	n, err := f.Write([]byte("abcd"))
	require.ErrorIs(t, err, syscall.ENOSPC)
	require.Equal(t, 2, n)
	b, _ := w.ReadFile("/t")
	require.Equal(t, "ab", string(b))
}

func TestAsFileSystemsDo(t *testing.T) {
	t.Parallel()
	w := memfs.New()
	w.MkdirAll("/a/b")
	w.WriteFile("/a/f", []byte("x"), 0o640)
	w.Symlink("../a/b", "/a/l")
	w.WriteFile("/a/l/g", []byte("y"), 0o600) // through the link
	_, err := w.Create("/a/f")
	require.ErrorIs(t, err, fs.ErrExist)
	_, err = w.Create("/a/f/g")
	require.ErrorIs(t, err, syscall.ENOTDIR)
	_, err = w.Open("/a/l")
	require.ErrorIs(t, err, syscall.ELOOP)
	_, err = w.Open("/a/none")
	require.ErrorIs(t, err, fs.ErrNotExist)
	require.NoError(t, w.Mkdir("/a/b"), "there is one")
	require.ErrorIs(t, w.Mkdir("/a/f"), fs.ErrExist)
	require.ErrorIs(t, w.Link("/a/f", "/a/l/g"), fs.ErrExist)
	require.ErrorIs(t, w.Remove("/a/b"), syscall.ENOTEMPTY)
	require.ErrorIs(t, w.Rename("/a/f", "/a/b"), syscall.EISDIR)
	to, err := w.Readlink("/a/l")
	require.NoError(t, err)
	require.Equal(t, "../a/b", to)
	_, err = w.Readlink("/a/f")
	require.ErrorIs(t, err, syscall.EINVAL)

	entries, err := w.ReadDir("/a")
	require.NoError(t, err)
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	require.Equal(t, []string{"b", "f", "l"}, names)
	info, err := w.Lstat("/a/f")
	require.NoError(t, err)
	require.Equal(t, fs.FileMode(0o640), info.Mode())
	require.EqualValues(t, 1, info.Size())

	f, err := w.Open("/a/b/g")
	require.NoError(t, err)
	_, err = f.Write([]byte("z"))
	require.ErrorIs(t, err, syscall.EBADF, "opened for reading")
	require.NoError(t, f.Close())
	_, err = f.Read(make([]byte, 1))
	require.ErrorIs(t, err, fs.ErrClosed)
}
