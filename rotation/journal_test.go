package rotation_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/keywright/keywright/internal/durable"
	"github.com/keywright/keywright/internal/durable/memfs"
	"github.com/keywright/keywright/rotation"
)

// on returns a context in which a journal is on a disk.
func on(t *testing.T, fsys durable.FS) context.Context {
	return durable.NewContext(t.Context(), fsys)
}

// begin opens a session of job "a" below /state.
func begin(t *testing.T, ctx context.Context) rotation.Session { //nolint:revive // the test comes first
	t.Helper()
	s, err := rotation.NewDirJournal("/state").Begin(ctx, "a")
	require.NoError(t, err)
	return s
}

// records are what is saved, long and short.
var records = []string{`{"n":1}`, `{"n":2,"pad":"` + strings.Repeat("x", 9000) + `"}`, `{"n":3}`, `{"n":4}`}

func TestJournalKeepsTheLastTwo(t *testing.T) {
	t.Parallel()
	disk := memfs.New()
	ctx := on(t, disk)
	s := begin(t, ctx)
	b, damaged, err := s.Load(ctx)
	require.NoError(t, err)
	assert.Nil(t, b)
	assert.False(t, damaged)
	for _, r := range records {
		require.NoError(t, s.Reserve(ctx))
		require.NoError(t, s.Save(ctx, []byte(r)))
		b, damaged, err = s.Load(ctx)
		require.NoError(t, err)
		assert.Equal(t, r, string(b))
		assert.False(t, damaged)
	}
	peeked, err := rotation.NewDirJournal("/state").Peek(ctx, "a")
	require.NoError(t, err)
	assert.Equal(t, records[3], string(peeked))
	_, err = rotation.NewDirJournal("/state").Begin(ctx, "a")
	require.ErrorIs(t, err, rotation.ErrBusy)
	require.NoError(t, s.Close())
	require.NoError(t, begin(t, ctx).Close())
}

// Every byte of the latest record that is changed, and every length that it is
// cut to, is either without effect or noticed: the record before it is found,
// and said to be the one before.
func TestJournalDamage(t *testing.T) {
	t.Parallel()
	disk := memfs.New()
	ctx := on(t, disk)
	s := begin(t, ctx)
	require.NoError(t, s.Save(ctx, []byte(records[0])))
	require.NoError(t, s.Save(ctx, []byte(records[2])))
	require.NoError(t, s.Close())
	latest, ok := disk.ReadFile("/state/a/state")
	require.True(t, ok)
	before, ok := disk.ReadFile("/state/a/state.prev")
	require.True(t, ok)
	noticed := 0
	check := func(what string, content []byte) {
		disk.WriteFile("/state/a/state", content, 0o600)
		disk.WriteFile("/state/a/state.prev", before, 0o600)
		s := begin(t, ctx)
		defer s.Close()
		b, damaged, err := s.Load(ctx)
		require.NoError(t, err, what)
		switch {
		case damaged:
			noticed++
			assert.Equal(t, records[0], string(b), what)
		default:
			assert.Equal(t, records[2], string(b), what)
		}
		// What comes next is the latest, whatever was damaged.
		require.NoError(t, s.Save(ctx, []byte(records[3])), what)
		b, damaged, err = s.Load(ctx)
		require.NoError(t, err, what)
		assert.False(t, damaged, what)
		assert.Equal(t, records[3], string(b), what)
	}
	whole := bytes.IndexByte(latest, 0) // the rest is padding
	for i := range whole {
		for _, bit := range []byte{1, 0x80} {
			flipped := bytes.Clone(latest)
			flipped[i] ^= bit
			check(fmt.Sprintf("bit %#x of byte %d", bit, i), flipped)
		}
	}
	for n := range whole {
		check(fmt.Sprintf("cut to %d bytes", n), latest[:n])
		check(fmt.Sprintf("zeros from byte %d", n), append(bytes.Clone(latest[:n]), make([]byte, len(latest)-n)...))
	}
	assert.Equal(t, 4*whole, noticed)

	// Without a whole record there is nothing to go on from, and that is said.
	disk.WriteFile("/state/a/state", latest[:10], 0o600)
	disk.WriteFile("/state/a/state.prev", before[:10], 0o600)
	s = begin(t, ctx)
	_, _, err := s.Load(ctx)
	require.ErrorIs(t, err, rotation.ErrJournal)
	require.NoError(t, s.Close())
}

// A power cut, or a kill, at any operation leaves the record before or the new
// one, and the new one once Save has returned.
func TestJournalPowerCut(t *testing.T) {
	t.Parallel()
	worlds := 0
	for step := 1; ; step++ {
		disk := memfs.New()
		p := disk.Process()
		n := 0
		p.Hook = func(string, string, bool) error {
			if n++; n == step {
				p.Kill()
			}
			return nil
		}
		ctx := on(t, p)
		saved, err := -1, error(nil)
		var s rotation.Session
		if s, err = rotation.NewDirJournal("/state").Begin(ctx, "a"); err == nil {
			for i, r := range records {
				if i > 0 {
					if err = s.Reserve(ctx); err != nil {
						break
					}
				}
				if err = s.Append(ctx, []byte(`{"hash":"x"}`)); err != nil {
					break
				}
				if err = s.Save(ctx, []byte(r)); err != nil {
					break
				}
				saved = i
			}
		}
		killed := errors.Is(err, memfs.ErrKilled)
		for world := range disk.CrashStates() {
			worlds++
			ctx := on(t, world)
			s := begin(t, ctx)
			b, damaged, err := s.Load(ctx)
			require.NoError(t, err, "step %d", step)
			assert.False(t, damaged, "step %d", step)
			want := []string{""}
			if saved >= 0 {
				want = []string{records[saved]}
			}
			if saved+1 < len(records) {
				want = append(want, records[saved+1])
			}
			assert.Contains(t, want, string(b), "step %d", step)
			// And it can go on.
			require.NoError(t, s.Save(ctx, []byte("next")))
			require.NoError(t, s.Close())
			for again := range world.CrashStates() {
				b, err := rotation.NewDirJournal("/state").Peek(on(t, again), "a")
				require.NoError(t, err)
				assert.Equal(t, "next", string(b), "step %d", step)
			}
		}
		if !killed {
			break
		}
	}
	t.Logf("%d worlds after a power cut", worlds)
}

// What was reserved can be saved on a disk that is full, and a disk that fails
// leaves the record before or the new one.
func TestJournalDiskFails(t *testing.T) {
	t.Parallel()
	disk := memfs.New()
	p := disk.Process()
	ctx := on(t, p)
	s := begin(t, ctx)
	require.NoError(t, s.Append(ctx, []byte("{}")))
	require.NoError(t, s.Save(ctx, []byte(records[0])))
	require.NoError(t, s.Reserve(ctx))
	size := map[string]int{}
	p.Hook = func(op, name string, after bool) error {
		if op == "create" && !after {
			return syscall.ENOSPC
		}
		if op == "write" && !after { // no file may grow
			b, _ := disk.ReadFile(name)
			size[name] = len(b)
		}
		if op == "write" && after {
			if b, _ := disk.ReadFile(name); len(b) > size[name] {
				return syscall.ENOSPC
			}
		}
		return nil
	}
	require.NoError(t, s.Save(ctx, []byte(records[2])))
	require.Error(t, s.Reserve(ctx))
	require.NoError(t, s.Save(ctx, []byte(records[0])), "what was reserved is still there")
	require.ErrorIs(t, s.Save(ctx, []byte(records[3])), syscall.ENOSPC, "nothing was reserved for this one")
	b, _, err := s.Load(ctx)
	require.NoError(t, err)
	assert.Equal(t, records[0], string(b))
	p.Hook = nil
	require.NoError(t, s.Save(ctx, []byte(records[3])))
	require.NoError(t, s.Close())

	for _, errno := range []syscall.Errno{syscall.ENOSPC, syscall.EIO, syscall.EROFS} {
		for step := 1; ; step++ {
			disk := memfs.New()
			p := disk.Process()
			ctx := on(t, p)
			s := begin(t, ctx)
			require.NoError(t, s.Save(ctx, []byte(records[0])))
			n := 0
			p.Hook = func(string, string, bool) error {
				if n++; n == step {
					return errno
				}
				return nil
			}
			err := s.Save(ctx, []byte(records[2]))
			if err == nil {
				break
			}
			require.ErrorIs(t, err, errno)
			// The same session can try again.
			require.NoError(t, s.Save(ctx, []byte(records[3])))
			b, damaged, err := s.Load(ctx)
			require.NoError(t, err)
			assert.False(t, damaged)
			assert.Equal(t, records[3], string(b))
			require.NoError(t, s.Close())
		}
	}
}

func TestJournalRefusesAnOpenDirectory(t *testing.T) {
	t.Parallel()
	for name, spoil := range map[string]func(*memfs.FS){
		"readable by others": func(d *memfs.FS) { d.Chmod("/state", 0o755) },
		"job readable":       func(d *memfs.FS) { d.MkdirAll("/state/a"); d.Chmod("/state/a", 0o770) },
		"owned by another":   func(d *memfs.FS) { d.Chown("/state", 4711) },
		"a file":             func(d *memfs.FS) { d.WriteFile("/state/a", nil, 0o600) },
		"a link":             func(d *memfs.FS) { d.MkdirAll("/elsewhere"); d.Symlink("/elsewhere", "/state/a") },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			disk := memfs.New()
			require.NoError(t, disk.Mkdir("/state"))
			spoil(disk)
			_, err := rotation.NewDirJournal("/state").Begin(on(t, disk), "a")
			require.Error(t, err)
		})
	}
}

// The audit trail shows what was changed or taken out, and survives a line that
// was cut off.
func TestAudit(t *testing.T) {
	t.Parallel()
	w, err := newWorld(paired)
	require.NoError(t, err)
	inWorld(t, w, func(t *testing.T) {
		_, err := w.start(t.Context(), 0).rotate()
		require.NoError(t, err)
	})
	trail, _ := w.disk.ReadFile("/state/app/audit.jsonl")
	n, err := rotation.CheckAudit(bytes.NewReader(trail))
	require.NoError(t, err)
	lines := bytes.SplitAfter(trail, []byte{'\n'})
	lines = lines[:len(lines)-1]
	assert.Len(t, lines, n)
	assert.Greater(t, n, 10)
	for i := range lines[:len(lines)-1] {
		without := bytes.Join(append(append([][]byte{}, lines[:i]...), lines[i+1:]...), nil)
		_, err := rotation.CheckAudit(bytes.NewReader(without))
		require.Error(t, err, "line %d is gone", i+1)
	}
	for i, line := range lines {
		changed := bytes.Replace(line, []byte(`"time":"2`), []byte(`"time":"3`), 1)
		require.NotEqual(t, line, changed)
		_, err := rotation.CheckAudit(bytes.NewReader(bytes.Join(append(append(append([][]byte{}, lines[:i]...), changed), lines[i+1:]...), nil)))
		require.Error(t, err, "line %d was changed", i+1)
	}

	disk := memfs.New()
	require.NoError(t, disk.Mkdir("/state"))
	require.NoError(t, disk.Mkdir("/state/a"))
	disk.WriteFile("/state/a/audit.jsonl", append(bytes.Clone(lines[0]), lines[1][:20]...), 0o600)
	ctx := on(t, disk)
	s := begin(t, ctx)
	last, err := s.Last(ctx)
	require.NoError(t, err)
	assert.Equal(t, string(bytes.TrimSpace(lines[0])), string(last))
	require.NoError(t, s.Append(ctx, bytes.TrimSpace(lines[1])))
	require.NoError(t, s.Close())
	torn, _ := disk.ReadFile("/state/a/audit.jsonl")
	n, err = rotation.CheckAudit(bytes.NewReader(torn))
	require.NoError(t, err)
	assert.Equal(t, 2, n)

	// Wherever the second line was cut, and however often the next was cut
	// right after, the chain goes on from the last line that is whole.
	second := bytes.TrimSpace(lines[1])
	for cut := range len(second) + 1 {
		for _, again := range []string{"", "\n", "\n{\"ti"} {
			disk.WriteFile("/state/a/audit.jsonl", []byte(string(lines[0])+string(second[:cut])+again), 0o600)
			want := lines[0]
			if cut == len(second) {
				want = lines[1]
			}
			s := begin(t, ctx)
			last, err := s.Last(ctx)
			require.NoError(t, err)
			assert.Equal(t, string(bytes.TrimSpace(want)), string(last), "cut to %d, then %q", cut, again)
			require.NoError(t, s.Close())
		}
	}
}

func TestSealing(t *testing.T) {
	t.Parallel()
	disk := memfs.New()
	ctx := on(t, disk)
	file := rotation.SealKeyFile("/sealing.key")
	sealed, err := file.Seal(ctx, []byte("canary-token"), "a")
	require.NoError(t, err)
	assert.NotContains(t, string(sealed), "canary")
	info, err := disk.Lstat("/sealing.key")
	require.NoError(t, err)
	assert.Equal(t, "-rw-------", info.Mode().String())
	plain, err := rotation.SealKeyFile("/sealing.key").Open(ctx, sealed, "a")
	require.NoError(t, err)
	assert.Equal(t, "canary-token", string(plain))
	_, err = file.Open(ctx, sealed, "b")
	require.ErrorIs(t, err, rotation.ErrJournal, "it is of another job")
	for i := range sealed {
		bad := bytes.Clone(sealed)
		bad[i] ^= 1
		_, err = file.Open(ctx, bad, "a")
		require.ErrorIs(t, err, rotation.ErrJournal)
	}
	_, err = rotation.SealKeyFile("/other.key").Open(ctx, sealed, "a")
	require.ErrorIs(t, err, rotation.ErrJournal)
	require.NotContains(t, disk.Names("/"), "other.key.tmp")

	disk.WriteFile("/short.key", []byte("abcd\n"), 0o600)
	_, err = rotation.SealKeyFile("/short.key").Seal(ctx, []byte("x"), "a")
	require.ErrorIs(t, err, rotation.ErrJournal)
	assert.NotContains(t, err.Error(), "abcd")
}

func TestSealingKeyInTheEnvironment(t *testing.T) {
	env := rotation.SealKeyEnv("KEYWRIGHT_TEST_SEALING_KEY")
	_, err := env.Seal(t.Context(), []byte("x"), "a")
	require.ErrorIs(t, err, rotation.ErrJournal)
	require.ErrorContains(t, err, "KEYWRIGHT_TEST_SEALING_KEY")
	t.Setenv("KEYWRIGHT_TEST_SEALING_KEY", strings.Repeat("ab", 32))
	sealed, err := env.Seal(t.Context(), []byte("x"), "a")
	require.NoError(t, err)
	plain, err := env.Open(t.Context(), sealed, "a")
	require.NoError(t, err)
	assert.Equal(t, "x", string(plain))
}

// Processes that make the sealing key at the same time use the same one, and
// one that was killed on the way leaves nothing that anybody mistakes for it.
func TestSealingKeyIsMadeOnce(t *testing.T) {
	t.Parallel()
	for step := 1; ; step++ {
		disk := memfs.New()
		p := disk.Process()
		n := 0
		p.Hook = func(string, string, bool) error {
			if n++; n == step {
				p.Kill()
			}
			return nil
		}
		sealed, err := rotation.SealKeyFile("/k").Seal(on(t, p), []byte("x"), "a")
		for world := range disk.CrashStates() {
			fresh, ferr := rotation.SealKeyFile("/k").Seal(on(t, world), []byte("x"), "a")
			require.NoError(t, ferr)
			_, ferr = rotation.SealKeyFile("/k").Open(on(t, world), fresh, "a")
			require.NoError(t, ferr, "step %d", step)
			if err == nil {
				_, ferr = rotation.SealKeyFile("/k").Open(on(t, world), sealed, "a")
				require.NoError(t, ferr, "step %d", step)
			}
		}
		if err == nil {
			break
		}
	}
	disk := memfs.New()
	sealed := make([][]byte, 16)
	var running sync.WaitGroup
	for i := range sealed {
		running.Go(func() {
			sealed[i], _ = rotation.SealKeyFile("/k").Seal(on(t, disk.Process()), []byte("x"), "a")
		})
	}
	running.Wait()
	for _, b := range sealed {
		_, err := rotation.SealKeyFile("/k").Open(on(t, disk), b, "a")
		require.NoError(t, err)
	}
}
