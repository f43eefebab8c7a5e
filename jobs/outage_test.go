package jobs

import (
	"context"
	"fmt"
	"log/slog"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/keywright/keywright/jobs/internal/pgtest"
	"github.com/keywright/keywright/rotation"
)

// counting counts what is logged, by message.
type counting struct {
	slog.Handler
	mu    sync.Mutex
	lines map[string]int
}

func newCounting() *counting {
	return &counting{Handler: slog.DiscardHandler, lines: make(map[string]int)}
}

func (c *counting) Enabled(_ context.Context, l slog.Level) bool { return l >= slog.LevelInfo }
func (c *counting) WithAttrs([]slog.Attr) slog.Handler           { return c }
func (c *counting) WithGroup(string) slog.Handler                { return c }
func (c *counting) Handle(_ context.Context, r slog.Record) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.lines[r.Level.String()+" "+r.Message]++
	return nil
}

// most returns how many lines there were, and the most frequent ones.
func (c *counting) most() (all int, most string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	var lines []string
	for message, n := range c.lines {
		all += n
		lines = append(lines, fmt.Sprintf("%5d %s", n, message))
	}
	slices.Sort(lines)
	slices.Reverse(lines)
	return all, strings.Join(lines[:min(len(lines), 12)], "\n")
}

// asInProduction polls as a worker does.
func asInProduction(o *options) error { o.poll, o.fast = time.Second, false; return nil }

// Rotations that are under way, and those that become due, go on by themselves
// when the database is back, each once.
func TestDatabaseAway(t *testing.T) {
	t.Parallel()
	testDatabaseAway(t, 5*time.Second, WithStep(4*time.Second, time.Second), WithRescue(8*time.Second))
}

// The same for a minute, with the times that are the defaults.
func TestDatabaseAwayLong(t *testing.T) {
	soak(t)
	t.Parallel()
	testDatabaseAway(t, time.Minute)
}

func testDatabaseAway(t *testing.T, away time.Duration, opts ...Option) {
	server := pgtest.New(t)
	d := database{kind: "postgres", where: server.Database(t), dir: filepath.Join(t.TempDir(), "private")}
	testAway(t, d, away, func() { server.Crash(t) }, func() { server.Start(t) }, opts...)
}

// The same with a SQLite database that another process keeps locked for longer
// than SQLite waits.
func TestDatabaseLocked(t *testing.T) {
	t.Parallel()
	testDatabaseLocked(t, 12*time.Second, WithStep(4*time.Second, time.Second), WithRescue(8*time.Second))
}

func TestDatabaseLockedLong(t *testing.T) {
	soak(t)
	t.Parallel()
	testDatabaseLocked(t, time.Minute)
}

func testDatabaseLocked(t *testing.T, away time.Duration, opts ...Option) {
	d := sqliteAt(t)
	var holder *child
	testAway(t, d, away, func() {
		holder = childSettings{Where: d.where, Hold: true}.spawn(t)
		holder.until("holding")
	}, func() { holder.stop() }, opts...)
}

func testAway(t *testing.T, d database, away time.Duration, goAway, comeBack func(), opts ...Option) {
	const each = 5
	w, c, log := &world{}, &clock{}, newCounting()
	var keys []*key
	var jobs []Job
	reached, let := make(chan struct{}, 3*each), make(chan struct{})
	for i := range 3 * each {
		// Some wait for the provider, some are about to deliver, and some are idle.
		at := [...]string{"issued", "write", ""}[i%3]
		k := newKey(w, fmt.Sprintf("key-%02d", i))
		k.calls = func(what string) {
			if at != "" && what == at {
				reached <- struct{}{}
				<-let
			}
		}
		keys = append(keys, k)
		jobs = append(jobs, k.job(specOf(t, `{"every":"30d"}`)))
	}
	b := newBench(t, d, c, slices.Concat([]Option{WithConcurrency(3 * each), WithLogger(slog.New(log)), asInProduction}, opts)...).start(jobs...)
	for i, k := range keys {
		if i%3 < 2 {
			require.NoError(t, b.Trigger(t.Context(), k.name))
		}
	}
	for range 2 * each {
		<-reached
	}
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	logged, _ := log.most()
	goAway()
	gone := time.Now()
	close(let)
	c.advance(31 * day)
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	_, err := b.Snapshot(ctx)
	cancel()
	if d.kind == "postgres" { // SQLite can be read while it is locked
		require.Error(t, err, "it is not ready")
	}
	require.Less(t, time.Since(gone), 4*time.Second)
	time.Sleep(away - time.Since(gone)) // as long as the database is away
	runtime.GC()
	runtime.ReadMemStats(&after)
	all, most := log.most()
	t.Logf("away for %s: %d lines logged, %d KiB more on the heap, %d goroutines; most often\n%s", away, all-logged,
		(int64(after.HeapAlloc)-int64(before.HeapAlloc))>>10, runtime.NumGoroutine(), most)
	require.Less(t, int64(after.HeapAlloc)-int64(before.HeapAlloc), int64(128<<20), "of all tests that run beside it, too")
	require.Less(t, all-logged, 60+int(away/time.Second)*15, "lines logged")
	comeBack()
	back := time.Now()
	// What was under way is over, and what became due; the triggered ones are due
	// again in a month.
	require.Eventually(t, func() bool {
		all, err := b.Snapshot(t.Context())
		if err != nil {
			return false
		}
		return !slices.ContainsFunc(all, func(s Status) bool { return s.Generation != 1 || s.State != string(rotation.StateDone) })
	}, 4*time.Minute, 100*time.Millisecond)
	t.Logf("all over %s after it was back", time.Since(back).Round(time.Millisecond))
	require.NoError(t, b.sweepOnce(t.Context()))
	for _, k := range keys {
		require.Equal(t, 1, k.count(), k.name)
		require.Equal(t, []string{k.held}, k.tokens, k.name)
	}
}

// A runner whose database is away can be stopped.
func TestStopWhileAway(t *testing.T) {
	t.Parallel()
	server := pgtest.New(t)
	d := database{kind: "postgres", where: server.Database(t), dir: filepath.Join(t.TempDir(), "private")}
	k := newKey(&world{}, "billing")
	reached, let := make(chan struct{}, 10), make(chan struct{})
	k.calls = func(what string) {
		if what == "verify" {
			reached <- struct{}{}
			<-let
		}
	}
	b := newBench(t, d, &clock{}, WithGrace(2*time.Second)).start(k.job(nil))
	require.NoError(t, b.Trigger(t.Context(), "billing"))
	<-reached
	server.Crash(t)
	close(let)
	began := time.Now()
	_ = b.Stop(t.Context())
	t.Logf("stopped in %s", time.Since(began).Round(time.Millisecond))
	require.Less(t, time.Since(began), time.Minute)
	server.Start(t)
	b = newBench(t, d, &clock{}, WithWorkerID("w2"), WithStep(4*time.Second, time.Second), WithRescue(5*time.Second)).start(k.job(nil))
	require.Eventually(t, func() bool { return b.status1("billing").State == "DONE" }, time.Minute, 50*time.Millisecond)
	require.Equal(t, 1, k.count())
}
