package jobs

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/keywright/keywright/jobs/store"
)

// A disk that is full, before the provider answers or after, loses no token, and
// nothing is begun. When there is space again, all goes on.
func TestFullDisk(t *testing.T) {
	t.Parallel()
	for _, point := range []string{"issue", "issued"} {
		t.Run(point, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			if err := mountSmall(dir); err != nil {
				t.Skip("no file system of its own can be mounted: " + err.Error())
			}
			t.Cleanup(func() { require.NoError(t, unmount(dir)) })
			private := filepath.Join(dir, "private")
			d := database{kind: "sqlite", where: filepath.Join(private, "k.db"), dir: t.TempDir()}
			filler := filepath.Join(dir, "filler")
			testFull(t, d, point, func(b *bench) {
				// The log has room for what it has held before: that is filled, too.
				for i := 0; ; i++ {
					f, err := os.OpenFile(filler, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
					require.NoError(t, err)
					for err == nil {
						_, err = f.Write(make([]byte, 4096))
					}
					require.ErrorIs(t, err, syscall.ENOSPC)
					require.NoError(t, f.Close())
					if !b.room(t) {
						return
					}
					require.Less(t, i, 10_000)
				}
			}, func(*bench) { require.NoError(t, os.Remove(filler)) })
		})
	}
}

// The same with a database that may not grow.
func TestFullDatabase(t *testing.T) {
	t.Parallel()
	for _, point := range []string{"issued", "write"} {
		t.Run(point, func(t *testing.T) {
			t.Parallel()
			testFull(t, sqliteAt(t), point, func(b *bench) {
				var pages int
				require.NoError(t, b.store.SQL().QueryRowContext(t.Context(), `PRAGMA max_page_count = 1`).Scan(&pages)) // as few as there are
				for b.room(t) {
				}
			}, func(b *bench) { b.exec(`PRAGMA max_page_count = 1000000`) })
		})
	}
}

// room takes what room the database has, and reports whether it had any.
func (b *bench) room(t *testing.T) (any bool) {
	t.Helper()
	text := strings.Repeat("x", 1900)
	for _, n := range []int{100, 10, 1} {
		events := slices.Repeat([]store.Event{{Job: "filler", Text: text}}, n)
		for {
			err := b.store.AddEvent(t.Context(), events...)
			if errors.Is(err, store.ErrFull) {
				break
			}
			require.NoError(t, err)
			any = true
		}
	}
	return any
}

func testFull(t *testing.T, d database, point string, fill, free func(*bench)) {
	w, c := &world{}, &clock{}
	k, waiting := newKey(w, "billing"), newKey(w, "waiting")
	var once sync.Once
	full, tried := make(chan struct{}), make(chan struct{})
	var b *bench
	k.calls = func(what string) {
		if what == point {
			once.Do(func() { fill(b); close(full); <-tried })
		}
	}
	b = newBench(t, d, c, WithStep(3*time.Second, time.Second), WithRescue(5*time.Second)).start(
		k.job(specOf(t, `{"every":"30d"}`)), waiting.job(specOf(t, `{"every":"30d"}`)))
	require.NoError(t, b.Trigger(t.Context(), "billing"))
	<-full
	c.advance(31 * day)
	// It is tried: by the sweep, by a person, and by a River job that is there.
	_ = b.sweepOnce(t.Context())
	_ = b.Trigger(t.Context(), "waiting")
	_, _ = b.work(t.Context(), rotateArgs{Job: "waiting", Force: true})
	require.Zero(t, waiting.count(), "nothing is begun")
	close(tried)
	require.Eventually(t, func() bool { // the step ends, with what was reserved
		b.mu.Lock()
		defer b.mu.Unlock()
		_, there := b.running["billing"]
		return !there
	}, patience, 10*time.Millisecond)
	require.Equal(t, 1, k.count())
	free(b)
	freed := time.Now()
	for _, k := range []*key{k, waiting} {
		require.Eventually(t, func() bool {
			s, err := b.Status(t.Context(), k.name)
			if err == nil && s.State == StateFailed {
				c.advance(2 * time.Minute) // it had no room to begin, and is tried again
			}
			return err == nil && s.State == "DONE" && s.Generation >= 1
		}, patience, 100*time.Millisecond)
		k.set(func() {
			require.Equal(t, []string{k.held}, k.tokens, "what the provider accepts is what the sink has")
			require.Equal(t, 1, k.issued)
		})
	}
	t.Logf("full at %s: all over %s after there was space", point, time.Since(freed).Round(time.Millisecond))
}
