package sink_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/keywright/keywright"
	"github.com/keywright/keywright/internal/durable"
	"github.com/keywright/keywright/internal/durable/memfs"
	"github.com/keywright/keywright/rotation/sink"
)

const (
	oldToken = "canary-old-5e1f"
	newToken = "canary-new-77ab"
	dir      = "/etc/app"
	path     = dir + "/file"
)

// disk returns a disk with a file on it, and the context that uses it.
func disk(t *testing.T, content string) (*memfs.FS, context.Context) {
	w := memfs.New()
	w.MkdirAll(dir)
	w.WriteFile(path, []byte(content), 0o600)
	return w, durable.NewContext(t.Context(), w)
}

func secret(s string) keywright.Secret { return keywright.NewSecret(s) }

// kind is one of the sinks that are files.
type kind struct {
	name    string
	make    func(path string, opts ...sink.FileOption) sink.Sink
	content func(token string) string
}

func kinds() []kind {
	return []kind{
		{
			"file",
			sink.File,
			func(token string) string { return token + "\n" },
		},
		{
			"dotenv",
			func(path string, opts ...sink.FileOption) sink.Sink { return sink.Dotenv(path, "TOKEN", opts...) },
			func(token string) string { return "# first\nA=1\nexport TOKEN=" + token + " # ours\nB='x\nTOKEN=y'\n" },
		},
		{
			"ini",
			func(path string, opts ...sink.FileOption) sink.Sink { return sink.INI(path, "api", "token", opts...) },
			func(token string) string {
				return "; first\n[api]\nurl = https://x\ntoken = " + token + "\n\n[other]\ntoken: no\n"
			},
		},
		{
			"json",
			func(path string, opts ...sink.FileOption) sink.Sink { return sink.JSON(path, "/a/b", opts...) },
			func(token string) string { return `{"b": 1, "a": {"c": [], "b": "` + token + `"}}` },
		},
	}
}

// check is what a good write looks like.
func mustWrite(t *testing.T, ctx context.Context, s sink.Sink, old, next string) {
	t.Helper()
	previous, err := s.Read(ctx)
	require.NoError(t, err)
	require.Equal(t, old, previous.Token.Reveal())
	require.NoError(t, s.CompareAndWrite(ctx, previous, secret(next)))
	require.NoError(t, s.Confirm(ctx, secret(next)))
}

func mustFail(t *testing.T, err, class error, reason string) {
	t.Helper()
	var e *sink.Error
	require.ErrorAs(t, err, &e)
	assert.ErrorIs(t, err, class)
	assert.Contains(t, e.Reason, reason)
	assert.Contains(t, err.Error(), e.Sink)
	assert.NotContains(t, fmt.Sprintf("%+v", err), "canary")
	for cause := errors.Unwrap(err); cause != nil; cause = errors.Unwrap(cause) {
		assert.NotContains(t, cause.Error(), "canary")
	}
}

func TestFilesRoundTrip(t *testing.T) {
	t.Parallel()
	for _, k := range kinds() {
		t.Run(k.name, func(t *testing.T) {
			t.Parallel()
			w, ctx := disk(t, k.content(oldToken))
			w.Chmod(path, 0o644)
			s := k.make(path)
			assert.True(t, strings.HasPrefix(s.Name(), k.name+" "+path), s.Name())
			traits := s.Traits()
			assert.True(t, traits.Readable)
			assert.Equal(t, sink.GradeReadBack, traits.Grade)
			assert.NotEmpty(t, traits.Guarantee)
			if k.name == "file" {
				assert.Equal(t, time.Second, traits.Lag)
				assert.False(t, traits.UntilRestart)
			} else {
				assert.True(t, traits.UntilRestart)
			}
			require.NoError(t, s.(sink.Tester).Test(ctx))
			b, _ := w.ReadFile(path)
			require.Equal(t, k.content(oldToken), string(b), "a test changes nothing")

			mustWrite(t, ctx, s, oldToken, newToken)
			b, _ = w.ReadFile(path)
			require.Equal(t, k.content(newToken), string(b))
			require.Equal(t, []string{dir + "/.file.lock", path}, w.Names("/"))
			info, err := w.Lstat(path)
			require.NoError(t, err)
			require.Equal(t, fs.FileMode(0o600), info.Mode(), "was 0644")

			// Again, as after an interruption.
			require.NoError(t, s.CompareAndWrite(ctx, sink.Reading{Token: secret(oldToken)}, secret(newToken)))
			b, _ = w.ReadFile(path)
			require.Equal(t, k.content(newToken), string(b))
			// The lock is free.
			unlock, err := w.Lock(ctx, dir+"/.file.lock", false)
			require.NoError(t, err)
			require.NoError(t, unlock())
		})
	}
}

func TestFilesConflict(t *testing.T) {
	t.Parallel()
	for _, k := range kinds() {
		w, ctx := disk(t, k.content(oldToken))
		s := k.make(path)
		previous, err := s.Read(ctx)
		require.NoError(t, err)
		other := k.content("canary-of-somebody-else")
		w.WriteFile(path, []byte(other), 0o600)
		mustFail(t, s.CompareAndWrite(ctx, previous, secret(newToken)), sink.ErrConflict, "holds another token")
		mustFail(t, s.Confirm(ctx, secret(newToken)), sink.ErrConflict, "holds another token")
		b, _ := w.ReadFile(path)
		require.Equal(t, other, string(b))

		// Somebody writes while we wait for the lock.
		w, ctx = disk(t, k.content(oldToken))
		unlock, err := w.Lock(ctx, dir+"/.file.lock", false)
		require.NoError(t, err)
		p := w.Process()
		waits := make(chan struct{})
		p.Hook = func(op, _ string, after bool) error {
			if op == "lock" && !after {
				close(waits)
			}
			return nil
		}
		result := make(chan error)
		go func() { result <- s.CompareAndWrite(durable.NewContext(ctx, p), previous, secret(newToken)) }()
		<-waits
		w.WriteFile(path, []byte(other), 0o600)
		require.NoError(t, unlock())
		mustFail(t, <-result, sink.ErrConflict, "holds another token")

		// It was there, and is not any more.
		w, ctx = disk(t, k.content(oldToken))
		require.NoError(t, w.Remove(path))
		mustFail(t, s.CompareAndWrite(ctx, previous, secret(newToken)), sink.ErrConflict, "holds no token")
		mustFail(t, s.Confirm(ctx, secret(oldToken)), sink.ErrConflict, "holds no token")
		mustFail(t, s.Confirm(ctx, keywright.Secret{}), sink.ErrConflict, "holds no token")
	}
}

func TestFilesFail(t *testing.T) {
	t.Parallel()
	stranger := os.Geteuid() + 4711
	for _, k := range kinds() {
		for name, c := range map[string]struct {
			scene  func(*memfs.FS)
			class  error
			reason string
		}{
			"link":         {func(w *memfs.FS) { w.WriteFile("/etc/victim", nil, 0o600); w.Symlink("/etc/victim", path) }, sink.ErrRefused, "is a symbolic link"},
			"lock is link": {func(w *memfs.FS) { w.Symlink("/etc/victim", dir+"/.file.lock") }, sink.ErrRefused, "lock"},
			"open":         {func(w *memfs.FS) { w.Chmod(dir, 0o777) }, sink.ErrRefused, dir + ": mode 0777 lets everybody write"},
			"stranger":     {func(w *memfs.FS) { w.Chown(path, stranger) }, sink.ErrRefused, "is owned by uid"},
			"no directory": {func(w *memfs.FS) { _ = w.Remove(path); _ = w.Remove(dir) }, sink.ErrRefused, dir + ": does not exist"},
			"too large":    {func(w *memfs.FS) { w.WriteFile(path, make([]byte, 1<<20+1), 0o600) }, sink.ErrRefused, "is larger than"},
		} {
			w, ctx := disk(t, k.content(oldToken))
			c.scene(w)
			before := w.Names("/")
			s := k.make(path)
			if name != "lock is link" {
				_, err := s.Read(ctx)
				mustFail(t, err, c.class, c.reason)
				mustFail(t, s.Confirm(ctx, secret(oldToken)), c.class, c.reason)
			}
			mustFail(t, s.(sink.Tester).Test(ctx), c.class, c.reason)
			mustFail(t, s.CompareAndWrite(ctx, sink.Reading{Token: secret(oldToken)}, secret(newToken)), c.class, c.reason)
			require.Subset(t, append(before, dir+"/.file.lock"), w.Names("/"), "%s %s", k.name, name)
		}
		for _, c := range []struct {
			err    error
			class  error
			reason string
		}{
			{syscall.ENOSPC, sink.ErrTemporary, "the disk is full"},
			{memfs.Torn(3), sink.ErrTemporary, "the disk is full"},
			{syscall.EROFS, sink.ErrRefused, "the file system is read-only"},
			{fs.ErrPermission, sink.ErrRefused, "permission denied"},
			{syscall.EIO, syscall.EIO, "input/output error"},
			{memfs.ErrKilled, memfs.ErrKilled, ""},
		} {
			w, ctx := disk(t, k.content(oldToken))
			p := w.Process()
			p.Hook = func(op, _ string, after bool) error {
				if op == "write" && !after {
					return c.err
				}
				return nil
			}
			ctx = durable.NewContext(ctx, p)
			s := k.make(path)
			mustFail(t, s.(sink.Tester).Test(ctx), c.class, c.reason)
			mustFail(t, s.CompareAndWrite(ctx, sink.Reading{Token: secret(oldToken)}, secret(newToken)), c.class, c.reason)
			b, _ := w.ReadFile(path)
			require.Equal(t, k.content(oldToken), string(b))
			require.Equal(t, []string{dir + "/.file.lock", path}, w.Names("/"))
		}
	}
}

func TestFilesRefuseTokens(t *testing.T) {
	t.Parallel()
	for _, k := range kinds() {
		for token, reason := range map[string]string{
			"":              "no token",
			"canary x":      "contains a space",
			"canary\nx":     "contains a control character",
			"canary\x00":    "contains a NUL byte",
			"canary\x7f":    "contains a control character",
			"canary\u00e9":  "outside of ASCII",
			"\ufeffcanary":  "outside of ASCII",
			"canary\ttoken": "contains a control character",
		} {
			w, ctx := disk(t, k.content(oldToken))
			mustFail(t, k.make(path).CompareAndWrite(ctx, sink.Reading{Token: secret(oldToken)}, secret(token)), sink.ErrRefused, reason)
			b, _ := w.ReadFile(path)
			require.Equal(t, k.content(oldToken), string(b))
		}
	}
}

func TestFilesEndWithContext(t *testing.T) {
	t.Parallel()
	for _, k := range kinds() {
		w, ctx := disk(t, k.content(oldToken))
		_, err := w.Lock(ctx, dir+"/.file.lock", false)
		require.NoError(t, err)
		short, cancel := context.WithTimeout(ctx, 10*time.Millisecond)
		defer cancel()
		s := k.make(path)
		require.NoError(t, s.(sink.Tester).Test(ctx), "that somebody has the lock is no fault")
		mustFail(t, s.CompareAndWrite(short, sink.Reading{Token: secret(oldToken)}, secret(newToken)), context.DeadlineExceeded, "gave up")
		_, err = s.Read(short)
		mustFail(t, err, context.DeadlineExceeded, "gave up")
	}
}

// Wherever a process dies, the file is the old one or the new one, and the
// next process can go on.
func TestFilesKilledAnywhere(t *testing.T) {
	t.Parallel()
	for _, k := range kinds() {
		for moment := 1; ; moment++ {
			w, ctx := disk(t, k.content(oldToken))
			p := w.Process()
			n := 0
			p.Hook = func(string, string, bool) error {
				if n++; n == moment {
					p.Kill()
				}
				return nil
			}
			s := k.make(path)
			previous := sink.Reading{Token: secret(oldToken)}
			done := s.CompareAndWrite(durable.NewContext(ctx, p), previous, secret(newToken))
			for after := range w.CrashStates() {
				b, ok := after.ReadFile(path)
				require.True(t, ok)
				if done == nil {
					require.Equal(t, k.content(newToken), string(b))
				}
				require.Contains(t, []string{k.content(oldToken), k.content(newToken)}, string(b))
				next := durable.NewContext(ctx, after)
				require.NoError(t, s.CompareAndWrite(next, previous, secret(newToken)))
				require.NoError(t, s.Confirm(next, secret(newToken)))
			}
			if done == nil {
				require.Greater(t, moment, 12)
				break
			}
		}
	}
}

func TestFilesSweep(t *testing.T) {
	t.Parallel()
	w, ctx := disk(t, oldToken)
	orphan := dir + "/.file.keywright-0123456789abcdef.tmp"
	w.WriteFile(orphan, []byte(oldToken), 0o600)
	w.Chtimes(orphan, time.Now().Add(-2*time.Hour))
	mustWrite(t, ctx, sink.File(path), oldToken, newToken)
	require.Equal(t, []string{dir + "/.file.lock", path}, w.Names("/"))
}

func TestFileOptions(t *testing.T) {
	t.Parallel()
	w, ctx := disk(t, oldToken)
	w.MkdirAll("/opt")
	w.WriteFile("/opt/real", []byte(oldToken), 0o600)
	w.Symlink("/opt/real", path)
	s := sink.File(path, sink.WithFollowLink(), sink.WithMode(0o640), sink.WithLag(time.Minute))
	require.Equal(t, time.Minute, s.Traits().Lag)
	mustWrite(t, ctx, s, oldToken, newToken)
	require.NoError(t, s.(sink.Tester).Test(ctx))
	require.Equal(t, []string{path, "/opt/.real.lock", "/opt/real"}, w.Names("/"))
	info, err := w.Lstat("/opt/real")
	require.NoError(t, err)
	require.Equal(t, fs.FileMode(0o640), info.Mode())

	traits := sink.Dotenv(path, "X", sink.WithLag(time.Hour)).Traits()
	require.Equal(t, time.Hour, traits.Lag)
	require.False(t, traits.UntilRestart)
	require.Zero(t, sink.File(path, sink.WithLag(-1)).Traits().Lag)
	_, err = sink.File("").Read(ctx)
	mustFail(t, err, sink.ErrRefused, "path is empty")
}

func TestFileRead(t *testing.T) {
	t.Parallel()
	for content, want := range map[string]string{
		oldToken:                         oldToken,
		" \t" + oldToken + " \r\n\n":     oldToken,
		"":                               "",
		" \n":                            "",
		strings.Repeat("x", 64<<10):      strings.Repeat("x", 64<<10),
		"canary\ncanary\n":               "! control character",
		"canary\x00":                     "! NUL",
		"\ufeffcanary":                   "! outside of ASCII",
		"canary canary":                  "! space",
		"c\x00a\x00n\x00a\x00r\x00y\x00": "! NUL",
		strings.Repeat("x", 64<<10+1):    "! larger than 65536 bytes",
	} {
		_, ctx := disk(t, content)
		got, err := sink.File(path).Read(ctx)
		if reason, bad := strings.CutPrefix(want, "! "); bad {
			mustFail(t, err, sink.ErrRefused, reason)
			continue
		}
		require.NoError(t, err)
		require.Equal(t, want, got.Token.Reveal())
	}
	w, ctx := disk(t, "")
	require.NoError(t, w.Remove(path))
	mustWrite(t, ctx, sink.File(path), "", newToken)
}

// What a file sink writes on the real disk is what a client reads.
func TestFileIsReadByFileToken(t *testing.T) {
	t.Parallel()
	name := filepath.Join(t.TempDir(), "token")
	mustWrite(t, t.Context(), sink.File(name), "", newToken)
	got, err := keywright.FileToken(name).Token(t.Context())
	require.NoError(t, err)
	require.Equal(t, newToken, got.Reveal())
}

// Eight processes that each replace a variable of their own lose nothing.
func TestDotenvOfManyProcesses(t *testing.T) {
	t.Parallel()
	const processes, updates = 8, 100
	name := filepath.Join(t.TempDir(), ".env")
	text := func(n int) string {
		b := strings.Builder{}
		for i := range processes {
			fmt.Fprintf(&b, "# variable %d\nV%d=V%d-%d\n", i, i, i, n)
		}
		return b.String()
	}
	require.NoError(t, os.WriteFile(name, []byte(text(0)), 0o600))
	var group sync.WaitGroup
	for i := range processes {
		group.Go(func() {
			out, err := child(t, "dotenv", name, fmt.Sprint("V", i), fmt.Sprint(updates)).CombinedOutput()
			assert.NoError(t, err, "%s", out)
		})
	}
	group.Wait()
	b, err := os.ReadFile(name)
	require.NoError(t, err)
	require.Equal(t, text(updates), string(b))
}
