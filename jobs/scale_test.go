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

	"github.com/keywright/keywright/jobs/store"
	"github.com/keywright/keywright/rotation"
)

// Ten thousand keys that are due at once stay rows until it is their turn: the
// canary first, then those that have been due for longest, and never more in a
// second than the provider is to get.
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
	const n, some, perSecond = many, 50, 50
	w, c := &world{}, &clock{}
	jobs := make([]Job, n)
	var begun []time.Time
	for i := range jobs {
		spec := `{"every":"30d","jitter":"10d","group":"g"}`
		if i == n-1 {
			spec = `{"every":"30d","group":"g","canary":true}`
		}
		k := newKey(w, fmt.Sprintf("key-%05d", i))
		k.calls = func(what string) {
			if what == "issue" {
				w.mu.Lock()
				begun = append(begun, time.Now())
				w.mu.Unlock()
			}
		}
		jobs[i] = k.job(specOf(t, spec))
	}
	b := newBench(t, d, c, WithConcurrency(1), WithBatch(100), WithSweep(time.Second), WithLimit("toy", Limit{PerSecond: perSecond}))
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
	require.NoError(t, b.sweepOnce(t.Context()))
	require.True(t, done(b.next())) // the canary, which the others wait for
	began = time.Now()
	runtime.ReadMemStats(&before)
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
	runtime.GC()
	var end runtime.MemStats
	runtime.ReadMemStats(&end)
	t.Logf("%d KiB more on the heap", (int64(end.HeapAlloc)-int64(before.HeapAlloc))>>10)
	require.Less(t, int64(end.HeapAlloc)-int64(before.HeapAlloc), int64(64<<20))
	w.mu.Lock()
	order, begun := slices.Clone(w.order[:some]), slices.Clone(begun[:some])
	w.mu.Unlock()
	require.Equal(t, jobs[n-1].Name, order[0])
	require.GreaterOrEqual(t, begun[some-1].Sub(begun[0]), (some-2)*time.Second/perSecond)
	order = order[1:]
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

// What a scheduled rotation costs beyond the engine's own: less than 50 ms of CPU
// time.
//
// Nothing runs beside it, because it measures.
func TestOverhead(t *testing.T) {
	const n = 50
	over := overhead(t, n)
	per := over() / n
	t.Logf("%s of CPU time a rotation, beyond the engine's own", per.Round(10*time.Microsecond))
	if cpu() > 0 { // else it is not known here
		require.Less(t, per, slow*50*time.Millisecond)
	}
}

func BenchmarkOverhead(b *testing.B) {
	const n = 100
	over := overhead(b, n)
	var all time.Duration
	for b.Loop() {
		all += over()
	}
	b.ReportMetric(all.Seconds()*1000/float64(b.N*n), "cpu-ms/rotation")
}

// overhead returns a function that rotates n keys, and returns what that costs
// beyond what the engine does.
func overhead(tb testing.TB, n int) func() time.Duration {
	d, c, w := sqliteAt(tb), &clock{}, &world{}
	r := newBench(tb, d, c, WithConcurrency(1))
	keys := make([]Job, n)
	for i := range keys {
		keys[i] = newKey(w, fmt.Sprintf("key-%03d", i)).job(specOf(tb, `{"every":"30d"}`))
	}
	r.start(keys...)
	alone, err := rotation.Open(filepath.Join(tb.TempDir(), "journal"))
	require.NoError(tb, err)
	other := newKey(w, "alone").job(nil)
	return func() time.Duration {
		began := cpu()
		for range keys {
			_, err := alone.Rotate(context.Background(), other.Job)
			require.NoError(tb, err)
		}
		inside := cpu() - began
		began = cpu()
		c.advance(31 * 24 * time.Hour)
		for range keys {
			r.until(done)
		}
		return cpu() - began - inside
	}
}
