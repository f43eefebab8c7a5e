package jobs

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/riverqueue/river"
	"github.com/stretchr/testify/require"

	"github.com/keywright/keywright/jobs/schedule"
	"github.com/keywright/keywright/jobs/store"
	"github.com/keywright/keywright/rotation"
)

func (b *bench) exec(query string, args ...any) {
	b.t.Helper()
	_, err := b.store.SQL().ExecContext(b.t.Context(), b.store.Rebind(query), args...)
	require.NoError(b.t, err)
}

func (b *bench) number(query string, args ...any) (n int) {
	b.t.Helper()
	require.NoError(b.t, b.store.SQL().QueryRowContext(b.t.Context(), b.store.Rebind(query), args...).Scan(&n))
	return n
}

// A job that was given to another owner does not wait for the one before, who
// may never come back; and a worker that does not know of it yet refuses it.
func TestOwnerChanges(t *testing.T) {
	t.Parallel()
	d, c := postgresAt(t), &clock{}
	k := newKey(&world{}, "owned")
	k.overlap = 6 * time.Hour
	job := func(owner string) Job { j := k.job(specOf(t, `{"every":"30d"}`)); j.Owner = owner; return j }
	b := newBench(t, d, c).start(job("w2"))
	require.NoError(t, b.Trigger(t.Context(), "owned"))
	require.Equal(t, 1, b.number(`SELECT COUNT(*) FROM river_job WHERE queue = ?`, ownerQueue("w2")))
	require.Zero(t, k.count())
	require.NoError(t, b.Register(t.Context(), job("w1")))
	require.True(t, done(b.until(done)))
	require.Equal(t, 1, k.count())

	// The process that has written the change died before the River job was moved.
	require.NoError(t, b.Register(t.Context(), job("w2")))
	c.advance(31 * 24 * time.Hour)
	require.Eventually(t, func() bool {
		return b.number(`SELECT COUNT(*) FROM river_job WHERE state = 'available' AND queue = ?`, ownerQueue("w2")) == 1
	}, 20*time.Second, 20*time.Millisecond)
	id := b.number(`SELECT id FROM river_job WHERE state = 'available' AND queue = ?`, ownerQueue("w2"))
	b.exec(`UPDATE keywright_schedule SET owner = 'w1'`)
	require.Eventually(t, func() bool {
		return b.number(`SELECT COUNT(*) FROM river_job WHERE id = ? AND queue = ?`, id, ownerQueue("w1")) == 1
	}, 20*time.Second, 20*time.Millisecond)
	require.Equal(t, 1, k.count(), "what this worker knows is another owner's")
	require.NoError(t, b.Register(t.Context(), job("w1")))
	require.True(t, done(b.until(done)))
	require.Equal(t, 2, k.count())

	// This worker's configuration is the old one.
	b.exec(`UPDATE keywright_schedule SET owner = 'w2', due = now()`)
	require.Contains(t, b.status1("owned").Blocked, "w2")
	again, err := b.work(t.Context(), rotateArgs{Job: "owned", Force: true, Generation: 2})
	require.NoError(t, err)
	require.NotNil(t, again, "its River job goes to the owner's queue")
	require.Equal(t, 2, k.count())
	require.Equal(t, "DONE", b.status1("owned").State, "it is not this worker's to write down")
}

// A job that was forgotten while it was rotated, and is back, goes on at once,
// and so does what somebody else has begun with this journal.
func TestUnderWayWhenRegistered(t *testing.T) {
	t.Parallel()
	both(t, func(t *testing.T, d database) {
		w := &world{}
		k, other := newKey(w, "billing"), newKey(w, "other")
		k.lag, other.lag = time.Hour, time.Hour
		job := k.job(specOf(t, `{"every":"30d"}`))
		b := newBench(t, d, &clock{}).start(job)
		require.NoError(t, b.Trigger(t.Context(), "billing"))
		require.Equal(t, "CONVERGING", b.next().State)
		b.idle()
		row, err := b.store.Get(t.Context(), "billing")
		require.NoError(t, err)
		_, err = b.store.Remove(t.Context(), row) // by an older program, say
		require.NoError(t, err)
		_, err = b.force(t.Context(), rotateArgs{Job: "billing"})
		require.NoError(t, err)
		require.Eventually(t, func() bool {
			return b.number(`SELECT COUNT(*) FROM river_job WHERE kind = 'keywright_rotate' AND state <> 'completed'`) == 0
		}, 20*time.Second, 20*time.Millisecond, "nobody waits for a job that is gone")

		k.set(func() { k.lag = 0 })
		require.NoError(t, b.Register(t.Context(), job))
		v := b.next()
		require.Equal(t, "billing", v.Job)
		require.Equal(t, 1, k.count())

		begun := other.job(specOf(t, `{"every":"30d"}`))
		early := begun.Job
		early.Policy.MaxWait = -1
		result, err := b.Engine().Rotate(t.Context(), early)
		require.NoError(t, err)
		require.False(t, result.ResumeAt.IsZero())
		require.NoError(t, b.Register(t.Context(), begun))
		require.Equal(t, "other", b.until(func(v Result) bool { return v.Job == "other" }).Job)
		require.Equal(t, 1, other.count())
	})
}

// What is wrong with one job's journal is that job's problem.
func TestDamagedJournal(t *testing.T) {
	t.Parallel()
	both(t, func(t *testing.T, d database) {
		w, c := &world{}, &clock{}
		bad, good := newKey(w, "bad"), newKey(w, "good")
		b := newBench(t, d, c)
		for _, k := range []*key{bad, good} {
			_, err := b.Engine().Rotate(t.Context(), k.job(nil).Job)
			require.NoError(t, err)
		}
		b.exec(`UPDATE keywright_journal SET sum = 'x', prev_sum = 'x' WHERE job = 'bad'`)
		forbidden := newKey(w, "sealing.key") // package rotation refuses the name
		b.start(bad.job(specOf(t, `{"every":"30d"}`)), good.job(specOf(t, `{"every":"30d"}`)), forbidden.job(specOf(t, `{"every":"30d"}`)))
		c.advance(31 * 24 * time.Hour)
		seen := make(map[string]Result)
		for len(seen) < 3 {
			v := b.next()
			seen[v.Job] = v
		}
		require.Equal(t, StateFailed, seen["bad"].State)
		require.ErrorIs(t, seen["bad"].Err, rotation.ErrJournal)
		require.True(t, done(seen["good"]))
		require.False(t, done(seen["sealing.key"]))
		s, err := b.Snapshot(t.Context())
		require.NoError(t, err)
		require.Len(t, s, 3)
		require.Equal(t, 1, bad.count())
		require.Equal(t, 2, good.count())
	})
}

// What a caller's function panics with is shown nowhere, and is no hot loop.
func TestPanics(t *testing.T) {
	t.Parallel()
	const canary = "canary-7f3a91"
	w, c := &world{}, &clock{}
	expires, results := newKey(w, "expires"), newKey(w, "results")
	asks := expires.job(specOf(t, `{"before_expiry":"10d"}`))
	asks.Expires = func(context.Context) (time.Time, error) { panic(canary) }
	var out syncBuffer
	seen := make(chan Result, 100)
	b := newBench(t, sqliteAt(t), c, WithLogger(slog.New(slog.NewTextHandler(&out, nil))), WithResults(func(v Result) {
		seen <- v
		if v.Job == "results" {
			panic(canary)
		}
	})).start(asks, results.job(specOf(t, `{"every":"30d"}`)))
	v := <-seen
	require.Equal(t, "expires", v.Job)
	require.Equal(t, StateFailed, v.State)
	require.ErrorContains(t, v.Err, "panicked")
	require.NoError(t, b.Trigger(t.Context(), "results"))
	for v.Job != "results" {
		v = <-seen
	}
	b.idle()
	b.sweeps()
	require.Equal(t, 1, results.count())
	require.Empty(t, seen)
	require.Contains(t, out.String(), "panicked")
	require.NotContains(t, out.String(), canary)
	require.Zero(t, b.number(`SELECT COUNT(*) FROM river_job WHERE CAST(errors AS TEXT) LIKE '%canary%'`))
}

// syncBuffer is a buffer that several goroutines write to.
type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *syncBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *syncBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

// A runner that starts answers meanwhile, and can be stopped.
func TestStopWhileStarting(t *testing.T) {
	t.Parallel()
	d := postgresAt(t)
	other := d.open(t)
	conn, err := other.Pool().Acquire(t.Context())
	require.NoError(t, err)
	_, err = conn.Exec(t.Context(), `SELECT pg_advisory_lock($1, 0)`, lockMigrate)
	require.NoError(t, err)
	b := newBench(t, d, &clock{})
	started := make(chan error)
	go func() { started <- b.Start(t.Context()) }()
	require.Eventually(t, func() bool {
		b.mu.Lock()
		defer b.mu.Unlock()
		return b.state == stateStarting
	}, 10*time.Second, time.Millisecond)
	require.False(t, b.Running())
	_, err = b.Snapshot(t.Context())
	require.ErrorIs(t, err, ErrNotRunning)
	require.ErrorIs(t, b.Trigger(t.Context(), "x"), ErrNotRunning)
	require.NoError(t, b.Stop(t.Context()))
	require.ErrorIs(t, <-started, context.Canceled)
	require.False(t, b.Running())
	require.NoError(t, b.Stop(t.Context()))
	require.Error(t, b.Start(t.Context()))
	conn.Release()
}

// Who stops a runner that is being stopped waits until it is.
func TestStopTwice(t *testing.T) {
	t.Parallel()
	k := newKey(&world{}, "billing")
	reached, let := make(chan struct{}), make(chan struct{})
	k.calls = func(what string) {
		if what == "issue" {
			close(reached)
			<-let
		}
	}
	b := newBench(t, sqliteAt(t), &clock{}).start(k.job(nil))
	require.NoError(t, b.Trigger(t.Context(), "billing"))
	<-reached
	first, second := make(chan error, 1), make(chan error, 1)
	go func() { first <- b.Stop(context.Background()) }()
	require.Eventually(t, func() bool { return !b.Running() }, 10*time.Second, time.Millisecond)
	go func() { second <- b.Stop(context.Background()) }()
	short, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	require.ErrorIs(t, b.Stop(short), context.DeadlineExceeded)
	require.Empty(t, second)
	_, err := b.Status(t.Context(), "billing")
	require.ErrorIs(t, err, ErrNotRunning)
	require.ErrorIs(t, b.Trigger(t.Context(), "billing"), ErrNotRunning)
	close(let)
	require.NoError(t, <-second)
	require.NoError(t, <-first)
	require.Equal(t, 1, k.count())
}

// However Register and Reload meet, what a worker knows is what is scheduled.
func TestReloadTogether(t *testing.T) {
	t.Parallel()
	both(t, func(t *testing.T, d database) {
		w := &world{}
		b := newBench(t, d, &clock{}).start()
		for round := range 8 {
			var group sync.WaitGroup
			for i := range 4 {
				job := newKey(w, fmt.Sprintf("key-%d-%d", round, i)).job(specOf(t, `{"every":"30d"}`))
				group.Go(func() {
					if i == 0 {
						_ = b.Reload(t.Context(), slices.Values([]Job{job}))
					} else {
						_ = b.Register(t.Context(), job)
					}
				})
			}
			group.Wait()
			rows, err := b.store.List(t.Context())
			require.NoError(t, err)
			var scheduled []string
			for _, row := range rows {
				scheduled = append(scheduled, row.Job)
			}
			require.Equal(t, slices.Sorted(maps.Keys(b.jobs)), scheduled)
		}
	})
}

// River's table does not grow: what is over goes.
func TestRiverTable(t *testing.T) {
	t.Parallel()
	both(t, func(t *testing.T, d database) {
		k, c := newKey(&world{}, "billing"), &clock{}
		job := k.job(specOf(t, `{"every":"1h"}`))
		b := newBench(t, d, c).start(job)
		for range 5 {
			c.advance(2 * time.Hour)
			require.True(t, done(b.next()))
			b.sweeps()
		}
		require.Greater(t, b.number(`SELECT COUNT(*) FROM river_job`), 4)
		b.stop()
		ago := `datetime('now', '-2 hours')`
		if d.kind == "postgres" {
			ago = `now() - interval '2 hours'`
		}
		b.exec(`UPDATE river_job SET finalized_at = ` + ago + ` WHERE finalized_at IS NOT NULL`)
		b = newBench(t, d, c).start(job)
		require.Eventually(t, func() bool { return b.number(`SELECT COUNT(*) FROM river_job WHERE finalized_at < `+ago) == 0 }, 60*time.Second, 100*time.Millisecond)
	})
}

// A sweep that is over keeps no other away: a clock that goes back comes to its
// interval again. One that hangs keeps those of its interval away.
func TestSweepUnique(t *testing.T) {
	t.Parallel()
	both(t, func(t *testing.T, d database) {
		b := newBench(t, d, &clock{}, WithSweep(time.Hour)).start()
		sweep := func() bool {
			results, err := b.river.InsertMany(t.Context(), []river.InsertManyParams{{Args: sweepArgs{}, InsertOpts: b.sweepOpts()}})
			require.NoError(t, err)
			return !results[0].UniqueSkippedAsDuplicate
		}
		require.Eventually(t, sweep, 20*time.Second, 20*time.Millisecond)
		require.Eventually(t, sweep, 20*time.Second, 20*time.Millisecond)
		b.exec(`UPDATE river_job SET state = 'running' WHERE kind = 'keywright_sweep' AND id = (SELECT MAX(id) FROM river_job WHERE kind = 'keywright_sweep')`)
		require.Zero(t, b.number(`SELECT COUNT(*) FROM river_job WHERE kind = 'keywright_sweep' AND state = 'available'`))
	})
}

// A provider's turn is never further away than a few seconds, even if the
// database's clock was.
func TestRateAfterClock(t *testing.T) {
	t.Parallel()
	k := newKey(&world{}, "billing")
	b := newBench(t, postgresAt(t), &clock{}, WithLimit("toy", Limit{PerSecond: 10})).start(k.job(nil))
	b.exec(`INSERT INTO keywright_rates (provider, next) VALUES ('toy', ?)`, time.Now().AddDate(1, 0, 0).UnixMicro())
	require.NoError(t, b.Trigger(t.Context(), "billing"))
	require.True(t, done(b.next()))
	wait, err := b.limits.turn(t.Context(), "toy", time.Second)
	require.NoError(t, err)
	require.Zero(t, wait)
}

// A rotation that was over long before it is written down does not put the next
// one off.
func TestWrittenDownLongAfter(t *testing.T) {
	t.Parallel()
	b := newBench(t, sqliteAt(t), &clock{})
	k := newKey(&world{}, "billing")
	require.NoError(t, b.Register(t.Context(), k.job(specOf(t, `{"every":"30d"}`))))
	b.start()
	row, err := b.store.Get(t.Context(), "billing")
	require.NoError(t, err)
	s := &stepRun{Runner: b.Runner, job: b.job("billing"), row: row, began: time.Now(), at: b.now()}
	_, err = s.recover(t.Context(), &rotation.Status{Job: "billing", State: rotation.StateDone, Generation: 1, Finished: time.Now().Add(-20 * 24 * time.Hour)})
	require.NoError(t, err)
	require.WithinDuration(t, b.now().Add(10*24*time.Hour), b.status1("billing").Due, time.Minute)
}

// A schedule that has no time now is no reason to stop.
func TestNoTime(t *testing.T) {
	t.Parallel()
	b := newBench(t, sqliteAt(t), &clock{})
	k := newKey(&world{}, "billing")
	g := &registered{Job: k.job(nil), spec: "{}"}
	g.Schedule = &schedule.Spec{} // as one that was valid elsewhere
	require.NoError(t, b.Start(t.Context()))
	require.NoError(t, b.put(t.Context(), map[string]*registered{"billing": g}))
	row, err := b.store.Get(t.Context(), "billing")
	require.NoError(t, err)
	require.Zero(t, row.Due)
	s, err := b.status(t.Context(), row, facts{}, false)
	require.NoError(t, err)
	require.Equal(t, "this worker does not know the job", s.Blocked)
	require.NoError(t, b.sweepOnce(t.Context()))
	step := &stepRun{Runner: b.Runner, job: g, row: store.Schedule{Job: "billing"}, began: time.Now(), at: b.now()}
	v, err := step.done(t.Context(), verdict{state: "DONE"})
	require.NoError(t, err)
	require.Error(t, v.problem)
	require.False(t, v.due.IsZero())
	require.False(t, errors.Is(v.problem, store.ErrNotFound))
}

// What takes back the River jobs of a process that has ended does no harm to one
// that has not quite: River panics at a row that is gone.
func TestReclaimTooEarly(t *testing.T) {
	t.Parallel()
	k := newKey(&world{}, "billing")
	b := newBench(t, sqliteAt(t), &clock{}).start(k.job(nil))
	b.sweeping.Lock() // so that a sweep hangs
	running := func() bool {
		return b.number(`SELECT COUNT(*) FROM river_job WHERE kind = 'keywright_sweep' AND state = 'running'`) == 1
	}
	require.Eventually(t, running, 20*time.Second, 10*time.Millisecond)
	require.NoError(t, b.Trigger(t.Context(), "billing")) // whose row is after it
	require.True(t, done(b.next()))
	b.idle()
	require.NoError(t, b.reclaim(t.Context()))
	b.sweeping.Unlock()
	require.Eventually(t, func() bool { return !running() }, 20*time.Second, 10*time.Millisecond)
	require.NoError(t, b.Trigger(t.Context(), "billing"))
	require.True(t, done(b.next()))
}

// A schedule that changes while a step runs is the one that counts when the step
// is over; without one the key is left alone.
func TestScheduleChangesMeanwhile(t *testing.T) {
	t.Parallel()
	both(t, func(t *testing.T, d database) {
		for name, test := range map[string]struct {
			spec *schedule.Spec
			wait time.Duration // 0: not by itself
		}{"sooner": {specOf(t, `{"every":"1d"}`), day}, "never": {nil, 0}} {
			k, c := newKey(&world{}, name), &clock{}
			reached, let := make(chan struct{}), make(chan struct{})
			k.calls = func(what string) {
				if what == "issue" {
					close(reached)
					<-let
				}
			}
			b := newBench(t, d, c).start(k.job(specOf(t, `{"every":"30d"}`)))
			c.advance(31 * day)
			<-reached
			require.NoError(t, b.Register(t.Context(), k.job(test.spec)))
			close(let)
			require.True(t, done(b.until(done)))
			b.idle()
			due := b.status1(name).Due
			if test.wait == 0 {
				require.Zero(t, due)
			} else {
				require.WithinDuration(t, c.now().Add(test.wait), due, time.Minute)
			}
			b.stop()
		}
	})
}

// What is under way goes on soon, whatever is wrong with its configuration, and
// whatever its schedule says.
func TestUnderWayWhateverHappens(t *testing.T) {
	t.Parallel()
	both(t, func(t *testing.T, d database) {
		w, c := &world{}, &clock{}
		renamed, panics := newKey(w, "renamed"), newKey(w, "panics")
		renamed.lag = time.Hour
		var bad atomic.Bool
		bad.Store(true)
		panics.calls = func(what string) {
			if what == "verify" && bad.Load() {
				panic("no")
			}
		}
		b := newBench(t, d, c).start(renamed.job(nil), panics.job(nil))
		for _, k := range []*key{renamed, panics} {
			require.NoError(t, b.Trigger(t.Context(), k.name))
		}
		for seen := make(map[string]bool); len(seen) < 2; {
			seen[b.next().Job] = true
		}
		b.idle()

		other := renamed.job(nil)
		other.Strategy = otherwise{renamed}
		require.NoError(t, b.Register(t.Context(), other))
		require.NoError(t, b.Trigger(t.Context(), "renamed"))
		v := b.until(func(v Result) bool { return v.Job == "renamed" })
		require.ErrorIs(t, v.Err, rotation.ErrRefused)
		require.False(t, v.Over)
		s := b.status1("renamed")
		require.Equal(t, "CONVERGING", s.State)
		require.Less(t, s.Due.Sub(c.now()), time.Hour)

		// A worker that did not know how far it was had written down that it failed.
		b.exec(`UPDATE river_job SET state = 'cancelled', finalized_at = ` + b.dialect.now() + ` WHERE kind = 'keywright_rotate' AND state <> 'completed'`)
		b.exec(`UPDATE keywright_schedule SET last_state = 'FAILED', spec = '{"every":"30d"}' WHERE job = 'panics'`)
		bad.Store(false)
		require.NoError(t, b.Register(t.Context(), panics.job(nil)))
		require.NotZero(t, b.status1("panics").Due)
		c.advance(time.Hour)
		require.True(t, done(b.until(func(v Result) bool { return v.Job == "panics" && v.Over })))
		require.Equal(t, 1, panics.count())
	})
}

// otherwise is a key that is rotated in another way.
type otherwise struct{ *key }

func (o otherwise) Traits() rotation.Traits {
	t := o.key.Traits()
	t.Name = "otherwise"
	return t
}
