package jobs

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/riverqueue/river"
	"github.com/riverqueue/river/riverdriver/riverpgxv5"
	"github.com/riverqueue/river/riverdriver/riversqlite"

	"github.com/keywright/keywright/jobs/store"
	"github.com/keywright/keywright/rotation"
)

// Trigger rotates a job's key as soon as a worker is free, whatever the schedule
// says, or goes on with a rotation that is stuck or waits. It does nothing more
// if a worker is about to begin the rotation anyway; for a moment, it waits to
// see that. A runner that was not started can do it too, in a process beside the
// workers. The error matches [ErrUnknown] if the job is not in the schedule, and
// [ErrNotRunning] if the runner is starting, or was stopped.
func (r *Runner) Trigger(ctx context.Context, job string) error {
	row, err := r.rowOf(ctx, job)
	if err != nil {
		return err
	}
	if g := r.job(job); g != nil && g.Err != nil {
		return g.Err
	}
	before, err := r.engine.Status(ctx, job)
	if err != nil {
		return err
	}
	args := rotateArgs{Job: job, Force: true, Generation: before.Generation}
	poll := time.NewTicker(pollRiver)
	defer poll.Stop()
	for until := time.Now().Add(r.step); ; {
		added, err := r.enqueue(ctx, []rotateArgs{args}, []string{row.Owner})
		if err != nil || added > 0 {
			return err
		}
		running, err := r.force(ctx, args)
		if err != nil || !running {
			return err
		}
		// Its step may be one that does not begin the rotation, or that has found
		// it stuck, and is about to end. If its worker has died, what is rescued is
		// ours.
		status, err := r.engine.Status(ctx, job)
		if err != nil {
			return err
		}
		goesOn := !status.State.Finished() && status.State != rotation.StateStuck
		if goesOn || status.Generation > before.Generation || time.Now().After(until) {
			return nil
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-poll.C:
		}
	}
}

// pollRiver is how often a River job is looked at that is waited for.
const pollRiver = 200 * time.Millisecond

// rowOf returns a job's row of the schedule, for what a person asks for.
func (r *Runner) rowOf(ctx context.Context, job string) (store.Schedule, error) {
	r.mu.Lock()
	usable := r.state == stateNew || r.state == stateRunning
	r.mu.Unlock()
	if !usable {
		return store.Schedule{}, ErrNotRunning
	}
	row, err := r.store.Get(ctx, job)
	if errors.Is(err, store.ErrNotFound) {
		err = fmt.Errorf("%w: %w", ErrUnknown, err)
	}
	return row, err
}

// Rollback takes a rotation back that is under way, as
// [rotation.Engine.Rollback] does, and has the schedule leave the key alone for
// [DefaultLook] after it. It waits for a step of the job that is running, and
// until a worker that died has lost it, which ctx may bound. A runner that was
// not started can do it too, in a process beside the workers, if the job is
// registered. The error matches [ErrUnknown] if it is not, or is not in the
// schedule, [ErrOwner] if it is another worker's, and [rotation.ErrNoWayBack] if
// nothing is under way; else it is that of the engine, and the rotation goes on.
func (r *Runner) Rollback(ctx context.Context, job string) (*rotation.Result, error) {
	row, err := r.rowOf(ctx, job)
	if err != nil {
		return nil, err
	}
	g := r.job(job)
	if g == nil {
		return nil, fmt.Errorf("%w: %s is not registered", ErrUnknown, job)
	}
	if err := r.refusal(g, row.Owner); err != nil {
		return nil, err
	}
	defer r.record(ctx)()
	unlock, err := r.takeBack(ctx)
	if err != nil {
		return nil, err
	}
	result, err := r.rollback(ctx, g)
	err = errors.Join(err, unlock())
	if err == nil && !result.State.Finished() {
		err = fmt.Errorf("%w: the roll-back goes on later", rotation.ErrUnfinished)
	}
	return result, err
}

// takeBack makes of the River jobs of a process that has died, on a database of
// one process, what a start makes of them. Until unlock is called none starts.
func (r *Runner) takeBack(ctx context.Context) (unlock func() error, err error) {
	nothing := func() error { return nil }
	if r.dialect.many || r.Running() {
		return nothing, nil
	}
	unlock, err = r.store.Exclusive(ctx)
	if errors.Is(err, store.ErrLocked) {
		return nothing, nil // it lives
	}
	if err != nil {
		return nil, err
	}
	if err := r.reclaim(ctx); err != nil {
		return nil, errors.Join(err, unlock())
	}
	return unlock, nil
}

// record has the engine's events written to the history, if nothing does so yet.
func (r *Runner) record(ctx context.Context) (stop func()) {
	if r.recorder.Load() != nil {
		return func() {}
	}
	own := r.store.Recorder()
	r.recorder.CompareAndSwap(nil, own)
	return func() {
		r.recorder.CompareAndSwap(own, nil)
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
		defer cancel()
		if err := own.Close(ctx); err != nil {
			r.log.LogAttrs(ctx, slog.LevelWarn, "events were not written to the history", slog.Any("error", err))
		}
	}
}

// rollback takes a rotation back when it has no River job any more, and writes
// down what came of it.
func (r *Runner) rollback(ctx context.Context, g *registered) (*rotation.Result, error) {
	poll := time.NewTicker(pollRiver)
	defer poll.Stop()
	for {
		if err := r.underWay(ctx, g.Name); err != nil {
			return nil, err
		}
		live, err := r.cancel(ctx, g.Name)
		if err != nil {
			return nil, err
		}
		if !live {
			result, err := r.rollback1(ctx, g)
			if !errors.Is(err, rotation.ErrBusy) {
				return result, err
			}
		}
		select {
		case <-ctx.Done():
			// Its River job was taken away.
			return nil, errors.Join(context.Cause(ctx), r.goOn(ctx, g.Name))
		case <-poll.C:
		}
	}
}

// underWay returns an error if nothing is.
func (r *Runner) underWay(ctx context.Context, job string) error {
	status, err := r.engine.Status(ctx, job)
	if err == nil && status.State.Finished() {
		err = fmt.Errorf("%w: nothing is under way", rotation.ErrNoWayBack)
	}
	return err
}

// rollback1 has the engine do it, if the step that was waited for has not ended
// the rotation.
func (r *Runner) rollback1(ctx context.Context, g *registered) (*rotation.Result, error) {
	if err := r.underWay(ctx, g.Name); err != nil {
		return nil, err
	}
	// Nobody is to wake it meanwhile. If this process dies, the sweep does.
	if err := r.store.SetDue(ctx, g.Name, r.now().Add(safety)); err != nil {
		return nil, err
	}
	result, err := r.engine.Rollback(context.WithValue(ctx, stepKey{}, step{store: r.store, job: g.Name}), g.Job.Job)
	if errors.Is(err, rotation.ErrBusy) {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 30*time.Second)
	defer cancel()
	status, statusErr := r.engine.Status(ctx, g.Name)
	if statusErr != nil || !status.State.Finished() {
		return result, errors.Join(err, statusErr, r.goOn(ctx, g.Name))
	}
	row, rowErr := r.store.Get(ctx, g.Name)
	f, _, factsErr := r.facts(ctx, g.Name)
	if failed := errors.Join(rowErr, factsErr); failed != nil {
		return result, errors.Join(err, failed)
	}
	s := &stepRun{Runner: r, job: g.by(row.Spec), row: row, facts: f, began: time.Now(), at: r.now()}
	_, recoverErr := s.recover(ctx, status)
	return result, errors.Join(err, recoverErr)
}

// goOn has the sweep make a River job of what is under way.
func (r *Runner) goOn(ctx context.Context, job string) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
	defer cancel()
	return r.store.SetDue(ctx, job, r.now())
}

// inserter returns a River that River jobs can be given to: that of a runner that
// was started, or one that works none.
func (r *Runner) inserter() (queue, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.river != nil {
		return r.river, nil
	}
	config := &river.Config{Logger: quiet(r.log)}
	if r.dialect.many {
		return river.NewClient(riverpgxv5.New(r.store.Pool()), config)
	}
	return river.NewClient(riversqlite.New(r.store.SQL()), config)
}

// Forget takes a job out of the schedule that no worker is to run any more; its
// journal and history stay. A runner that was not started can do it too, in a
// process beside the workers. It is refused, with an error that matches
// [rotation.ErrUnfinished], while a rotation of the job is under way, and for a
// job that is registered.
func (r *Runner) Forget(ctx context.Context, job string) error {
	if _, err := r.rowOf(ctx, job); err != nil {
		return err
	}
	if r.job(job) != nil {
		return fmt.Errorf("%w: %s is registered", ErrJob, job)
	}
	status, err := r.engine.Status(ctx, job)
	if err != nil {
		return err
	}
	if !status.State.Finished() {
		return fmt.Errorf("%w: %s is in %s; register it again until that is over, or roll it back", rotation.ErrUnfinished, job, status.State)
	}
	return r.forget(ctx, func(row store.Schedule) bool { return row.Job == job })
}

// forget takes jobs out of the schedule, but for those with a rotation under
// way.
func (r *Runner) forget(ctx context.Context, gone func(store.Schedule) bool) error {
	rows, err := r.store.List(ctx)
	if err != nil {
		return err
	}
	rows = slices.DeleteFunc(rows, func(row store.Schedule) bool { return !gone(row) })
	var errs []error
	rows = slices.DeleteFunc(rows, func(row store.Schedule) bool {
		status, err := r.engine.Status(ctx, row.Job)
		switch {
		case errors.Is(err, rotation.ErrJournal): // somebody is to look at it
			return true
		case err != nil:
			errs = append(errs, err)
			return true
		case !status.State.Finished():
			r.log.LogAttrs(ctx, slog.LevelError, "a job was taken away while it is being rotated; give it back until that is over",
				slog.String("job", row.Job), slog.String("state", string(status.State)))
			return true
		}
		return false
	})
	removed, err := r.store.Remove(ctx, rows...)
	for _, job := range removed {
		r.log.LogAttrs(ctx, slog.LevelInfo, "the job is not rotated any more", slog.String("job", job))
	}
	return errors.Join(append(errs, err)...)
}
