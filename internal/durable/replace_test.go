package durable_test

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/keywright/keywright/internal/durable"
	"github.com/keywright/keywright/internal/durable/memfs"
)

const (
	dir     = "/etc/app"
	path    = dir + "/token"
	canary  = "canary-7f3a9c51"
	oldText = canary + "-old, not short\n"
	newText = canary + "-new, and rather longer than the old one\n"
)

// disk returns a disk with the old file on it.
func disk() *memfs.FS {
	w := memfs.New()
	w.MkdirAll(dir)
	w.WriteFile(path, []byte(oldText), 0o600)
	return w
}

func content(t *testing.T, w *memfs.FS, name string) string {
	t.Helper()
	b, ok := w.ReadFile(name)
	require.True(t, ok, "%s is gone", name)
	return string(b)
}

// Whatever the moment of death, and whatever then reached the disk, the file
// is the old one or the new one; and the new one once Replace has said so.
func TestReplaceKilledAnywhere(t *testing.T) {
	t.Parallel()
	for moment := 1; ; moment++ {
		w := disk()
		p := w.Process()
		n := 0
		p.Hook = func(string, string, bool) error {
			if n++; n == moment {
				p.Kill()
			}
			return nil
		}
		err := durable.Replace(t.Context(), p, path, []byte(newText), durable.Options{})
		want := []string{oldText, newText}
		if err == nil {
			want = want[1:]
		} else {
			require.ErrorIs(t, err, memfs.ErrKilled)
		}
		require.Contains(t, want, content(t, w, path), "killed at %d", moment)
		worlds := 0
		for after := range w.CrashStates() {
			worlds++
			require.Contains(t, want, content(t, after, path), "power cut at %d", moment)
		}
		require.Positive(t, worlds)
		if err == nil {
			require.Greater(t, moment, 12, "six operations, before and after")
			return
		}
		// The next process finds a file that it can replace, and cleans up.
		next := w.Process()
		require.NoError(t, durable.Sweep(next, dir, "token", time.Now().Add(2*time.Hour)))
		require.Equal(t, []string{path}, w.Names(dir))
		require.NoError(t, durable.Replace(t.Context(), next, path, []byte(newText), durable.Options{}))
		require.Equal(t, newText, content(t, w, path))
	}
}

// A file that is new is there whole or not at all.
func TestReplaceNothingKilledAnywhere(t *testing.T) {
	t.Parallel()
	for moment := 1; ; moment++ {
		w := memfs.New()
		w.MkdirAll(dir)
		p := w.Process()
		n := 0
		p.Hook = func(string, string, bool) error {
			if n++; n == moment {
				p.Kill()
			}
			return nil
		}
		err := durable.Replace(t.Context(), p, path, []byte(newText), durable.Options{})
		for after := range w.CrashStates() {
			b, ok := after.ReadFile(path)
			require.True(t, ok || err != nil, "lost after success")
			if ok {
				require.Equal(t, newText, string(b), "power cut at %d", moment)
			}
		}
		if err == nil {
			return
		}
	}
}

func TestReplaceFails(t *testing.T) {
	t.Parallel()
	for _, failure := range []struct {
		err    error
		reason string
	}{
		{syscall.ENOSPC, "the disk is full"},
		{syscall.EDQUOT, "the disk quota is used up"},
		{syscall.EROFS, "the file system is read-only"},
		{syscall.EIO, "input/output error"},
		{fs.ErrPermission, "permission denied"},
		{memfs.Torn(7), "the disk is full"},
	} {
		for _, op := range []string{"create", "chmod", "write", "sync", "rename", "syncdir"} {
			if _, torn := failure.err.(memfs.Torn); torn && op != "write" {
				continue
			}
			w := disk()
			p := w.Process()
			p.Hook = func(o, _ string, after bool) error {
				if o == op && !after {
					return failure.err
				}
				return nil
			}
			err := durable.Replace(t.Context(), p, path, []byte(newText), durable.Options{})
			var e *durable.Error
			require.ErrorAs(t, err, &e, op)
			assert.ErrorIs(t, err, failure.err, op)
			assert.Equal(t, "replace", e.Op)
			assert.Equal(t, path, e.Path)
			assert.Contains(t, e.Reason, failure.reason, op)
			assert.NotContains(t, err.Error(), canary)
			want := oldText
			if op == "syncdir" { // it has been replaced
				want = newText
			}
			assert.Equal(t, want, content(t, w, path), op)
			assert.Equal(t, []string{path}, w.Names(dir), "%s leaves something behind", op)
		}
	}
}

// A disk that takes what it is given and keeps something else.
func TestReplaceReadsBack(t *testing.T) {
	t.Parallel()
	w := disk()
	p := w.Process()
	p.Hook = func(op, name string, after bool) error {
		if op == "sync" && after {
			w.WriteFile(name, []byte(strings.Repeat("\x00", len(newText))), 0o600)
		}
		return nil
	}
	err := durable.Replace(t.Context(), p, path, []byte(newText), durable.Options{})
	require.ErrorContains(t, err, "could not be read back")
	assert.Equal(t, oldText, content(t, w, path))
	assert.Equal(t, []string{path}, w.Names(dir))
}

func TestReplaceRefuses(t *testing.T) {
	t.Parallel()
	const victim = "/home/victim"
	stranger := os.Geteuid() + 4711
	for name, c := range map[string]struct {
		scene  func(*memfs.FS)
		o      durable.Options
		reason string
	}{
		"link":            {func(w *memfs.FS) { w.Symlink(victim, path) }, durable.Options{}, "is a symbolic link"},
		"directory":       {func(w *memfs.FS) { w.MkdirAll(dir + "/d"); w.Symlink("d", path) }, durable.Options{FollowLink: true}, "is not a regular file"},
		"link loop":       {func(w *memfs.FS) { w.Symlink("token", path) }, durable.Options{FollowLink: true}, "too many symbolic links"},
		"world-writable":  {func(w *memfs.FS) { w.Chmod(dir, 0o777) }, durable.Options{}, "mode 0777 lets everybody write to the directory"},
		"owner of dir":    {func(w *memfs.FS) { w.Chown(dir, stranger) }, durable.Options{}, "is owned by uid"},
		"owner of file":   {func(w *memfs.FS) { w.Chown(path, stranger) }, durable.Options{}, "is owned by uid"},
		"owner of target": {func(w *memfs.FS) { w.Symlink(victim, path); w.Chown(victim, stranger) }, durable.Options{FollowLink: true}, "is owned by uid"},
		"dir of target":   {func(w *memfs.FS) { w.Symlink(victim, path); w.Chmod("/home", 0o702) }, durable.Options{FollowLink: true}, "lets everybody write"},
		"file as dir":     {func(w *memfs.FS) { w.WriteFile("/f", nil, 0o600); w.Symlink("/f", "/etc/g") }, durable.Options{}, ""},
	} {
		w := disk()
		w.MkdirAll("/home")
		w.WriteFile(victim, []byte(oldText), 0o600)
		c.scene(w)
		target := path
		if c.reason == "" {
			target, c.reason = "/etc/g/token", "is not a directory"
		}
		before := w.Names("/")
		for _, err := range []error{
			durable.Replace(t.Context(), w, target, []byte(newText), c.o),
			durable.Check(w, target, 10, c.o),
		} {
			require.ErrorIs(t, err, durable.ErrRefused, name)
			assert.ErrorContains(t, err, c.reason, name)
		}
		assert.Equal(t, oldText, content(t, w, victim), name)
		assert.Equal(t, before, w.Names("/"), name)
	}
}

func TestReplaceWithoutDirectory(t *testing.T) {
	t.Parallel()
	err := durable.Replace(t.Context(), memfs.New(), path, []byte(newText), durable.Options{})
	require.ErrorIs(t, err, fs.ErrNotExist)
	require.ErrorContains(t, err, dir+": does not exist")

	// It goes away while we are at work.
	w := disk()
	p := w.Process()
	p.Hook = func(op, name string, after bool) error {
		if op == "create" && !after {
			other := w.Process()
			return errors.Join(other.Remove(path), other.Remove(dir))
		}
		return nil
	}
	err = durable.Replace(t.Context(), p, path, []byte(newText), durable.Options{})
	require.ErrorIs(t, err, fs.ErrNotExist)
	require.Empty(t, w.Names("/"))
}

func TestReplaceLinkPlantedMeanwhile(t *testing.T) {
	t.Parallel()
	for _, moment := range []string{"create", "write", "sync", "chmod"} {
		w := disk()
		w.WriteFile("/etc/victim", []byte(oldText), 0o600)
		p := w.Process()
		p.Hook = func(op, _ string, after bool) error {
			if op == moment && after {
				w.Symlink("/etc/victim", path)
			}
			return nil
		}
		err := durable.Replace(t.Context(), p, path, []byte(newText), durable.Options{})
		require.ErrorIs(t, err, durable.ErrRefused, moment)
		require.Equal(t, oldText, content(t, w, "/etc/victim"))
		require.Equal(t, []string{path}, w.Names(dir), "%s leaves something behind", moment)
	}
	// Too late to be seen, it is replaced, not followed.
	w := disk()
	w.WriteFile("/etc/victim", []byte(oldText), 0o600)
	p := w.Process()
	p.Hook = func(op, _ string, after bool) error {
		if op == "rename" && !after {
			w.Symlink("/etc/victim", path)
		}
		return nil
	}
	require.NoError(t, durable.Replace(t.Context(), p, path, []byte(newText), durable.Options{}))
	require.Equal(t, oldText, content(t, w, "/etc/victim"))
	require.Equal(t, newText, content(t, w, path))
}

func TestReplaceFollowsLink(t *testing.T) {
	t.Parallel()
	w := disk()
	w.MkdirAll("/opt/real")
	w.WriteFile("/opt/real/data", []byte(oldText), 0o644)
	w.Symlink("/opt/real", "/opt/current")
	w.Symlink("../../opt/current/data", path)
	require.NoError(t, durable.Replace(t.Context(), w, path, []byte(newText), durable.Options{FollowLink: true, Mode: 0o640}))
	require.Equal(t, newText, content(t, w, "/opt/real/data"))
	info, err := w.Lstat(path)
	require.NoError(t, err)
	require.Equal(t, fs.ModeSymlink, info.Mode().Type(), "the link stays")
	info, err = w.Lstat("/opt/real/data")
	require.NoError(t, err)
	require.Equal(t, fs.FileMode(0o640), info.Mode())

	got, err := durable.Target(w, path, true)
	require.NoError(t, err)
	require.Equal(t, filepath.FromSlash("/opt/real/data"), filepath.Clean(got))
}

func TestReplaceRenameRefused(t *testing.T) {
	t.Parallel()
	for _, times := range []int{1, 4, 5} {
		w := disk()
		p := w.Process()
		n := 0
		p.Hook = func(op, _ string, after bool) error {
			if op == "rename" && !after {
				if n++; n <= times {
					return fs.ErrPermission
				}
			}
			return nil
		}
		err := durable.Replace(t.Context(), p, path, []byte(newText), durable.Options{})
		if times < 5 {
			require.NoError(t, err)
			require.Equal(t, newText, content(t, w, path))
			continue
		}
		require.ErrorIs(t, err, fs.ErrPermission)
		require.Equal(t, 5, n)
		require.Equal(t, oldText, content(t, w, path))
		require.Equal(t, []string{path}, w.Names(dir))
	}
	// The wait ends with ctx.
	w := disk()
	ctx, cancel := context.WithCancel(t.Context())
	p := w.Process()
	p.Hook = func(op, _ string, after bool) error {
		if op == "rename" {
			cancel()
			return fs.ErrPermission
		}
		return nil
	}
	err := durable.Replace(ctx, p, path, []byte(newText), durable.Options{})
	require.ErrorIs(t, err, context.Canceled)
	require.Equal(t, []string{path}, w.Names(dir))
}

func TestSweep(t *testing.T) {
	t.Parallel()
	now := time.Now()
	w := disk()
	add := func(name string, age time.Duration) string {
		name = filepath.Join(dir, name)
		w.WriteFile(name, nil, 0o600)
		w.Chtimes(name, now.Add(-age))
		return name
	}
	old := 61 * time.Minute
	keep := []string{
		path,
		add(".token.keywright-0123456789abcdef.tmp", 59*time.Minute),
		add(".other.keywright-0123456789abcdef.tmp", old),
		add(".token.keywright-0123456789abcde.tmp", old),
		add(".token.keywright-0123456789abcdeg.tmp", old),
		add(".token.keywright-0123456789abcd.tmp", old),
		add(".token.keywright-0123456789abcdef.tmp.bak", old),
		add(".token.lock", old),
		add("token.tmp", old),
		add(".token.keywright-00000000000000aa.tmp", old),
	}
	w.Chown(keep[len(keep)-1], os.Geteuid()+4711)
	add(".token.keywright-00000000000000ff.tmp", old)
	add(".token.keywright-fedcba9876543210.tmp", 1000*time.Hour)
	require.NoError(t, durable.Sweep(w, dir, "token", now))
	slices.Sort(keep)
	require.Equal(t, keep, w.Names(dir))
	require.ErrorIs(t, durable.Sweep(w, "/none", "token", now), fs.ErrNotExist)
}

func TestRead(t *testing.T) {
	t.Parallel()
	w := disk()
	b, info, err := durable.Read(w, path, len(oldText))
	require.NoError(t, err)
	require.Equal(t, oldText, string(b))
	require.Equal(t, fs.FileMode(0o600), info.Mode())
	_, _, err = durable.Read(w, path, len(oldText)-1)
	require.ErrorIs(t, err, durable.ErrRefused)
	require.ErrorContains(t, err, "is larger than")
	require.NotContains(t, err.Error(), canary)
	_, _, err = durable.Read(w, path+"-none", 10)
	require.ErrorIs(t, err, fs.ErrNotExist)
	_, _, err = durable.Read(w, dir, 10)
	require.ErrorIs(t, err, durable.ErrRefused)
	w.Symlink(path, dir+"/link")
	_, _, err = durable.Read(w, dir+"/link", 100)
	require.ErrorContains(t, err, "is a symbolic link")
}

func TestCheck(t *testing.T) {
	t.Parallel()
	w := disk()
	p := w.Process()
	size := 0
	p.Hook = func(op, name string, after bool) error {
		if op == "sync" && after {
			b, _ := w.ReadFile(name)
			size = len(b)
		}
		return nil
	}
	require.NoError(t, durable.Check(p, path, 5000, durable.Options{}))
	require.Equal(t, 5000, size)
	require.Equal(t, []string{path}, w.Names(dir))
	require.Equal(t, oldText, content(t, w, path))
	full := w.Process()
	full.Hook = func(op, _ string, after bool) error {
		if op == "write" && !after {
			return memfs.Torn(100)
		}
		return nil
	}
	require.ErrorContains(t, durable.Check(full, path, 5000, durable.Options{}), "the disk is full")
	require.Equal(t, []string{path}, w.Names(dir))
}

// On the real file system a reader never finds anything between two versions,
// nor one older than it has seen.
func TestReadersWhileReplaced(t *testing.T) {
	t.Parallel()
	const readers = 4
	name := filepath.Join(t.TempDir(), "token")
	version := func(n int) []byte { return bytes.Repeat([]byte{byte(n >> 8), byte(n)}, 4000) }
	require.NoError(t, durable.Replace(t.Context(), durable.OS{}, name, version(0), durable.Options{}))
	var group sync.WaitGroup
	done := make(chan struct{})
	for range readers {
		group.Go(func() {
			seen := 0
			for range 10_000 / readers {
				b, _, err := durable.Read(durable.OS{}, name, 8000)
				if !assert.NoError(t, err) || !assert.Len(t, b, 8000) {
					return
				}
				n := int(b[0])<<8 | int(b[1])
				if !assert.True(t, bytes.Equal(b, version(n)), "torn") || !assert.GreaterOrEqual(t, n, seen) {
					return
				}
				seen = n
			}
		})
	}
	go func() { group.Wait(); close(done) }()
	for n := 1; ; n++ {
		select {
		case <-done:
			require.Greater(t, n, 3, "nothing happened meanwhile")
			return
		default:
			require.NoError(t, durable.Replace(t.Context(), durable.OS{}, name, version(n&0xffff), durable.Options{}))
		}
	}
}

// testLock has two processes contend for a lock.
func testLock(t *testing.T, a, b durable.FS, name string) {
	t.Helper()
	unlock, err := a.Lock(t.Context(), name, false)
	require.NoError(t, err)
	_, err = b.Lock(t.Context(), name, false)
	require.ErrorIs(t, err, durable.ErrLocked)
	_, err = a.Lock(t.Context(), name, false)
	require.ErrorIs(t, err, durable.ErrLocked, "its own process is kept out too")
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Millisecond)
	defer cancel()
	_, err = b.Lock(ctx, name, true)
	require.ErrorIs(t, err, context.DeadlineExceeded)

	got := make(chan error)
	go func() {
		next, err := b.Lock(t.Context(), name, true)
		if err == nil {
			err = next()
		}
		got <- err
	}()
	require.NoError(t, unlock())
	require.NoError(t, <-got)
	require.NoError(t, unlock(), "twice does no harm")
	again, err := a.Lock(t.Context(), name, true)
	require.NoError(t, err)
	require.NoError(t, unlock(), "an old unlock does not free a new lock")
	_, err = b.Lock(t.Context(), name, false)
	require.ErrorIs(t, err, durable.ErrLocked)
	require.NoError(t, again())
}

func TestLock(t *testing.T) {
	t.Parallel()
	testLock(t, durable.OS{}, durable.OS{}, filepath.Join(t.TempDir(), "lock"))
	w := disk()
	testLock(t, w.Process(), w.Process(), dir+"/lock")
}

// Many goroutines that each hold the lock in turn never meet.
func TestLockExcludes(t *testing.T) {
	t.Parallel()
	w := disk()
	for _, c := range []struct {
		fsys durable.FS
		name string
	}{{durable.OS{}, filepath.Join(t.TempDir(), "lock")}, {w, dir + "/lock"}} {
		var inside, total atomic.Int32
		var group sync.WaitGroup
		for range 8 {
			group.Go(func() {
				for range 5 {
					unlock, err := c.fsys.Lock(t.Context(), c.name, true)
					if !assert.NoError(t, err) {
						return
					}
					assert.EqualValues(t, 1, inside.Add(1))
					total.Add(1)
					inside.Add(-1)
					assert.NoError(t, unlock())
				}
			})
		}
		group.Wait()
		require.EqualValues(t, 40, total.Load())
	}
}

func TestLockRefusesLink(t *testing.T) {
	t.Parallel()
	d := t.TempDir()
	victim := filepath.Join(d, "victim")
	require.NoError(t, os.WriteFile(victim, []byte(oldText), 0o600))
	require.NoError(t, os.Symlink(victim, filepath.Join(d, "lock")))
	_, err := durable.OS{}.Lock(t.Context(), filepath.Join(d, "lock"), true)
	require.ErrorIs(t, err, durable.ErrRefused)
	require.ErrorContains(t, err, "is a symbolic link")

	w := disk()
	w.Symlink(path, dir+"/lock")
	_, err = w.Lock(t.Context(), dir+"/lock", true)
	require.Error(t, err)
}

func TestPrivacyProblem(t *testing.T) {
	t.Parallel()
	w := disk()
	problem := func() string {
		info, err := w.Lstat(path)
		require.NoError(t, err)
		return durable.PrivacyProblem(info)
	}
	require.Empty(t, problem())
	for _, mode := range []fs.FileMode{0o640, 0o604, 0o620, 0o602, 0o601} {
		w.Chmod(path, mode)
		require.Contains(t, problem(), "lets others in")
	}
	w.Chmod(path, 0o600)
	w.Chown(path, os.Geteuid()+4711)
	require.Contains(t, problem(), "is owned by uid")
}

func TestContext(t *testing.T) {
	t.Parallel()
	w := disk()
	require.Equal(t, durable.OS{}, durable.FromContext(t.Context()))
	require.Same(t, w, durable.FromContext(durable.NewContext(t.Context(), w)))
}
