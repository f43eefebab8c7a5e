package jobs

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"runtime/debug"
	"time"

	"github.com/riverqueue/river"

	"github.com/keywright/keywright"
	"github.com/keywright/keywright/jobs/schedule"
	"github.com/keywright/keywright/jobs/store"
	"github.com/keywright/keywright/rotation"
)

// States of a job beside those of a rotation.
const (
	StateRefused = "REFUSED" // it was not begun, because it would have been unsafe
	StateFailed  = "FAILED"  // it was not begun, or has changed nothing; tried again by itself
)

// rotateArgs is a River job that wakes a rotation. It may run at any time, and
// any number of times.
type rotateArgs struct {
	Job        string `json:"job" river:"unique"`
	Generation int    `json:"generation"`      // rotations finished when it was made
	Force      bool   `json:"force,omitempty"` // before it is due, too
}

// Kind names the River job.
func (rotateArgs) Kind() string { return "keywright_rotate" }

type rotateWorker struct {
	river.WorkerDefaults[rotateArgs]
	runner *Runner
}

// NextRetry is when a River job goes on whose worker has died.
func (w *rotateWorker) NextRetry(*river.Job[rotateArgs]) time.Time {
	return time.Now().Add(time.Second)
}

// Work runs a step. It returns nil when nothing is left to do until the schedule
// says so, and else how long to wait.
func (w *rotateWorker) Work(ctx context.Context, job *river.Job[rotateArgs]) (err error) {
	r := w.runner
	defer func() {
		// River would keep what it panicked with, and show it.
		if v := recover(); v != nil {
			_ = r.panicked(ctx, job.Args.Job, v)
			err = river.JobSnooze(jitter(time.Minute))
		}
	}()
	again, err := r.work(ctx, job.Args)
	if err != nil {
		// The database, or what is about to end: the journal has the rest.
		r.log.LogAttrs(ctx, slog.LevelWarn, "a step could not be run", slog.String("job", job.Args.Job), slog.Any("error", err))
		if ctx.Err() != nil {
			return river.JobSnooze(0)
		}
		return river.JobSnooze(jitter(5 * time.Second))
	}
	if again == nil {
		return nil
	}
	return river.JobSnooze(*again)
}

// jitter takes up to a fifth off.
func jitter(d time.Duration) time.Duration {
	if d < 5 {
		return d
	}
	return d - rand.N(d/5)
}

// backoff is how long to wait after so many failures in a row.
func backoff(first, most time.Duration, attempts int) time.Duration {
	d := first
	for range min(attempts-1, 40) {
		if d = 2 * d; d >= most {
			return jitter(most)
		}
	}
	return jitter(d)
}

// Waits of a worker.
const (
	strangerWait = 30 * time.Second // for a worker that knows the job
	busyWait     = 10 * time.Second // for one that has it
	slotWait     = 2 * time.Second  // for a place at a provider
	mostTurn     = 5 * time.Second  // that a step waits itself for a provider's rate
	unmadeWait   = time.Hour        // for a job that could not be made
	unknownWait  = time.Hour        // for an answer to when a key expires
	longestPause = time.Hour        // between two looks at what is under way
	// safety is how long after a step should have been woken the sweep does so:
	// River's job may have been lost.
	safety = 10 * time.Minute
)

// work runs a step of a job. again is how long to wait for the next; nil: the
// schedule says.
func (r *Runner) work(ctx context.Context, args rotateArgs) (again *time.Duration, err error) {
	row, err := r.store.Get(ctx, args.Job)
	if errors.Is(err, store.ErrNotFound) {
		return nil, nil // it was removed
	}
	if err != nil {
		return nil, err
	}
	g := r.job(args.Job)
	if g == nil {
		return after(jitter(strangerWait)), nil
	}
	f, known, err := r.facts(ctx, args.Job)
	if err != nil {
		return nil, err
	}
	g = g.by(row.Spec)
	s := &stepRun{Runner: r, job: g, args: args, row: row, facts: f, began: time.Now(), at: r.now()}
	if err := r.refusal(g, row.Owner); err != nil {
		return s.refuse(ctx, err)
	}
	// Before anything is asked of the provider.
	release, ok, err := r.limits.slot(ctx, g.traits.Provider)
	if err != nil {
		return nil, err
	}
	if !ok {
		return after(slotWait/2 + rand.N(slotWait)), nil
	}
	defer release()
	wait, err := r.limits.turn(ctx, g.traits.Provider, min(mostTurn, r.step/4))
	if err != nil {
		return nil, err
	}
	if wait > 0 {
		return after(wait + rand.N(wait)), nil
	}
	status, err := r.engine.Status(ctx, g.Name)
	if err != nil && !errors.Is(err, rotation.ErrJournal) {
		return s.over(ctx, nil, err)
	}
	if err == nil && !known {
		s.facts = facts{generation: status.Generation, finished: status.Finished, issued: status.Issued}
		f = s.facts
	}
	if err == nil && status.State.Finished() {
		if status.Generation > max(f.generation, args.Generation) || status.Generation > f.generation && !args.Force {
			return s.recover(ctx, status)
		}
		if args.Force && status.Generation > args.Generation {
			return nil, nil // it was rotated since
		}
		if !args.Force {
			if due, err := s.due(ctx); err != nil || !due {
				return nil, err
			}
		}
	}
	if !r.enter(g.Name) {
		return after(jitter(busyWait)), nil
	}
	defer r.leave(g.Name)
	return s.rotate(ctx)
}

func after(d time.Duration) *time.Duration { d = max(d, 0); return &d }

// enter notes that this worker has a job at work.
func (r *Runner) enter(job string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.running[job] {
		return false
	}
	r.running[job] = true
	return true
}

func (r *Runner) leave(job string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.running, job)
}

// ownerOf is the only worker that may run a job, whose owner is by the schedule
// owner; empty: any. Another worker may know a newer configuration.
func (r *Runner) ownerOf(g *registered, owner string) string {
	if owner == "" || owner == r.workerID {
		return g.Owner
	}
	return owner
}

// refusal says why this worker may not run a job, whose owner is by the schedule
// owner.
func (r *Runner) refusal(g *registered, owner string) error {
	owner = r.ownerOf(g, owner)
	switch {
	case owner != "" && owner != r.workerID:
		return fmt.Errorf("%w: it is %s's, and this is %s", ErrOwner, owner, r.workerID)
	case errors.Is(g.Err, ErrOwner):
		return g.Err
	case g.Err != nil:
		return fmt.Errorf("%w: %w", errUnmade, g.Err)
	}
	return nil
}

// errUnmade: a job could not be made.
var errUnmade = errors.New("jobs: the job cannot be run as it is")

// refuse ends a step that this worker may not run. What is another worker's is
// not this one's to write down. A rotation that is under way stays what it is:
// another worker may be able to go on with it, or this one soon.
func (s *stepRun) refuse(ctx context.Context, why error) (*time.Duration, error) {
	if owner := s.ownerOf(s.job, s.row.Owner); owner != "" && owner != s.workerID {
		s.log.LogAttrs(ctx, slog.LevelWarn, "rotation refused", slog.String("job", s.job.Name), slog.Any("error", why))
		return after(jitter(busyWait)), s.requeue(ctx, s.job.Name, owner)
	}
	if standing(s.row) != schedule.Running {
		return s.over(ctx, nil, why)
	}
	s.log.LogAttrs(ctx, slog.LevelWarn, "rotation goes on later", slog.String("job", s.job.Name), slog.Any("error", why))
	return after(jitter(strangerWait)), nil
}

// stepRun is a step of a job.
type stepRun struct {
	*Runner
	job   *registered
	args  rotateArgs
	row   store.Schedule
	facts facts
	began time.Time     // by the real clock
	at    time.Time     // by the schedule's
	ago   time.Duration // since the rotation was over

	stopped bool // the worker was told to stop
}

// due reports whether the job is due: a River job may be older than the last
// rotation. If it is not, and its row says otherwise, the row is mended.
func (s *stepRun) due(ctx context.Context) (bool, error) {
	if s.row.Due.IsZero() || s.row.Due.After(s.at) {
		return false, nil
	}
	if s.job.Schedule == nil {
		return true, nil // somebody has set it
	}
	spec := s.job.Schedule
	// A failed run is tried again even if a person has begun it early; but not
	// one that has only failed to learn when the key expires.
	retry := s.row.LastState == StateFailed && (spec.BeforeExpiry == "" || !s.facts.looked.IsZero()) ||
		s.row.LastState == string(rotation.StateRolledBack) && spec.Canary // others wait for it
	if spec.BeforeExpiry != "" && s.at.Sub(s.facts.looked) >= DefaultLook {
		if err := s.look(ctx); err != nil {
			s.log.LogAttrs(ctx, slog.LevelWarn, "it is not known when the key expires", slog.String("job", s.job.Name), slog.Any("error", err))
			if s.facts.looked.IsZero() && spec.Every == "" && spec.Cron == "" {
				_, err := s.over(ctx, nil, fmt.Errorf("jobs: when the key expires is not known: %w", err))
				return false, err
			}
		} else if err := s.setFacts(ctx, s.job.Name, s.facts); err != nil {
			return false, err
		}
	}
	if retry {
		_, frozen, err := spec.FrozenAt(s.at)
		if err != nil || !frozen {
			return err == nil, err
		}
	}
	due, _, err := s.nextOf(spec, s.job.Name, s.facts, s.row.Created, s.at)
	if err != nil {
		return false, err
	}
	if !due.After(s.at) {
		return true, nil
	}
	if s.row.LastState == StateFailed && !retry && !s.facts.looked.IsZero() {
		// All that has failed was to ask when the key expires.
		o := store.Outcome{Run: s.row.LastRun, Due: due}
		if s.facts.generation > 0 {
			o.State = string(rotation.StateDone)
		}
		return false, s.store.SetOutcome(ctx, s.job.Name, o)
	}
	if soon := s.at.Add(unknownWait); spec.BeforeExpiry != "" && s.facts.looked.IsZero() && due.After(soon) {
		due = soon
	}
	return false, s.store.SetDue(ctx, s.job.Name, due)
}

// look asks when the key in use expires.
func (s *stepRun) look(ctx context.Context) error {
	ask := s.job.Expires
	if ask == nil {
		status, err := s.engine.Status(ctx, s.job.Name)
		if err != nil {
			return err
		}
		if ask = expiryOf(s.job.Strategy, status); ask == nil {
			s.facts.looked = s.at
			return nil
		}
	}
	ctx, cancel := context.WithTimeout(ctx, s.step/4)
	defer cancel()
	expires, err := func() (_ time.Time, err error) {
		defer func() {
			if v := recover(); v != nil {
				err = s.panicked(ctx, s.job.Name, v)
			}
		}()
		return ask(ctx)
	}()
	if err != nil {
		return err
	}
	s.facts.expires, s.facts.looked = expires, s.at
	return nil
}

// expiryOf returns how a provider is asked when the key in use expires; nil: it
// cannot be.
func expiryOf(strategy rotation.Strategy, status *rotation.Status) func(context.Context) (time.Time, error) {
	or := func(t *time.Time, err error) (time.Time, error) {
		if err != nil || t == nil {
			return time.Time{}, err
		}
		return *t, nil
	}
	aceData := func(client *keywright.AceData, id keywright.CredentialID) func(context.Context) (time.Time, error) {
		return func(ctx context.Context) (time.Time, error) {
			c, err := client.Credential.Retrieve(ctx, id)
			if err != nil {
				return time.Time{}, err
			}
			return or(c.ExpiredAt, nil)
		}
	}
	switch s := strategy.(type) {
	case rotation.AceDataSwap:
		return aceData(s.Client, cmp.Or(keywright.CredentialID(status.Data["credential"]), s.Credential))
	case rotation.AceDataInPlace:
		return aceData(s.Client, s.Credential)
	case rotation.RicloudOverlap:
		return func(ctx context.Context) (time.Time, error) {
			k, err := s.Client.Key.Retrieve(ctx, s.Key)
			if err != nil {
				return time.Time{}, err
			}
			return or(k.DateExpires, nil)
		}
	case rotation.RicloudPaired:
		return func(ctx context.Context) (time.Time, error) {
			var first time.Time // of the two, because both are needed
			for _, id := range s.Keys {
				k, err := s.Client.Key.Retrieve(ctx, id)
				if err != nil {
					return time.Time{}, err
				}
				if k.DateExpires != nil && (first.IsZero() || k.DateExpires.Before(first)) {
					first = *k.DateExpires
				}
			}
			return first, nil
		}
	}
	return nil
}

// rotate runs the engine for as long as the step may take.
func (s *stepRun) rotate(ctx context.Context) (*time.Duration, error) {
	run := store.Run{Job: s.job.Name, Owner: s.workerID, Started: s.at}
	if s.facts.run == 0 {
		id, err := s.store.AddRun(ctx, run)
		if err != nil {
			return nil, err
		}
		s.facts.run = id
		if err := s.setFacts(ctx, s.job.Name, s.facts); err != nil {
			return nil, err
		}
	}
	job := s.job.Job.Job
	if job.Policy.MaxWait == 0 || job.Policy.MaxWait > s.wait {
		job.Policy.MaxWait = s.wait
	}
	until := s.began.Add(s.step)
	if t, ok := ctx.Deadline(); ok && t.Before(until) {
		until = t
	}
	if s.starting != nil {
		s.starting(job.Name)
	}
	short, cancel := context.WithDeadline(ctx, until)
	defer cancel()
	result, err := s.call(context.WithValue(short, stepKey{}, step{s.store, job.Name, until}), job)
	s.stopped = errors.Is(ctx.Err(), context.Canceled)
	// What came of it is written down even if the step's time is over.
	return s.over(context.WithoutCancel(ctx), result, err)
}

// call is the engine's Rotate, with a panic made an error.
func (s *stepRun) call(ctx context.Context, job rotation.Job) (result *rotation.Result, err error) {
	defer func() {
		if v := recover(); v != nil {
			result, err = nil, s.panicked(ctx, job.Name, v)
		}
	}()
	return s.engine.Rotate(ctx, job)
}

// panicked logs a panic, and makes an error of it. Its value is not shown: it
// may be anything.
func (r *Runner) panicked(ctx context.Context, job string, v any) error {
	r.log.LogAttrs(ctx, slog.LevelError, "a rotation panicked", slog.String("job", job), slog.String("type", fmt.Sprintf("%T", v)), slog.String("stack", string(debug.Stack())))
	return fmt.Errorf("jobs: %s panicked (%T)", job, v)
}

// recover writes down a rotation that is over: the worker that has done it died
// before it could, or it was none of ours. The next is due from when it was over.
func (s *stepRun) recover(ctx context.Context, status *rotation.Status) (*time.Duration, error) {
	if !status.Finished.IsZero() {
		s.ago = max(time.Since(status.Finished), 0)
	}
	return s.over(ctx, &rotation.Result{Job: status.Job, Operation: status.Operation, State: status.State, Resumed: true, Finished: status.Finished}, nil)
}

// verdict is what follows from how a step has ended.
type verdict struct {
	state    string
	problem  error
	attempts int
	due      time.Time      // by the schedule's clock
	again    *time.Duration // the step is run again
	resume   time.Time      // when that is, by the real clock; zero: not
	skip     bool           // somebody else has the job: nothing is written down
	over     bool           // the rotation is over, or was not begun
}

// over writes down what came of a step.
func (s *stepRun) over(ctx context.Context, result *rotation.Result, err error) (*time.Duration, error) {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	s.at = maxTime(s.at, s.now())
	v, failed := s.judge(ctx, result, err)
	if failed != nil {
		return nil, failed
	}
	if v.skip {
		s.tell(ctx, v)
		return v.again, nil
	}
	outcome := store.Outcome{Run: s.at.Add(-time.Since(s.began)), State: v.state, Attempts: v.attempts, Due: v.due}
	run := store.Run{ID: s.facts.run, Job: s.job.Name, Owner: s.workerID, Started: s.at, Finished: s.at, State: v.state, ResumeAt: v.resume}
	if v.problem != nil {
		outcome.Problem, run.Problem = v.problem.Error(), v.problem.Error()
	}
	if result != nil {
		run.Operation = result.Operation
	}
	if run.ID == 0 { // it was over before there was a run
		id, err := s.store.AddRun(ctx, run)
		if err != nil {
			return nil, err
		}
		run.ID = id
	}
	if err := s.store.FinishRun(ctx, run); err != nil && !errors.Is(err, store.ErrNotFound) {
		return nil, err
	}
	if v.again == nil {
		s.facts.run = 0
	}
	// The outcome is last but one: what follows it can be done twice.
	if err := s.store.SetOutcome(ctx, s.job.Name, outcome); err != nil && !errors.Is(err, store.ErrNotFound) {
		return nil, err
	}
	if err := s.setFacts(ctx, s.job.Name, s.facts); err != nil {
		return nil, err
	}
	if err := s.rescheduled(ctx, v); err != nil {
		return nil, err
	}
	s.tell(ctx, v)
	return v.again, nil
}

// rescheduled sets when a job is due by its schedule, if that has changed since
// the step began.
func (s *stepRun) rescheduled(ctx context.Context, v verdict) error {
	if !v.over {
		return nil
	}
	row, err := s.store.Get(ctx, s.job.Name)
	if errors.Is(err, store.ErrNotFound) {
		return nil
	}
	if err != nil || row.Spec == s.row.Spec {
		return err
	}
	g := s.job.by(row.Spec)
	if g.Schedule != nil && v.state != string(rotation.StateDone) {
		return nil // it is tried again
	}
	due, _, err := s.next(g, s.facts, row.Created, s.at)
	if err != nil {
		due = s.at.Add(DefaultLook)
	}
	return s.store.SetDue(ctx, s.job.Name, due)
}

func maxTime(a, b time.Time) time.Time {
	if a.Before(b) {
		return b
	}
	return a
}

// judge says what follows from how a step has ended. It notes in the facts what
// is known about the key.
func (s *stepRun) judge(ctx context.Context, result *rotation.Result, err error) (verdict, error) {
	v := verdict{problem: err, attempts: s.row.Attempts + 1}
	if result != nil {
		v.state = string(result.State)
	}
	var unsaved *rotation.UnsavedError
	if errors.As(err, &unsaved) {
		if s.unsaved != nil {
			s.unsaved(ctx, unsaved)
		}
		s.log.LogAttrs(ctx, slog.LevelError, "A NEW TOKEN COULD NOT BE SAVED: free the database's disk, and look at the job's escrow", slog.String("job", s.job.Name), slog.Any("error", unsaved))
	}
	switch {
	case s.dialect.many && time.Since(s.began) >= s.rescue-s.step/4:
		// This process was stopped for long: another has, or had, the job, and has
		// written down what came of it, or will.
		v.skip, v.again = true, after(jitter(busyWait))
	case err == nil && result.ResumeAt.IsZero():
		return s.done(ctx, v)
	case err == nil:
		v.attempts = 0
		// The time is the provider's, whose clock may be behind ours.
		s.again(ctx, &v, jitterUp(max(time.Until(result.ResumeAt), min(s.poll, time.Second))))
	case errors.Is(err, store.ErrFenced), errors.Is(err, rotation.ErrBusy):
		wait := jitter(busyWait)
		var busy *store.BusyError
		if errors.As(err, &busy) && !busy.Until.IsZero() {
			wait = min(max(time.Until(busy.Until), 0)+rand.N(time.Second), 2*time.Minute)
		}
		v.skip, v.again = true, after(wait)
	case errors.Is(err, rotation.ErrUnfinished) && s.stopped:
		v.attempts = s.row.Attempts
		s.again(ctx, &v, 0)
	case errors.Is(err, rotation.ErrUnfinished), !errors.Is(err, rotation.ErrStuck) && s.underWay(ctx, s.job.Name) == nil:
		s.again(ctx, &v, backoff(2*time.Second, 5*time.Minute, v.attempts))
	case errors.Is(err, rotation.ErrStuck):
		v.state, v.over, v.due = string(rotation.StateStuck), false, s.at.Add(DefaultLook)
	case errors.Is(err, rotation.ErrRefused), errors.Is(err, ErrOwner), errors.Is(err, errUnmade):
		v.state, v.over = StateRefused, true
		v.due = s.at.Add(DefaultLook)
		if errors.Is(err, errUnmade) {
			v.due = s.at.Add(unmadeWait)
		}
		if s.job.Schedule != nil {
			// As if it had been rotated: when it would be due then.
			f := s.facts
			f.finished = s.at
			if due, _, err := s.nextOf(s.job.Schedule, s.job.Name, f, s.row.Created, s.at); err == nil && !due.IsZero() && due.Before(v.due) {
				v.due = maxTime(due, s.at.Add(time.Minute))
			}
		} else {
			v.due = time.Time{}
		}
	default: // ErrNotIssued, ErrJournal, and what is no class of the engine's
		v.state, v.over = StateFailed, true
		v.due = s.at.Add(backoff(time.Minute, 6*time.Hour, v.attempts))
	}
	return v, nil
}

// jitterUp adds up to a tenth, and a second at most: what is waited for must
// have happened.
func jitterUp(d time.Duration) time.Duration {
	if d <= 0 {
		return 0
	}
	return d + rand.N(min(d/10, time.Second)+1)
}

// again has a step run again after d.
func (s *stepRun) again(ctx context.Context, v *verdict, d time.Duration) {
	d = min(max(d, 100*time.Millisecond), longestPause)
	v.again, v.resume, v.due = &d, time.Now().Add(d), s.at.Add(d+safety)
	if v.state == "" {
		v.state = cmp.Or(s.row.LastState, StateFailed)
		if status, err := s.engine.Status(ctx, s.job.Name); err == nil {
			v.state = string(status.State)
		}
	}
}

// done is a rotation that is over: when is the next?
func (s *stepRun) done(ctx context.Context, v verdict) (verdict, error) {
	v.attempts, v.over = 0, true
	status, err := s.engine.Status(ctx, s.job.Name)
	if err != nil {
		return v, err
	}
	s.facts.generation = status.Generation
	if v.state != string(rotation.StateDone) {
		// A person has taken it back, and is to have time for what was wrong.
		v.state, v.problem = string(rotation.StateRolledBack), errors.New("rolled back by hand")
		if s.job.Schedule != nil {
			v.due = s.at.Add(DefaultLook)
		}
		return v, nil
	}
	s.facts.issued = status.Issued
	s.facts.finished = s.at.Add(-s.ago) // by the schedule's clock, which may not be the provider's
	s.facts.expires, s.facts.looked = time.Time{}, time.Time{}
	if s.job.Schedule == nil {
		return v, nil
	}
	if s.job.Schedule.BeforeExpiry != "" {
		if err := s.look(ctx); err != nil {
			s.log.LogAttrs(ctx, slog.LevelWarn, "it is not known when the key expires", slog.String("job", s.job.Name), slog.Any("error", err))
		}
	}
	v.due, _, err = s.nextOf(s.job.Schedule, s.job.Name, s.facts, s.row.Created, s.at)
	if err != nil { // it has no time, and may have one tomorrow
		v.problem, v.due = err, s.at.Add(DefaultLook)
	}
	if s.job.Schedule.BeforeExpiry != "" && s.facts.looked.IsZero() {
		// It is asked again soon.
		if soon := s.at.Add(unknownWait / 6); v.due.IsZero() || v.due.After(soon) {
			v.due = soon
		}
	}
	return v, nil
}

// tell says what came of a step, to the log and to whom it concerns.
func (s *stepRun) tell(ctx context.Context, v verdict) {
	level, message := slog.LevelInfo, "rotation finished"
	switch {
	case v.skip:
		level, message = slog.LevelDebug, "another worker has the job"
	case v.state == string(rotation.StateStuck):
		level, message = slog.LevelError, "rotation needs a person"
	case v.state == StateRefused:
		level, message = slog.LevelWarn, "rotation refused"
	case v.state == string(rotation.StateRolledBack):
		message = "rotation rolled back"
	case v.problem != nil && v.again != nil:
		level, message = slog.LevelWarn, "rotation goes on later"
	case v.problem != nil:
		level, message = slog.LevelWarn, "rotation failed"
	case v.again != nil:
		level, message = slog.LevelDebug, "rotation waits"
	}
	attrs := []slog.Attr{slog.String("job", s.job.Name), slog.String("state", v.state)}
	if v.problem != nil {
		attrs = append(attrs, slog.Any("error", v.problem))
	}
	if !v.due.IsZero() && v.again == nil {
		attrs = append(attrs, slog.Time("due", v.due))
	}
	s.log.LogAttrs(ctx, level, message, attrs...)
	if s.results != nil && !v.skip {
		s.results(Result{Job: s.job.Name, Provider: s.job.traits.Provider, State: v.state, Err: v.problem, Over: v.over, Took: time.Since(s.began)})
	}
}
