package webhook_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/keywright/keywright"
	"github.com/keywright/keywright/internal/durable"
	"github.com/keywright/keywright/internal/durable/memfs"
	"github.com/keywright/keywright/webhook"
)

func nothing() error { return nil }

func once(ctx context.Context, s webhook.DedupeStore, id string) error {
	return s.Once(ctx, keywright.EventID(id), webhook.Digest{1}, nothing)
}

func TestMemoryStoreIsBounded(t *testing.T) {
	t.Parallel()
	s := webhook.NewMemoryStore(3)
	for i := range 1000 {
		require.NoError(t, once(t.Context(), s, fmt.Sprint(i)))
	}
	for i := 997; i < 1000; i++ {
		require.ErrorIs(t, once(t.Context(), s, fmt.Sprint(i)), webhook.ErrDuplicate)
	}
	require.NoError(t, once(t.Context(), s, "996"), "the oldest are forgotten")
	require.ErrorIs(t, once(t.Context(), s, "999"), webhook.ErrDuplicate)
	require.NoError(t, once(t.Context(), s, "997"), "which makes room for one")
}

// What every store does.
func TestStores(t *testing.T) {
	t.Parallel()
	for name, make := range stores {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, ctx := make(t), t.Context()
			failure := errors.New("no")
			require.ErrorIs(t, s.Once(ctx, "a", webhook.Digest{1}, func() error { return failure }), failure)
			assert.PanicsWithValue(t, "boom", func() { _ = s.Once(ctx, "a", webhook.Digest{1}, func() error { panic("boom") }) })
			require.NoError(t, once(ctx, s, "a"), "neither counts as accepted")
			require.ErrorIs(t, once(ctx, s, "a"), webhook.ErrDuplicate)
			require.ErrorIs(t, s.Once(ctx, "a", webhook.Digest{}, nothing), webhook.ErrDuplicate, "an unknown content is the same")
			require.ErrorIs(t, s.Once(ctx, "a", webhook.Digest{2}, nothing), webhook.ErrConflict)
			for _, id := range []string{"", "../../etc", strings.Repeat("x", 1<<10), "A", "a/b", "\x00"} {
				require.NoError(t, once(ctx, s, id))
				require.ErrorIs(t, once(ctx, s, id), webhook.ErrDuplicate)
			}
			// Of many at once, one goes in; when it fails, another one.
			var calls, inside atomic.Int32
			var wg sync.WaitGroup
			for range 32 {
				wg.Go(func() {
					err := s.Once(ctx, "b", webhook.Digest{1}, func() error {
						assert.EqualValues(t, 1, inside.Add(1))
						defer inside.Add(-1)
						if calls.Add(1) < 3 {
							return failure
						}
						return nil
					})
					if err != nil && !errors.Is(err, failure) {
						assert.ErrorIs(t, err, webhook.ErrDuplicate)
					}
				})
			}
			wg.Wait()
			assert.EqualValues(t, 3, calls.Load())
			// Who waits for another does so no longer than its context.
			gone, cancel := context.WithCancel(ctx)
			err := s.Once(ctx, "c", webhook.Digest{1}, func() error {
				cancel()
				require.ErrorIs(t, once(gone, s, "c"), context.Canceled)
				return nil
			})
			require.NoError(t, err)
		})
	}
}

// accept gives a store a delivery of idA, as the handler does.
func accept(ctx context.Context, t *testing.T) error {
	e, err := verifier(t, secretA).Verify(header(now(body(idA))), body(idA))
	require.NoError(t, err)
	s := webhook.NewFileStore(storeDir)
	return s.Once(ctx, e.ID, e.Digest(), func() error { return s.Accept(ctx, e) })
}

// life is one run of a program: it takes a delivery, if there is one, and
// processes what waits. It returns how often the event was processed, and how the
// delivery was answered.
func life(t *testing.T, fsys durable.FS, delivered bool) (processed int, answer error) {
	t.Helper()
	ctx, stop := context.WithCancel(durable.NewContext(t.Context(), fsys))
	defer stop()
	if delivered {
		answer = accept(ctx, t)
	}
	done := make(chan error, 1)
	go func() {
		done <- webhook.NewFileStore(storeDir).Process(ctx, func(_ context.Context, e *webhook.Event) error {
			assert.Equal(t, idA, string(e.ID))
			assert.Equal(t, string(body(idA)), e.Raw.Reveal())
			processed++
			return nil
		})
	}()
	synctest.Wait()
	stop()
	err := <-done
	if !errors.Is(err, memfs.ErrKilled) {
		assert.ErrorIs(t, err, context.Canceled)
	}
	return processed, answer
}

// Wherever the program is killed, with the power cut or not, an event that was
// answered is processed, and one that is delivered again is processed once. If
// it is killed between the end of the processing and the note of that, it is
// processed again: nobody can know better.
func TestFileStoreKilledAnywhere(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		moments, worlds := 0, 0
		for moment := 1; ; moment++ {
			w := disk()
			p := w.Process()
			n, killed := 0, false
			p.Hook = func(string, string, bool) error {
				if n++; n == moment {
					p.Kill()
					killed = true
				}
				return nil
			}
			before, answer := life(t, p, true)
			require.LessOrEqual(t, before, 1)
			states := []*memfs.FS{}
			for after := range w.CrashStates() {
				states = append(states, after)
			}
			states = append(states, w) // killed, and no power cut
			for _, after := range states {
				worlds++
				processed, again := life(t, after.Process(), answer != nil)
				require.True(t, again == nil || errors.Is(again, webhook.ErrDuplicate), "moment %d: %v", moment, again)
				if before == 0 {
					require.Equal(t, 1, processed, "moment %d", moment)
				}
				require.LessOrEqual(t, processed, 1)
				processed, again = life(t, after.Process(), true) // a late duplicate
				require.ErrorIs(t, again, webhook.ErrDuplicate, "moment %d", moment)
				require.Zero(t, processed, "moment %d", moment)
			}
			if !killed {
				break
			}
			moments++
		}
		require.Greater(t, moments, 40)
		t.Logf("killed at %d moments, %d worlds", moments, worlds)
	})
}

// A program is killed while it accepts; the next one answers the delivery that
// comes again; then the power fails. What was answered is there.
func TestFileStoreKilledAndPowerCut(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		for moment := 1; ; moment++ {
			w := disk()
			p := w.Process()
			n, killed := 0, false
			p.Hook = func(string, string, bool) error {
				if n++; n == moment {
					p.Kill()
					killed = true
				}
				return nil
			}
			_ = accept(durable.NewContext(t.Context(), p), t)
			if !killed {
				break
			}
			err := accept(durable.NewContext(t.Context(), w.Process()), t)
			require.True(t, err == nil || errors.Is(err, webhook.ErrDuplicate), "%v", err)
			for after := range w.CrashStates() {
				processed, _ := life(t, after.Process(), false)
				require.Equal(t, 1, processed, "moment %d", moment)
			}
			// The same, but that it is processed before the power fails.
			processed, _ := life(t, w.Process(), false)
			require.Equal(t, 1, processed)
			for after := range w.CrashStates() {
				processed, again := life(t, after.Process(), true)
				require.ErrorIs(t, again, webhook.ErrDuplicate, "moment %d", moment)
				require.Zero(t, processed, "moment %d", moment)
			}
		}
	})
}

// A disk that fails anywhere makes an error, and what is delivered again is
// processed once.
func TestFileStoreDiskFails(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		full := errors.New("the disk is full")
		for moment := 1; ; moment++ {
			w := disk()
			p := w.Process()
			n, failed := 0, false
			p.Hook = func(string, string, bool) error {
				if n++; n == moment {
					failed = true
					return full
				}
				return nil
			}
			err := accept(durable.NewContext(t.Context(), p), t)
			if !failed {
				break
			}
			processed, answer := life(t, w.Process(), err != nil)
			require.True(t, answer == nil || errors.Is(answer, webhook.ErrDuplicate))
			require.Equal(t, 1, processed)
		}
	})
}

// Two programs share a store: of one event's deliveries to both, one is
// accepted, and only one of them processes at a time.
func TestFileStoreOfTwoProcesses(t *testing.T) {
	t.Parallel()
	t.Run("files", func(t *testing.T) {
		t.Parallel()
		dir := t.TempDir() + "/events"
		var calls atomic.Int32
		var wg sync.WaitGroup
		for i := range 32 {
			wg.Go(func() {
				s := webhook.NewFileStore(dir)
				err := s.Once(t.Context(), keywright.EventID(fmt.Sprint(i%4)), webhook.Digest{1}, func() error { calls.Add(1); return nil })
				assert.True(t, err == nil || errors.Is(err, webhook.ErrDuplicate), "%v", err)
			})
		}
		wg.Wait()
		assert.EqualValues(t, 4, calls.Load())
	})
	synctest.Test(t, func(t *testing.T) {
		w := disk()
		ctx, stop := context.WithCancel(t.Context())
		first := w.Process()
		require.NoError(t, accept(durable.NewContext(ctx, first), t))
		var began atomic.Int32
		var wg sync.WaitGroup
		process := func(p *memfs.Process) {
			wg.Go(func() {
				_ = webhook.NewFileStore(storeDir).Process(durable.NewContext(ctx, p), func(ctx context.Context, _ *webhook.Event) error {
					began.Add(1)
					<-ctx.Done()
					return nil
				})
			})
		}
		process(first)
		synctest.Wait()
		process(w.Process())
		synctest.Wait()
		assert.EqualValues(t, 1, began.Load(), "the other one waits")
		first.Kill()
		synctest.Wait()
		assert.EqualValues(t, 2, began.Load(), "and takes over")
		stop()
		wg.Wait()
	})
}

// What one process accepts is processed by another, in the order of
// acceptance; what fails is tried again, and the others are not kept waiting.
func TestProcess(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := disk()
		ctx, stop := context.WithCancel(durable.NewContext(t.Context(), w.Process()))
		store := webhook.NewFileStore(storeDir)
		start := time.Now()
		var got []string
		done := make(chan error)
		put := func(id string) {
			t.Helper()
			other := webhook.NewFileStore(storeDir)
			b := body(id)
			e, err := verifier(t, secretA).Verify(header(now(b)), b)
			require.NoError(t, err)
			ctx := durable.NewContext(t.Context(), w.Process())
			require.NoError(t, other.Once(ctx, e.ID, e.Digest(), func() error { return other.Accept(ctx, e) }))
			<-time.After(time.Millisecond)
		}
		for _, id := range []string{"3", "1", "2"} {
			put(id)
		}
		go func() {
			done <- store.Process(ctx, func(_ context.Context, e *webhook.Event) error {
				got = append(got, fmt.Sprintf("%s %s", e.ID, time.Since(start).Truncate(time.Second)))
				if e.ID == "1" && time.Since(start) < 8*time.Second {
					return errors.New("not yet")
				}
				return nil
			})
		}()
		synctest.Wait()
		assert.Equal(t, []string{"3 0s", "1 0s", "2 0s"}, got)
		put("4")
		<-time.After(12 * time.Second)
		synctest.Wait()
		assert.Equal(t, []string{"3 0s", "1 0s", "2 0s", "4 1s", "1 5s", "1 10s"}, got)
		n, err := store.Pending(ctx)
		require.NoError(t, err)
		assert.Zero(t, n)
		stop()
		require.ErrorIs(t, <-done, context.Canceled)
	})
}

// After thirty days an event is forgotten; what a process that was killed has
// left is removed; and what still waits stays.
func TestFileStoreSweep(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := disk()
		ctx := durable.NewContext(t.Context(), w)
		s := webhook.NewFileStore(storeDir)
		require.NoError(t, once(ctx, s, "old"))
		require.NoError(t, accept(ctx, t))
		for _, kind := range []string{"seen", "pending"} {
			w.WriteFile(storeDir+"/"+kind+"/.x.keywright-0123456789abcdef.tmp", []byte("half"), 0o600)
		}
		<-time.After(29 * 24 * time.Hour)
		require.ErrorIs(t, once(ctx, s, "old"), webhook.ErrDuplicate)
		for _, name := range w.Names(storeDir) {
			assert.NotContains(t, name, ".tmp")
		}
		<-time.After(25 * time.Hour)
		require.NoError(t, once(ctx, s, "old"), "thirty days are over")
		require.ErrorIs(t, accept(ctx, t), webhook.ErrDuplicate, "it still waits")
		processed, _ := life(t, w.Process(), false)
		assert.Equal(t, 1, processed)
		require.ErrorIs(t, accept(ctx, t), webhook.ErrDuplicate)
	})
}

func TestFileStoreRefuses(t *testing.T) {
	t.Parallel()
	for name, scene := range map[string]struct {
		set  func(*memfs.FS)
		text string
	}{
		"open to others": {func(w *memfs.FS) { w.MkdirAll(storeDir); w.Chmod(storeDir, 0o755) }, storeDir + " mode 0755 lets others in"},
		"open inside":    {func(w *memfs.FS) { w.MkdirAll(storeDir + "/seen"); w.Chmod(storeDir+"/seen", 0o777) }, storeDir + "/seen mode 0777 lets others in"},
		"a stranger's":   {func(w *memfs.FS) { w.MkdirAll(storeDir); w.Chown(storeDir, 4242) }, "is owned by uid 4242"},
		"a file":         {func(w *memfs.FS) { w.WriteFile(storeDir, nil, 0o600) }, "is not a directory"},
		"a link":         {func(w *memfs.FS) { w.MkdirAll("/tmp"); w.Symlink("/tmp", storeDir) }, "is not a directory"},
		"nowhere":        {func(w *memfs.FS) { _ = w.Remove("/var/lib") }, "file does not exist"},
	} {
		w := disk()
		scene.set(w)
		ctx := durable.NewContext(t.Context(), w)
		s := webhook.NewFileStore(storeDir)
		for _, err := range []error{
			once(ctx, s, "a"), accept(ctx, t), s.Process(ctx, nil),
			func() error { _, err := s.Pending(ctx); return err }(),
		} {
			assert.ErrorContains(t, err, scene.text, name)
		}
	}
}

// A damaged note that an event was accepted still says so. An event that is
// damaged while it waits is named by an error, when all others are processed.
func TestFileStoreDamaged(t *testing.T) {
	t.Parallel()
	for name, damage := range map[string]string{"empty": "", "garbage": "{", "another": `{"id":"x"}`, "no event": `{"id":"` + idA + `","event":"e30="}`} {
		synctest.Test(t, func(t *testing.T) {
			w := disk()
			ctx := durable.NewContext(t.Context(), w)
			s := webhook.NewFileStore(storeDir)
			require.NoError(t, once(ctx, s, "other"))
			for _, path := range w.Names(storeDir + "/seen") {
				w.WriteFile(path, []byte(damage), 0o600)
			}
			if name != "no event" {
				require.ErrorIs(t, once(ctx, s, "other"), webhook.ErrDuplicate, name)
			}
			require.NoError(t, accept(ctx, t))
			broken := w.Names(storeDir + "/pending")[0]
			w.WriteFile(broken, []byte(damage), 0o600)
			b := body(idB)
			e, err := verifier(t, secretA).Verify(header(now(b)), b)
			require.NoError(t, err)
			require.NoError(t, s.Once(ctx, e.ID, e.Digest(), func() error { return s.Accept(ctx, e) }))
			require.ErrorIs(t, accept(ctx, t), webhook.ErrDuplicate)
			var got []string
			err = s.Process(ctx, func(_ context.Context, e *webhook.Event) error { got = append(got, string(e.ID)); return nil })
			require.ErrorContains(t, err, "damaged: "+broken)
			assert.Equal(t, []string{idB}, got)
			assert.Contains(t, w.Names(storeDir+"/pending"), broken, "it stays, to be looked at")
		})
	}
}

// An event that could be written but not read is refused.
func TestFileStoreTooLarge(t *testing.T) {
	t.Parallel()
	s := webhook.NewFileStore(storeDir)
	ctx := durable.NewContext(t.Context(), disk())
	e := &webhook.Event{Event: keywright.Event{ID: "x", Type: "a", Action: "b"}, Raw: keywright.NewSecret(strings.Repeat(" ", 25<<20))}
	require.ErrorContains(t, s.Accept(ctx, e), "too large")
}
