package jobs

import (
	"context"
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/keywright/keywright"
	"github.com/keywright/keywright/rotation"
)

// reversible is a key whose rotation can be taken back.
type reversible struct{ *key }

func (k reversible) Traits() rotation.Traits {
	t := k.key.Traits()
	t.Reversible = true
	return t
}

func (k reversible) VerifyOld(_ context.Context, op *rotation.Operation) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if slices.Contains(k.tokens, op.Old.Reveal()) {
		return nil
	}
	return rotation.ErrNotAccepted
}

func (k *key) acknowledge(context.Context, keywright.Secret) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.ready
}

func (k reversible) Undo(_ context.Context, op *rotation.Operation) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.tokens = slices.DeleteFunc(k.tokens, func(t string) bool { return t == op.New.Reveal() })
	return nil
}

// beside is a runner on the database of another, in a process of its own but for
// the test: it is not started.
func (b *bench) beside(t *testing.T, c *clock, jobs ...Job) *Runner {
	t.Helper()
	r, err := New(b.store, WithSealer(b.Runner.sealer), WithWorkerID(b.workerID), WithClock(c.now))
	require.NoError(t, err)
	require.NoError(t, r.Register(t.Context(), jobs...))
	return r
}

// A process beside the workers can trigger a rotation.
func TestTriggerBeside(t *testing.T) {
	t.Parallel()
	both(t, func(t *testing.T, d database) {
		k, c := newKey(&world{}, "billing"), &clock{}
		b := newBench(t, d, c).start(k.job(nil))
		r := b.beside(t, c)
		require.ErrorIs(t, r.Trigger(t.Context(), "other"), ErrUnknown)
		require.NoError(t, r.Trigger(t.Context(), "billing"))
		require.True(t, done(b.next()))
		require.Equal(t, 1, k.count())
		require.False(t, r.Running())
	})
}

// A process beside the workers can roll back: afterwards the key is left alone,
// though the rotation was triggered, and its readers have the old token.
func TestRollback(t *testing.T) {
	t.Parallel()
	both(t, func(t *testing.T, d database) {
		k, c := newKey(&world{}, "billing"), &clock{}
		k.ready = rotation.ErrNotReady
		job := k.job(specOf(t, `{"every":"30d"}`))
		job.Strategy, job.Acknowledge = reversible{k}, k.acknowledge
		b := newBench(t, d, c).start(job)
		require.NoError(t, b.Trigger(t.Context(), "billing"))
		b.until(func(v Result) bool { return v.State == string(rotation.StateConverging) })
		k.mu.Lock()
		old, held := k.tokens[0], k.held
		k.mu.Unlock()
		require.NotEqual(t, old, held)

		r := b.beside(t, c, job)
		_, err := b.beside(t, c).Rollback(t.Context(), "billing")
		require.ErrorIs(t, err, ErrUnknown, "it is not registered")
		result, err := r.Rollback(t.Context(), "billing")
		require.NoError(t, err)
		require.Equal(t, rotation.StateRolledBack, result.State)
		k.mu.Lock()
		held = k.held
		k.mu.Unlock()
		require.Equal(t, old, held)
		b.sweeps()
		s := b.status1("billing")
		require.Equal(t, string(rotation.StateRolledBack), s.State)
		require.WithinDuration(t, c.now().Add(DefaultLook), s.Due, time.Minute)
		require.Equal(t, 1, k.count(), "it is not begun again")
		events, err := b.store.Events(t.Context(), "billing", 100)
		require.NoError(t, err)
		var states []string
		for _, e := range events {
			states = append(states, e.To)
		}
		require.Contains(t, states, string(rotation.StateRollingBack))

		_, err = r.Rollback(t.Context(), "billing")
		require.ErrorIs(t, err, rotation.ErrNoWayBack, "nothing is under way")
		k.set(func() { k.ready = nil })
		require.NoError(t, b.Trigger(t.Context(), "billing"))
		require.True(t, done(b.until(done)))
		require.Equal(t, 2, k.count())
	})
}

// A person's request is not lost to a River job that is there already and does not
// begin the rotation: one that waits, and one whose step is about to end.
func TestTriggerNotLost(t *testing.T) {
	t.Parallel()
	both(t, func(t *testing.T, d database) {
		k, c := newKey(&world{}, "billing"), &clock{}
		asked, answer := make(chan struct{}), make(chan struct{})
		job := k.job(specOf(t, `{"before_expiry":"10d"}`))
		job.Expires = func(context.Context) (time.Time, error) {
			if k.count() == 0 {
				asked <- struct{}{}
				<-answer
			}
			return c.now().Add(100 * day), nil
		}
		b := newBench(t, d, c).start(job)
		<-asked
		triggered := make(chan error, 1)
		go func() { triggered <- b.Trigger(t.Context(), "billing") }()
		require.Eventually(t, func() bool { // it has seen the one that runs
			args := `SELECT COUNT(*) FROM river_job WHERE kind = 'keywright_rotate' AND state = 'running' AND json_extract(args, '$.force')`
			if d.kind == "postgres" {
				args = `SELECT COUNT(*) FROM river_job WHERE kind = 'keywright_rotate' AND state = 'running' AND (args->>'force')::boolean`
			}
			return b.number(args) == 1
		}, 20*time.Second, 10*time.Millisecond)
		close(answer)
		require.NoError(t, <-triggered)
		require.True(t, done(b.until(done)))
		require.Equal(t, 1, k.count())
		b.idle()

		_, err := b.enqueue(t.Context(), []rotateArgs{{Job: "billing"}}, []string{"nobody"})
		require.NoError(t, err)
		b.exec(`UPDATE river_job SET queue = ?, state = 'scheduled', scheduled_at = '2099-01-01 00:00:00.000' WHERE queue = ?`, anyQueue, ownerQueue("nobody"))
		require.NoError(t, b.Trigger(t.Context(), "billing"))
		require.True(t, done(b.until(done)))
		require.Equal(t, 2, k.count())
	})
}

// One that was given to another owner meanwhile is not lost either.
func TestTriggerFollowsOwner(t *testing.T) {
	t.Parallel()
	d, c, k := postgresAt(t), &clock{}, newKey(&world{}, "billing")
	job := k.job(nil)
	job.Owner = "w2"
	newBench(t, d, c).start(job)
	two := newBench(t, d, c, WithWorkerID("w2")).start(job)
	_, err := two.enqueue(t.Context(), []rotateArgs{{Job: "billing", Force: true}}, []string{"w1"})
	require.NoError(t, err)
	require.True(t, done(two.until(done)))
	require.Equal(t, 1, k.count())
}

// Where nothing is under way, nothing happens: least of all a rotation.
func TestRollbackOfNothing(t *testing.T) {
	t.Parallel()
	both(t, func(t *testing.T, d database) {
		k, c := newKey(&world{}, "billing"), &clock{}
		job := k.job(nil)
		job.Strategy = reversible{k}
		b := newBench(t, d, c).start(job)
		_, err := b.Rollback(t.Context(), "billing")
		require.ErrorIs(t, err, rotation.ErrNoWayBack)
		require.Zero(t, b.status1("billing").Due)
		c.advance(time.Hour)
		b.sweeps()
		require.Zero(t, k.count())
	})
}

// A rotation that was taken back is not begun again without a schedule, nor
// because others wait for a canary; and its run is over.
func TestRolledBackStays(t *testing.T) {
	t.Parallel()
	both(t, func(t *testing.T, d database) {
		w, c := &world{}, &clock{}
		never, canary, other := newKey(w, "never"), newKey(w, "canary"), newKey(w, "other")
		never.ready, canary.ready = rotation.ErrNotReady, rotation.ErrNotReady
		jobs := []Job{never.job(nil), canary.job(specOf(t, `{"every":"60d","canary":true}`)), other.job(specOf(t, `{"every":"30d"}`))}
		jobs[0].Strategy, jobs[1].Strategy = reversible{never}, reversible{canary}
		for i, k := range []*key{never, canary} {
			jobs[i].Acknowledge = k.acknowledge
		}
		b := newBench(t, d, c).start(jobs...)
		require.NoError(t, b.Trigger(t.Context(), "never"))
		c.advance(31 * day)
		for seen := make(map[string]bool); len(seen) < 2; {
			seen[b.until(func(v Result) bool { return v.State == "CONVERGING" }).Job] = true
		}
		for _, k := range []*key{never, canary} {
			k.set(func() { k.ready = nil })
			result, err := b.Rollback(t.Context(), k.name)
			require.NoError(t, err)
			require.Equal(t, rotation.StateRolledBack, result.State)
			require.Equal(t, string(rotation.StateRolledBack), b.status1(k.name).State)
			runs, err := b.store.Runs(t.Context(), k.name, 10)
			require.NoError(t, err)
			require.Len(t, runs, 1)
			require.Equal(t, string(rotation.StateRolledBack), runs[0].State)
			require.Zero(t, runs[0].ResumeAt)
		}
		b.sweeps()
		b.sweeps()
		c.advance(23 * time.Hour)
		b.sweeps()
		require.Equal(t, 1, canary.count())
		require.Zero(t, other.count())
		c.advance(2 * time.Hour)
		for range 2 { // the canary, and the one that waits for it
			require.True(t, done(b.until(done)))
		}
		b.sweeps()
		require.Equal(t, []int{1, 2, 1}, []int{never.count(), canary.count(), other.count()})
	})
}

// What a process that died had begun to take back is taken back by a worker, and
// stays so.
func TestRollbackKilled(t *testing.T) {
	t.Parallel()
	both(t, func(t *testing.T, d database) {
		k, c := newKey(&world{}, "billing"), &clock{}
		k.lag, k.ready = time.Second, rotation.ErrNotReady
		job := k.job(specOf(t, `{"every":"30d"}`))
		job.Strategy, job.Acknowledge = reversible{k}, k.acknowledge
		b := newBench(t, d, c).start(job)
		require.NoError(t, b.Trigger(t.Context(), "billing"))
		b.until(func(v Result) bool { return v.State == "CONVERGING" })
		require.Eventually(t, func() bool {
			live, err := b.cancel(t.Context(), "billing")
			require.NoError(t, err)
			return !live
		}, 20*time.Second, 20*time.Millisecond)
		require.NoError(t, b.store.SetDue(t.Context(), "billing", c.now().Add(safety)))
		back := job.Job
		back.Policy.MaxWait = -1
		result, err := b.Engine().Rollback(t.Context(), back)
		require.NoError(t, err)
		require.Equal(t, rotation.StateRollingBack, result.State)

		c.advance(safety)
		require.Equal(t, string(rotation.StateRolledBack), b.until(func(v Result) bool { return v.Over }).State)
		b.sweeps()
		require.WithinDuration(t, c.now().Add(DefaultLook), b.status1("billing").Due, time.Minute)
		require.Equal(t, 1, k.count())
	})
}

// On SQLite nobody rescues what a worker that died was running: who rolls back
// does.
func TestRollbackAfterDeath(t *testing.T) {
	t.Parallel()
	d, k, c := sqliteAt(t), newKey(&world{}, "billing"), &clock{}
	k.ready = rotation.ErrNotReady
	job := k.job(nil)
	job.Strategy, job.Acknowledge = reversible{k}, k.acknowledge
	b := newBench(t, d, c).start(job)
	require.NoError(t, b.Trigger(t.Context(), "billing"))
	b.until(func(v Result) bool { return v.State == "CONVERGING" })
	b.stop()
	b.exec(`UPDATE river_job SET state = 'running', attempted_at = datetime('now', 'subsec') WHERE kind = 'keywright_rotate'`)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	result, err := b.beside(t, c, job).Rollback(ctx, "billing")
	require.NoError(t, err)
	require.Equal(t, rotation.StateRolledBack, result.State)
}

// What a roll-back sends is guarded as a step's requests are.
func TestRollbackGuarded(t *testing.T) {
	t.Parallel()
	both(t, func(t *testing.T, d database) {
		k, c := newKey(&world{}, "billing"), &clock{}
		k.ready = rotation.ErrNotReady
		var guarded, lost error
		job := k.job(nil)
		job.Acknowledge = k.acknowledge
		job.Strategy = asksGuard{reversible{k}, func(ctx context.Context) {
			s, there := ctx.Value(stepKey{}).(step)
			if !there {
				lost = errors.New("it is not guarded")
				return
			}
			guarded = late(ctx)
			s.job = "other"
			lost = late(context.WithValue(ctx, stepKey{}, s))
		}}
		b := newBench(t, d, c).start(job)
		require.NoError(t, b.Trigger(t.Context(), "billing"))
		b.until(func(v Result) bool { return v.State == "CONVERGING" })
		_, err := b.Rollback(t.Context(), "billing")
		require.NoError(t, err)
		require.NoError(t, guarded)
		require.ErrorIs(t, lost, ErrLate)
	})
}

type asksGuard struct {
	reversible
	ask func(context.Context)
}

func (a asksGuard) Undo(ctx context.Context, op *rotation.Operation) error {
	a.ask(ctx)
	return a.reversible.Undo(ctx, op)
}
