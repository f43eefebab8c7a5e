package jobs

import (
	"context"
	"fmt"
	"path/filepath"
	"runtime"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/keywright/keywright/jobs/internal/pgtest"
	"github.com/keywright/keywright/jobs/store"
	"github.com/keywright/keywright/rotation"
)

// Ten thousand keys that are due at once stay rows until it is their turn: those
// that have been due for longest come first.
//
// Nothing runs beside it, because it measures.
func TestTenThousand(t *testing.T) {
	for _, kind := range []string{"sqlite", "postgres"} {
		t.Run(kind, func(t *testing.T) {
			d := sqliteAt
			if kind == "postgres" {
				d = postgresAt
			}
			testTenThousand(t, d(t))
		})
	}
}

func testTenThousand(t *testing.T, d database) {
	const n, some = many, 50
	w, c := &world{}, &clock{}
	jobs := make([]Job, n)
	for i := range jobs {
		jobs[i] = newKey(w, fmt.Sprintf("key-%05d", i)).job(specOf(t, `{"every":"30d","jitter":"10d"}`))
	}
	b := newBench(t, d, c, WithConcurrency(1), WithBatch(100), WithSweep(time.Second))
	began := time.Now()
	b.start(jobs...)
	t.Logf("registered %d jobs in %s", n, time.Since(began).Round(time.Millisecond))
	rows, err := b.store.List(t.Context())
	require.NoError(t, err)
	slices.SortFunc(rows, func(a, b store.Schedule) int { return a.Due.Compare(b.Due) })

	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	c.advance(31 * 24 * time.Hour)
	began = time.Now()
	require.NoError(t, b.sweepOnce(t.Context()))
	took := time.Since(began)
	runtime.ReadMemStats(&after)
	t.Logf("a sweep of %d due jobs: %s, %d MiB allocated", n, took.Round(time.Millisecond), (after.TotalAlloc-before.TotalAlloc)>>20)
	require.Less(t, after.TotalAlloc-before.TotalAlloc, uint64(128<<20))
	var live int
	require.NoError(t, b.store.SQL().QueryRowContext(t.Context(), `SELECT COUNT(*) FROM river_job WHERE kind = 'keywright_rotate' AND state IN ('available', 'running')`).Scan(&live))
	require.LessOrEqual(t, live, 102)
	for range some {
		require.NoError(t, b.until(func(v Result) bool { return v.Over }).Err)
	}
	w.mu.Lock()
	order := slices.Clone(w.order[:some])
	w.mu.Unlock()
	place := make(map[string]int, n)
	for i, row := range rows {
		place[row.Job] = i
	}
	for i, name := range order {
		require.InDelta(t, i, place[name], 100, name) // the batch
	}
}

// In a freeze nothing begins, not even what is due, or is tried again.
func TestFreeze(t *testing.T) {
	t.Parallel()
	k, c := newKey(&world{}, "billing"), &clock{}
	k.issue = fakeError{"no"}
	day := c.now().UTC().AddDate(0, 0, 10)
	spec := fmt.Sprintf(`{"every":"1h","freeze":[{"from":%q,"to":%q}]}`, day.Format("2006-01-02"), day.AddDate(0, 0, 2).Format("2006-01-02"))
	b := newBench(t, sqliteAt(t), c).start(k.job(specOf(t, spec)))
	c.advance(2 * time.Hour)
	require.Equal(t, StateFailed, b.next().State)
	b.idle()
	calls := func() int { k.all.mu.Lock(); defer k.all.mu.Unlock(); return len(k.all.order) }
	tried := calls()
	c.advance(day.Truncate(24 * time.Hour).Add(time.Hour).Sub(c.now()))
	b.sweeps()
	b.sweeps()
	require.Equal(t, tried, calls())
	s := b.status1("billing")
	require.False(t, s.Due.Before(day.Truncate(24*time.Hour).AddDate(0, 0, 3)), s.Due)
	k.set(func() { k.issue = nil })
	c.advance(s.Due.Sub(c.now()))
	require.True(t, done(b.until(done)))
}

// A rotation goes on when the database comes back.
func TestDatabaseAway(t *testing.T) {
	t.Parallel()
	server := pgtest.New(t)
	d, c := database{kind: "postgres", where: server.Database(t), dir: filepath.Join(t.TempDir(), "private")}, &clock{}
	k := newKey(&world{}, "billing")
	reached, let := make(chan struct{}, 1), make(chan struct{})
	k.calls = func(what string) {
		if what == "write" {
			reached <- struct{}{}
			<-let
		}
	}
	b := newBench(t, d, c).start(k.job(specOf(t, `{"every":"30d"}`)))
	require.NoError(t, b.Trigger(t.Context(), "billing"))
	<-reached
	server.Crash(t)
	close(let)
	time.Sleep(2 * time.Second) // as long as the database is away
	server.Start(t)
	require.Eventually(t, func() bool {
		s, err := b.Status(t.Context(), "billing")
		return err == nil && s.State == "DONE"
	}, 60*time.Second, 100*time.Millisecond)
	require.Equal(t, 1, k.count())
}

// What a scheduled rotation costs beyond the engine's own.
func BenchmarkOverhead(b *testing.B) {
	d, c, w := sqliteAt(b), &clock{}, &world{}
	r := newBench(b, d, c, WithConcurrency(1))
	keys := make([]Job, 100)
	for i := range keys {
		keys[i] = newKey(w, fmt.Sprintf("key-%03d", i)).job(specOf(b, `{"every":"30d"}`))
	}
	r.start(keys...)
	alone, err := rotation.Open(filepath.Join(b.TempDir(), "journal"))
	require.NoError(b, err)
	other := newKey(w, "alone").job(nil)
	var inside, all time.Duration
	for b.Loop() {
		began := cpu()
		for range keys {
			_, err := alone.Rotate(context.Background(), other.Job)
			require.NoError(b, err)
		}
		inside += cpu() - began
		began = cpu()
		c.advance(31 * 24 * time.Hour)
		for range keys {
			r.until(done)
		}
		all += cpu() - began
	}
	b.ReportMetric((all-inside).Seconds()*1000/float64(b.N*len(keys)), "cpu-ms/rotation")
}
