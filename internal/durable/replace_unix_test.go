//go:build unix

package durable_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/keywright/keywright/internal/durable"
)

// children are what this binary does when a test starts it again.
var children = map[string]func(args []string) int{
	"replace": replaceForEver,
	"umask":   replaceUnderUmask,
}

// sealed returns a content that can be told from any part of it.
func sealed(n int) []byte {
	body := bytes.Repeat([]byte(strconv.Itoa(n)+","), 1+n%2000)
	sum := sha256.Sum256(body)
	return append(body, sum[:]...)
}

func isSealed(b []byte) bool {
	if len(b) < sha256.Size {
		return false
	}
	body := b[:len(b)-sha256.Size]
	sum := sha256.Sum256(body)
	return bytes.Equal(sum[:], b[len(body):])
}

// replaceForEver replaces a file until it is killed.
func replaceForEver(args []string) int {
	for n := 0; ; n++ {
		if err := durable.Replace(context.Background(), durable.OS{}, args[0], sealed(n*37), durable.Options{}); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		if n == 0 {
			fmt.Println("started")
		}
	}
}

func TestKill9(t *testing.T) {
	t.Parallel()
	const workers = 4
	kills := pick(100, 500)
	var orphans atomic.Int64
	t.Cleanup(func() { t.Logf("%d kills left %d temporary files", kills, orphans.Load()) })
	for range workers {
		t.Run("", func(t *testing.T) {
			t.Parallel()
			d := t.TempDir()
			name := filepath.Join(d, "token")
			for range kills / workers {
				cmd := child(t, "replace", name)
				var stderr bytes.Buffer
				cmd.Stderr = &stderr
				out, err := cmd.StdoutPipe()
				require.NoError(t, err)
				require.NoError(t, cmd.Start())
				_, err = bufio.NewReader(out).ReadString('\n')
				require.NoError(t, err)
				<-time.After(rand.N(8 * time.Millisecond))
				require.NoError(t, cmd.Process.Kill())
				require.Error(t, cmd.Wait())
				require.Empty(t, stderr.String())
				b, err := os.ReadFile(name)
				require.NoError(t, err)
				require.True(t, isSealed(b), "corrupt: %d bytes", len(b))
			}
			entries, err := os.ReadDir(d)
			require.NoError(t, err)
			orphans.Add(int64(len(entries) - 1))
			require.NoError(t, durable.Sweep(durable.OS{}, d, "token", time.Now()))
			again, err := os.ReadDir(d)
			require.NoError(t, err)
			require.Len(t, again, len(entries), "too young to be swept")
			require.NoError(t, durable.Sweep(durable.OS{}, d, "token", time.Now().Add(2*time.Hour)))
			entries, err = os.ReadDir(d)
			require.NoError(t, err)
			require.Len(t, entries, 1)
		})
	}
}

// replaceUnderUmask replaces a file, and locks and makes a directory, under a
// umask, which belongs to the whole process.
func replaceUnderUmask(args []string) int {
	mask, err := strconv.ParseInt(args[1], 8, 32)
	if err != nil {
		return 2
	}
	syscall.Umask(int(mask))
	ctx, fsys := context.Background(), durable.OS{}
	for range 2 { // what the first time made must do the second time
		err = durable.Replace(ctx, fsys, args[0], []byte(newText), durable.Options{})
		if err == nil {
			var unlock func() error
			if unlock, err = fsys.Lock(ctx, args[0]+".lock", true); err == nil {
				err = unlock()
			}
		}
		if err == nil {
			err = fsys.Mkdir(args[0] + ".d")
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
	}
	return 0
}

func TestUmask(t *testing.T) {
	t.Parallel()
	for _, mask := range []string{"0000", "0022", "0077", "0777"} {
		for _, existing := range []fs.FileMode{0, 0o644, 0o600, 0o400} {
			name := filepath.Join(t.TempDir(), "token")
			if existing != 0 {
				require.NoError(t, os.WriteFile(name, []byte(oldText), 0o600))
				require.NoError(t, os.Chmod(name, existing))
			}
			out, err := child(t, "umask", name, mask).CombinedOutput()
			require.NoError(t, err, "%s", out)
			for suffix, want := range map[string]fs.FileMode{"": 0o600, ".lock": 0o600, ".d": fs.ModeDir | 0o700} {
				info, err := os.Lstat(name + suffix)
				require.NoError(t, err)
				assert.Equal(t, want, info.Mode(), "%s under umask %s, was %o", suffix, mask, existing)
			}
		}
	}
}

func TestOSRefusesLinks(t *testing.T) {
	t.Parallel()
	d := t.TempDir()
	victim, link, fifo := filepath.Join(d, "victim"), filepath.Join(d, "link"), filepath.Join(d, "fifo")
	require.NoError(t, os.WriteFile(victim, []byte(oldText), 0o600))
	require.NoError(t, os.Symlink(victim, link))
	require.NoError(t, syscall.Mkfifo(fifo, 0o600))
	fsys := durable.OS{}
	for _, open := range []func(string) (durable.File, error){fsys.Open, fsys.OpenWrite, fsys.Create} {
		f, err := open(link)
		require.Error(t, err)
		require.Nil(t, f)
	}
	require.ErrorIs(t, durable.Replace(t.Context(), fsys, link, []byte(newText), durable.Options{}), durable.ErrRefused)
	require.ErrorIs(t, durable.Replace(t.Context(), fsys, fifo, []byte(newText), durable.Options{}), durable.ErrRefused)
	_, _, err := durable.Read(fsys, fifo, 10) // and does not wait for a writer
	require.ErrorIs(t, err, durable.ErrRefused)
	_, _, err = durable.Read(fsys, link, 100)
	require.ErrorContains(t, err, "is a symbolic link")
	require.Error(t, fsys.Mkdir(link))
	b, err := os.ReadFile(victim)
	require.NoError(t, err)
	require.Equal(t, oldText, string(b))
	require.NoError(t, durable.Replace(t.Context(), fsys, link, []byte(newText), durable.Options{FollowLink: true}))
	b, err = os.ReadFile(victim)
	require.NoError(t, err)
	require.Equal(t, newText, string(b))
}

func TestOSWorldWritable(t *testing.T) {
	t.Parallel()
	for _, mode := range []fs.FileMode{0o777, 0o777 | fs.ModeSticky, 0o702} {
		d := t.TempDir()
		require.NoError(t, os.Chmod(d, mode))
		err := durable.Replace(t.Context(), durable.OS{}, filepath.Join(d, "token"), []byte(newText), durable.Options{})
		require.ErrorIs(t, err, durable.ErrRefused)
		entries, err := os.ReadDir(d)
		require.NoError(t, err)
		require.Empty(t, entries)
	}
}

// A lock file that is removed lets nobody in beside the one who makes it anew,
// also not who has opened the old one already.
func TestLockFileRemoved(t *testing.T) {
	t.Parallel()
	name := filepath.Join(t.TempDir(), "lock")
	var inside atomic.Int32
	var group sync.WaitGroup
	for range 8 {
		group.Go(func() {
			for done := 0; done < 100; {
				unlock, err := durable.OS{}.Lock(t.Context(), name, false)
				if errors.Is(err, durable.ErrLocked) {
					runtime.Gosched()
					continue
				}
				if !assert.NoError(t, err) {
					return
				}
				done++
				assert.EqualValues(t, 1, inside.Add(1))
				runtime.Gosched()
				inside.Add(-1)
				assert.NoError(t, os.Remove(name))
				assert.NoError(t, unlock())
			}
		})
	}
	group.Wait()
}
