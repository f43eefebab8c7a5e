package jobs

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/keywright/keywright"
	"github.com/keywright/keywright/jobs/store"
	"github.com/keywright/keywright/rotation"
	"github.com/keywright/keywright/rotation/sink"
)

func done(v Result) bool { return v.State == string(rotation.StateDone) }

// A key is rotated when it is due, and once however often that was missed.
func TestSchedule(t *testing.T) {
	t.Parallel()
	both(t, func(t *testing.T, d database) {
		w, c := &world{}, &clock{}
		k := newKey(w, "billing")
		job := k.job(specOf(t, `{"every":"1h"}`))
		b := newBench(t, d, c).start(job)
		b.sweeps()
		require.Zero(t, k.count())
		s := b.status1("billing")
		require.WithinDuration(t, c.now().Add(time.Hour), s.Due, time.Minute)
		require.Contains(t, s.Reason, "1h")

		c.advance(time.Hour)
		v := b.next()
		require.NoError(t, v.Err)
		require.Equal(t, string(rotation.StateDone), v.State)
		b.idle()
		s = b.status1("billing")
		require.Equal(t, 1, s.Generation)
		require.WithinDuration(t, c.now().Add(time.Hour), s.Due, time.Minute)
		require.False(t, s.Issued.IsZero())
		runs, err := b.store.Runs(t.Context(), "billing", 10)
		require.NoError(t, err)
		require.Len(t, runs, 1)
		require.Equal(t, "DONE", runs[0].State)
		require.NotEmpty(t, runs[0].Operation)
		b.stop()

		// Nobody worked for ten hours.
		c.advance(10 * time.Hour)
		b = newBench(t, d, c).start(job)
		require.True(t, done(b.next()))
		b.sweeps()
		b.sweeps()
		require.Equal(t, 2, k.count())
		require.Equal(t, 2, b.status1("billing").Generation)
		events, err := b.store.Events(t.Context(), "billing", 100)
		require.NoError(t, err)
		require.NotEmpty(t, events)
	})
}

// A person can ask for a rotation; a job that is not there cannot be asked for.
func TestTrigger(t *testing.T) {
	t.Parallel()
	both(t, func(t *testing.T, d database) {
		k := newKey(&world{}, "billing")
		b := newBench(t, d, &clock{})
		require.ErrorIs(t, b.Trigger(t.Context(), "billing"), ErrUnknown)
		b.start(k.job(nil))
		require.ErrorIs(t, b.Trigger(t.Context(), "other"), ErrUnknown)
		require.NoError(t, b.Trigger(t.Context(), "billing"))
		require.True(t, done(b.next()))
		b.idle()
		require.True(t, b.status1("billing").Due.IsZero())
		require.NoError(t, b.Trigger(t.Context(), "billing"))
		require.True(t, done(b.next()))
		require.Equal(t, 2, k.count())
	})
}

// A rotation that is under way outlasts a configuration that is broken for a
// while.
func TestBrokenMeanwhile(t *testing.T) {
	t.Parallel()
	k := newKey(&world{}, "billing")
	k.lag = time.Hour
	b := newBench(t, sqliteAt(t), &clock{})
	job := k.job(specOf(t, `{"every":"30d"}`))
	b.start(job)
	require.NoError(t, b.Trigger(t.Context(), "billing"))
	require.Equal(t, "CONVERGING", b.next().State)
	b.idle()
	broken := job
	broken.Err = errors.New("its token is not there")
	require.NoError(t, b.Register(t.Context(), broken))
	require.ErrorIs(t, b.Trigger(t.Context(), "billing"), broken.Err)
	again, err := b.work(t.Context(), rotateArgs{Job: "billing"})
	require.NoError(t, err)
	require.NotNil(t, again)
	s := b.status1("billing")
	require.Equal(t, "CONVERGING", s.State)
	require.Contains(t, s.Blocked, "not there")
	require.NoError(t, b.Register(t.Context(), job))
	require.NoError(t, b.Trigger(t.Context(), "billing"))
	require.Equal(t, "CONVERGING", b.next().State)
	require.Equal(t, 1, k.count())
}

// A person can have a rotation that waits looked at now.
func TestTriggerWaiting(t *testing.T) {
	t.Parallel()
	both(t, func(t *testing.T, d database) {
		k := newKey(&world{}, "billing")
		k.lag = time.Hour
		b := newBench(t, d, &clock{}).start(k.job(specOf(t, `{"every":"30d"}`)))
		require.NoError(t, b.Trigger(t.Context(), "billing"))
		for range 3 {
			v := b.next()
			require.NoError(t, v.Err)
			require.Equal(t, "CONVERGING", v.State)
			b.idle()
			s := b.status1("billing")
			require.True(t, s.UnderWay())
			require.Zero(t, s.Attempts)
			runs, err := b.store.Runs(t.Context(), "billing", 10)
			require.NoError(t, err)
			require.Len(t, runs, 1, "a rotation is one run")
			require.Greater(t, time.Until(runs[0].ResumeAt), 50*time.Minute)
			require.NoError(t, b.Trigger(t.Context(), "billing"))
		}
		require.Equal(t, 1, k.count())
	})
}

// Workers that start at once on an empty database all do.
func TestStartTogether(t *testing.T) {
	t.Parallel()
	d, c, w := postgresAt(t), &clock{}, &world{}
	job := newKey(w, "billing").job(specOf(t, `{"every":"30d"}`))
	started := make(chan error)
	const n = 4
	for i := range n {
		b := newBench(t, d, c, WithWorkerID(fmt.Sprintf("w%d", i)))
		require.NoError(t, b.Register(t.Context(), job))
		go func() { started <- b.Start(t.Context()) }()
	}
	for range n {
		require.NoError(t, <-started)
	}
}

// While a job is live, there is no other of it.
func TestUnique(t *testing.T) {
	t.Parallel()
	both(t, func(t *testing.T, d database) {
		k, c := newKey(&world{}, "billing"), &clock{}
		reached, let := make(chan struct{}), make(chan struct{})
		k.calls = func(what string) {
			if what == "issue" {
				close(reached)
				<-let
			}
		}
		b := newBench(t, d, c).start(k.job(specOf(t, `{"every":"1h"}`)))
		c.advance(2 * time.Hour)
		<-reached
		require.True(t, b.status1("billing").Running)
		require.Equal(t, rotation.StateIntent, b.status1("billing").Rotation.State)
		require.NoError(t, b.sweepOnce(t.Context()))
		require.NoError(t, b.Trigger(t.Context(), "billing"))
		var n int
		require.NoError(t, b.store.SQL().QueryRowContext(t.Context(), `SELECT COUNT(*) FROM river_job WHERE kind = 'keywright_rotate'`).Scan(&n))
		require.Equal(t, 1, n)
		close(let)
		require.True(t, done(b.next()))
		b.sweeps()
		require.Equal(t, 1, k.count())
	})
}

// What became of a run decides what comes next.
func TestOutcomes(t *testing.T) {
	t.Parallel()
	both(t, func(t *testing.T, d database) {
		w, c := &world{}, &clock{}
		names := []string{"stuck", "refused", "notissued", "waits", "unfinished", "panics", "unmade"}
		keys := make(map[string]*key)
		var jobs []Job
		for _, name := range names {
			keys[name] = newKey(w, name)
			jobs = append(jobs, keys[name].job(specOf(t, `{"every":"30d"}`)))
		}
		keys["stuck"].sinkErr = sink.ErrConflict
		keys["refused"].inspect = &rotation.RefusedError{Reason: rotation.ReasonState, Message: "it is blocked", Instead: "unblock it"}
		keys["notissued"].issue = fakeError{"no"}
		keys["waits"].ready = rotation.ErrNotReady
		waits := keys["waits"]
		jobs[3].Acknowledge = func(context.Context, keywright.Secret) error {
			waits.mu.Lock()
			defer waits.mu.Unlock()
			return waits.ready
		}
		jobs[3].Policy.MaxWait = -1
		keys["unfinished"].sinkErr = sink.ErrTemporary
		jobs[4].Policy.DistributeFor = time.Millisecond
		keys["panics"].calls = func(what string) {
			if what == "inspect" {
				panic("secret")
			}
		}
		jobs[6].Err = errors.New("its token is not there")
		b := newBench(t, d, c).start(jobs...)
		c.advance(31 * 24 * time.Hour)
		seen := make(map[string]Result)
		for len(seen) < len(names) {
			v := b.next()
			if _, ok := seen[v.Job]; !ok {
				seen[v.Job] = v
			}
		}
		now := c.now()
		due := func(job string) time.Duration { return b.status1(job).Due.Sub(now) }

		assert.Equal(t, "STUCK", seen["stuck"].State)
		assert.ErrorIs(t, seen["stuck"].Err, rotation.ErrStuck)
		assert.InDelta(t, 24, due("stuck").Hours(), 0.1)
		assert.True(t, b.status1("stuck").UnderWay())
		assert.Equal(t, StateRefused, seen["refused"].State)
		assert.Contains(t, b.status1("refused").Problem, "blocked")
		assert.InDelta(t, 24, due("refused").Hours(), 0.1)
		assert.Equal(t, StateFailed, seen["notissued"].State)
		assert.InDelta(t, 0.9, due("notissued").Minutes(), 0.3)
		assert.Equal(t, "CONVERGING", seen["waits"].State)
		assert.NoError(t, seen["waits"].Err)
		assert.False(t, seen["waits"].Over)
		assert.Equal(t, StateFailed, seen["panics"].State)
		assert.NotContains(t, b.status1("panics").Problem, "secret")
		assert.Equal(t, StateRefused, seen["unmade"].State)
		assert.Contains(t, b.status1("unmade").Blocked, "not there")
		assert.False(t, seen["unfinished"].Over)

		// The obstacles go away: what is under way ends, and no call is repeated.
		waits.set(func() { waits.ready = nil })
		keys["unfinished"].set(func() { keys["unfinished"].sinkErr = nil })
		keys["stuck"].set(func() { keys["stuck"].sinkErr = nil })
		require.NoError(t, b.Trigger(t.Context(), "stuck"))
		for _, name := range []string{"unfinished", "waits"} { // they may wait for minutes by now
			require.NoError(t, b.Trigger(t.Context(), name))
		}
		keys["notissued"].set(func() { keys["notissued"].issue = nil })
		c.advance(2 * time.Minute)
		finished := make(map[string]bool)
		for len(finished) < 4 {
			if v := b.until(done); v.Over {
				finished[v.Job] = true
			}
		}
		for _, name := range []string{"stuck", "waits", "unfinished", "notissued"} {
			assert.True(t, finished[name], name)
			assert.Equal(t, 1, keys[name].count(), name)
			assert.Zero(t, b.status1(name).Attempts, name)
		}
	})
}

// A worker that died after a rotation, before that was written down, is followed
// by one that writes it down and does not rotate again.
func TestWrittenDownLater(t *testing.T) {
	t.Parallel()
	both(t, func(t *testing.T, d database) {
		k, c := newKey(&world{}, "billing"), &clock{}
		b := newBench(t, d, c).start(k.job(specOf(t, `{"every":"1h"}`)))
		b.idle()
		_, err := b.Engine().Rotate(t.Context(), b.job("billing").Job.Job)
		require.NoError(t, err)
		c.advance(2 * time.Hour)
		require.True(t, done(b.next()))
		b.sweeps()
		require.Equal(t, 1, k.count())
		require.Equal(t, 1, b.status1("billing").Generation)
	})
}

// A strategy whose late calls would do harm runs on its owner alone.
func TestOwner(t *testing.T) {
	t.Parallel()
	d, c, w := postgresAt(t), &clock{}, &world{}
	owned, stray, free := newKey(w, "owned"), newKey(w, "stray"), newKey(w, "free")
	owned.overlap, stray.overlap = 6*time.Hour, 6*time.Hour
	jobs := []Job{owned.job(specOf(t, `{"every":"30d"}`)), stray.job(specOf(t, `{"every":"30d"}`)), free.job(specOf(t, `{"every":"30d"}`))}
	jobs[0].Owner = "w2"
	one, two := newBench(t, d, c), newBench(t, d, c, WithWorkerID("w2"))
	for _, b := range []*bench{one, two} {
		err := b.Register(t.Context(), jobs...)
		require.ErrorIs(t, err, ErrOwner)
		require.ErrorContains(t, err, "stray")
		require.NotContains(t, err.Error(), "free")
	}
	require.NoError(t, one.Start(t.Context()))
	require.NoError(t, one.Trigger(t.Context(), "owned"))
	require.NoError(t, one.Trigger(t.Context(), "free"))
	require.Equal(t, "free", one.until(done).Job)
	require.ErrorIs(t, one.Trigger(t.Context(), "stray"), ErrOwner)
	require.Contains(t, one.status1("owned").Blocked, "w2")
	require.Zero(t, owned.count())

	// On the wrong queue it is refused.
	again, err := one.work(t.Context(), rotateArgs{Job: "owned", Force: true})
	require.NoError(t, err)
	require.NotNil(t, again)
	require.Zero(t, owned.count())

	require.NoError(t, two.Start(t.Context()))
	require.Equal(t, "owned", two.until(done).Job)
	require.Equal(t, 1, owned.count())
	require.Zero(t, stray.count())

	// No two workers have one id.
	three := newBench(t, d, c, WithWorkerID("w2"))
	require.ErrorIs(t, three.Start(t.Context()), ErrWorkerID)
	// And on SQLite there is one.
	d = sqliteAt(t)
	newBench(t, d, c).start(stray.job(nil))
	require.ErrorIs(t, newBench(t, d, c, WithWorkerID("w2")).Start(t.Context()), store.ErrLocked)
}

// A canary goes before the others of its group; one that fails holds them back.
func TestCanary(t *testing.T) {
	t.Parallel()
	both(t, func(t *testing.T, d database) {
		w, c := &world{}, &clock{}
		var keys []*key
		var jobs []Job
		for i, name := range []string{"a", "b", "c", "z-canary"} {
			k := newKey(w, name)
			keys = append(keys, k)
			text := `{"every":"30d","group":"g"}`
			if i == 3 {
				text = `{"every":"30d","group":"g","canary":true}`
			}
			jobs = append(jobs, k.job(specOf(t, text)))
		}
		canary := keys[3]
		canary.issue = fakeError{"no"}
		b := newBench(t, d, c).start(jobs...)
		c.advance(31 * 24 * time.Hour)
		v := b.next()
		require.Equal(t, "z-canary", v.Job)
		require.Equal(t, StateFailed, v.State)
		b.sweeps()
		b.sweeps()
		w.mu.Lock()
		require.Equal(t, []string{"z-canary"}, slices.Compact(slices.Clone(w.order)))
		w.mu.Unlock()
		const why = "every 30d, overdue, waits for the canary z-canary, which has failed"
		require.Equal(t, why, b.status1("a").Reason)
		all, err := b.Snapshot(t.Context())
		require.NoError(t, err)
		require.Equal(t, why, all[0].Reason)
		require.NotContains(t, all[3].Reason, "waits")
		canary.set(func() { canary.issue = nil })
		c.advance(10 * time.Minute)
		for range 4 {
			b.until(done)
		}
		w.mu.Lock()
		order := slices.Compact(slices.Clone(w.order))
		w.mu.Unlock()
		require.Len(t, order, 4)
		require.Equal(t, "z-canary", order[0])
		require.ElementsMatch(t, []string{"a", "b", "c"}, order[1:])
	})
}

// Three hundred jobs, a hundred with the race detector, that are due at once run
// once each, the oldest first.
func TestMany(t *testing.T) {
	t.Parallel()
	both(t, func(t *testing.T, d database) {
		const n = 300 / slow
		w, c := &world{}, &clock{}
		keys := make([]*key, n)
		jobs := make([]Job, n)
		for i := range keys {
			keys[i] = newKey(w, fmt.Sprintf("key-%03d", i))
			jobs[i] = keys[i].job(specOf(t, `{"every":"30d"}`))
		}
		b := newBench(t, d, c, WithConcurrency(2)).start(jobs...)
		if d.kind == "postgres" {
			newBench(t, d, c, WithConcurrency(2), WithWorkerID("w2"), WithResults(func(v Result) { b.results <- v })).start(jobs...)
		}
		began := time.Now()
		c.advance(31 * 24 * time.Hour)
		if d.kind == "sqlite" { // another process may not work the file
			other := newTroupe(t, d).next(t, "w2")
			require.Equal(t, "failed "+store.ErrLocked.Error(), <-other.lines)
			other.kill()
		}
		for range n {
			require.NoError(t, b.until(func(v Result) bool { return v.Over }).Err)
		}
		t.Logf("%d rotations in %s", n, time.Since(began).Round(time.Millisecond))
		b.sweeps()
		for _, k := range keys {
			require.Equal(t, 1, k.count(), k.name)
		}
		s, err := b.Snapshot(t.Context())
		require.NoError(t, err)
		require.Len(t, s, n)
		for i := range s {
			require.Equal(t, "DONE", s[i].State)
			require.False(t, s[i].Overdue)
		}
	})
}

// What is done at a provider is bounded on all workers together.
func TestLimits(t *testing.T) {
	t.Parallel()
	both(t, func(t *testing.T, d database) {
		const n = 20
		w, c := &world{}, &clock{}
		var jobs []Job
		for i := range n {
			k := newKey(w, fmt.Sprintf("key-%03d", i))
			k.calls = func(what string) {
				if what == "issue" {
					time.Sleep(20 * time.Millisecond) // so that they meet
				}
			}
			jobs = append(jobs, k.job(specOf(t, `{"every":"30d"}`)))
		}
		limit := WithLimit("toy", Limit{Concurrency: 3, PerSecond: 10})
		b := newBench(t, d, c, limit).start(jobs...)
		if d.kind == "postgres" {
			newBench(t, d, c, limit, WithWorkerID("w2"), WithResults(func(v Result) { b.results <- v })).start(jobs...)
		}
		began := time.Now()
		c.advance(31 * 24 * time.Hour)
		for range n {
			require.NoError(t, b.until(func(v Result) bool { return v.Over }).Err)
		}
		require.GreaterOrEqual(t, time.Since(began), (n-2)*100*time.Millisecond)
		w.mu.Lock()
		defer w.mu.Unlock()
		require.LessOrEqual(t, w.most, 3)
		require.Len(t, w.order, n)
	})
}

// A limit is a number of either kind, or none.
func TestLimitRange(t *testing.T) {
	t.Parallel()
	for _, bad := range []Limit{{Concurrency: -1}, {PerSecond: -1}, {PerSecond: math.NaN()}, {PerSecond: math.Inf(1)}, {PerSecond: 1e-12}} {
		require.Error(t, WithLimit("toy", bad)(&options{limits: make(map[string]Limit)}), bad)
	}
	for _, good := range []Limit{{}, {Concurrency: 1}, {PerSecond: 0.01}} {
		require.NoError(t, WithLimit("toy", good)(&options{limits: make(map[string]Limit)}), good)
	}
}

// A pool that would be used up by the locks is refused, and not waited for.
func TestPoolTooSmall(t *testing.T) {
	t.Parallel()
	d := postgresAt(t)
	u, err := url.Parse(d.where)
	require.NoError(t, err)
	query := u.Query()
	query.Set("pool_max_conns", "1")
	u.RawQuery = query.Encode()
	d.where = u.String()
	_, err = New(d.open(t), WithSealer(sealer(t, d)), WithWorkerID("w1"))
	require.ErrorContains(t, err, "two connections")
}

// What waits for its provider has not begun either.
func TestBatchOfSlowProvider(t *testing.T) {
	t.Parallel()
	both(t, func(t *testing.T, d database) {
		w, c := &world{}, &clock{}
		var jobs []Job
		for i := range 120 {
			jobs = append(jobs, newKey(w, fmt.Sprintf("key-%03d", i)).job(specOf(t, `{"every":"30d"}`)))
		}
		b := newBench(t, d, c, WithConcurrency(4), WithBatch(30), WithLimit("toy", Limit{PerSecond: 0.05})).start(jobs...)
		c.advance(31 * day)
		require.Eventually(t, func() bool { // it is some other's turn in 20 s
			require.NoError(t, b.sweepOnce(t.Context()))
			return b.number(`SELECT COUNT(*) FROM river_job WHERE kind = 'keywright_rotate' AND state = 'scheduled'`) >= 25
		}, 30*time.Second, 50*time.Millisecond)
		require.NoError(t, b.sweepOnce(t.Context()))
		require.LessOrEqual(t, b.number(`SELECT COUNT(*) FROM river_job WHERE kind = 'keywright_rotate'`), 30+4+2)
	})
}

// No more wait to begin than a batch has.
func TestBatch(t *testing.T) {
	t.Parallel()
	w, c := &world{}, &clock{}
	let := make(chan struct{})
	var jobs []Job
	for i := range 160 {
		k := newKey(w, fmt.Sprintf("key-%03d", i))
		k.calls = func(what string) {
			if what == "issue" {
				<-let
			}
		}
		jobs = append(jobs, k.job(specOf(t, `{"every":"30d"}`)))
	}
	b := newBench(t, sqliteAt(t), c, WithConcurrency(2), WithBatch(110)).start(jobs...)
	c.advance(31 * 24 * time.Hour)
	for range 5 {
		require.NoError(t, b.sweepOnce(t.Context()))
	}
	n := b.number(`SELECT COUNT(*) FROM river_job WHERE kind = 'keywright_rotate'`)
	require.LessOrEqual(t, n, 112)
	require.GreaterOrEqual(t, n, 110)
	close(let)
	for range 5 {
		b.until(done)
	}
}

// A job that left the configuration leaves the schedule; a key is rotated before
// it expires.
func TestReloadAndExpiry(t *testing.T) {
	t.Parallel()
	both(t, func(t *testing.T, d database) {
		w, c := &world{}, &clock{}
		a, e := newKey(w, "a"), newKey(w, "e")
		expires := c.now().Add(30 * 24 * time.Hour)
		job := e.job(specOf(t, `{"before_expiry":"10d"}`))
		job.Expires = func(context.Context) (time.Time, error) {
			e.mu.Lock()
			defer e.mu.Unlock()
			return expires.Add(time.Duration(e.issued) * 90 * 24 * time.Hour), nil
		}
		b := newBench(t, d, c).start(a.job(nil), job)
		b.idle()
		require.Eventually(t, func() bool { return b.status1("e").Due.After(c.now().Add(24 * time.Hour)) }, 20*time.Second, 20*time.Millisecond)
		s := b.status1("e")
		require.WithinDuration(t, expires.Add(-10*24*time.Hour), s.Due, time.Minute)
		require.WithinDuration(t, expires, s.Expires, time.Second)
		require.Zero(t, e.count())
		require.NoError(t, b.Reload(t.Context(), slices.Values([]Job{job})))
		_, err := b.Status(t.Context(), "a")
		require.ErrorIs(t, err, ErrUnknown)
		c.advance(21 * 24 * time.Hour)
		require.Equal(t, "e", b.until(done).Job)
		require.WithinDuration(t, expires.Add(80*24*time.Hour), b.status1("e").Due, time.Minute)
		require.Equal(t, 1, e.count())
		require.ErrorIs(t, b.Register(t.Context(), Job{}), ErrJob)
	})
}

// Until it is known when a key expires, it is asked again, and not rotated.
func TestExpiryUnknown(t *testing.T) {
	t.Parallel()
	k, c := newKey(&world{}, "billing"), &clock{}
	var asked atomic.Int64
	var answer atomic.Bool
	ask := func(context.Context) (time.Time, error) {
		asked.Add(1)
		if answer.Load() {
			return c.now().Add(100 * 24 * time.Hour), nil
		}
		return time.Time{}, errors.New("away")
	}
	jobs := From(func(yield func(rotation.Job, error) bool) {
		yield(k.job(nil).Job, nil)
	}, func(j *Job) { j.Schedule, j.Expires = specOf(t, `{"before_expiry":"10d"}`), ask })
	b := newBench(t, sqliteAt(t), c)
	require.NoError(t, b.Reload(t.Context(), jobs))
	b.start()
	v := b.next()
	require.Equal(t, StateFailed, v.State)
	require.ErrorContains(t, v.Err, "away")
	answer.Store(true)
	c.advance(5 * time.Minute)
	require.Eventually(t, func() bool { return b.status1("billing").Due.Sub(c.now()) > 80*24*time.Hour }, 20*time.Second, 20*time.Millisecond)
	require.Zero(t, k.count())
	require.Equal(t, int64(2), asked.Load())
	s := b.status1("billing")
	require.Empty(t, s.State, "it has not failed any more, which would hold others back")
	require.Empty(t, s.Problem)
	require.Zero(t, s.Attempts)

	// With an interval beside it, the interval holds meanwhile.
	k = newKey(&world{}, "other")
	answer.Store(false)
	job := k.job(specOf(t, `{"every":"30d","before_expiry":"10d"}`))
	job.Expires = ask
	require.NoError(t, b.Register(t.Context(), job))
	require.Eventually(t, func() bool { return b.status1("other").Due.After(c.now().Add(30 * time.Minute)) }, 20*time.Second, 20*time.Millisecond)
	require.Less(t, b.status1("other").Due.Sub(c.now()), 2*time.Hour)
	require.Zero(t, k.count())
}

// Steps that run when the runner stops may end, for a while.
func TestStop(t *testing.T) {
	t.Parallel()
	both(t, func(t *testing.T, d database) {
		k, c := newKey(&world{}, "billing"), &clock{}
		reached, let := make(chan struct{}), make(chan struct{})
		k.calls = func(what string) {
			if what == "issue" {
				close(reached)
				<-let
			}
		}
		job := k.job(nil)
		b := newBench(t, d, c).start(job)
		require.NoError(t, b.Trigger(t.Context(), "billing"))
		<-reached
		stopped := make(chan error)
		go func() { stopped <- b.Stop(context.Background()) }()
		close(let)
		require.NoError(t, <-stopped)
		require.True(t, done(b.next()))
		require.False(t, b.Running())
		require.Error(t, b.Start(t.Context()))

		// One that does not end is cancelled, and goes on later.
		k = newKey(&world{}, "billing2")
		reached, entered := make(chan struct{}), false
		job = k.job(nil)
		job.Acknowledge = func(ctx context.Context, _ keywright.Secret) error {
			if entered {
				return nil
			}
			entered = true
			close(reached)
			<-ctx.Done()
			return ctx.Err()
		}
		b = newBench(t, d, c, WithGrace(100*time.Millisecond)).start(job)
		require.NoError(t, b.Trigger(t.Context(), "billing2"))
		<-reached
		require.Error(t, b.Stop(t.Context()))
		b = newBench(t, d, c).start(job)
		require.True(t, done(b.until(done)))
		require.Equal(t, 1, k.count())
	})
}

// Nothing is sent when a step's time is over, or the job is another's.
func TestGuard(t *testing.T) {
	t.Parallel()
	both(t, func(t *testing.T, d database) {
		sent := 0
		rt := Guard(transport(func(*http.Request) (*http.Response, error) {
			sent++
			return &http.Response{StatusCode: 200, Body: http.NoBody}, nil
		}))
		send := func(ctx context.Context) error {
			req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://127.0.0.1/", strings.NewReader("x"))
			require.NoError(t, err)
			_, err = rt.RoundTrip(req)
			return err
		}
		require.NoError(t, send(t.Context()))
		st := d.open(t)
		in := func(until time.Time) context.Context {
			return context.WithValue(t.Context(), stepKey{}, step{st, "billing", until})
		}
		require.ErrorIs(t, send(in(time.Now().Add(time.Minute))), ErrLate)
		session, err := st.Journal("w").Begin(t.Context(), "billing")
		require.NoError(t, err)
		require.NoError(t, send(in(time.Now().Add(time.Minute))))
		require.ErrorIs(t, send(in(time.Now())), ErrLate)
		require.NoError(t, session.Close())
		err = send(in(time.Now().Add(time.Minute)))
		require.ErrorIs(t, err, ErrLate)
		require.ErrorIs(t, err, store.ErrFenced)
		require.Equal(t, 2, sent)
	})
}

// A token that could not be saved is handed to who can keep it, and logged
// without being shown.
func TestUnsaved(t *testing.T) {
	t.Parallel()
	var kept keywright.Secret
	var out bytes.Buffer
	k := newKey(&world{}, "billing")
	b := newBench(t, sqliteAt(t), &clock{}, WithLogger(slog.New(slog.NewTextHandler(&out, nil))),
		WithUnsaved(func(_ context.Context, e *rotation.UnsavedError) { kept = e.Token }))
	require.NoError(t, b.Register(t.Context(), k.job(nil)))
	s := &stepRun{Runner: b.Runner, job: b.job("billing"), began: time.Now(), at: b.now()}
	err := fmt.Errorf("%w: %w", rotation.ErrUnfinished, &rotation.UnsavedError{
		Job: "billing", Token: keywright.NewSecret("the-new-token"), Escrow: rotation.ErrNotReady, Journal: store.ErrFull,
	})
	v, failed := s.judge(t.Context(), nil, err)
	require.NoError(t, failed)
	require.NotNil(t, v.again)
	require.Equal(t, "the-new-token", kept.Reveal())
	require.Contains(t, out.String(), "COULD NOT BE SAVED")
	require.NotContains(t, out.String(), "the-new-token")
}

// Somebody else's session is waited for, and nothing is written down.
func TestBusy(t *testing.T) {
	t.Parallel()
	both(t, func(t *testing.T, d database) {
		k := newKey(&world{}, "billing")
		b := newBench(t, d, &clock{}).start(k.job(nil))
		other := b.store
		if d.kind == "postgres" {
			other = d.open(t, store.WithLease(time.Second))
		}
		session, err := other.Journal("somebody").Begin(t.Context(), "billing")
		require.NoError(t, err)
		again, err := b.work(t.Context(), rotateArgs{Job: "billing", Force: true})
		require.NoError(t, err)
		require.NotNil(t, again)
		require.Empty(t, b.status1("billing").State)
		require.NoError(t, session.Close())
		require.NoError(t, b.Trigger(t.Context(), "billing"))
		require.True(t, done(b.until(done)))
		require.Equal(t, 1, k.count())
	})
}
