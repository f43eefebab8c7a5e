package jobs

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/keywright/keywright/jobs/schedule"
	"github.com/keywright/keywright/jobs/store"
	"github.com/keywright/keywright/rotation"
)

// Status is how a job stands, for people and metrics. It holds no token.
type Status struct {
	Job      string // name of the job
	Strategy string // of the strategy; empty if this worker does not know the job
	Provider string // "ricloud", "acedata"; likewise
	Key      string // names the key for people; likewise
	Owner    string // the only worker that runs it; empty: any

	Due     time.Time // when it is due, or looked at next; zero: not by itself
	Reason  string    // why then, in words; empty if this worker does not know the job
	Overdue bool      // its time has come

	State    string    // StateRefused, StateFailed, or a rotation.State; empty: never run
	Problem  string    // what went wrong last; empty: nothing
	Attempts int       // runs in a row that failed
	LastRun  time.Time // when the last step began; zero: never
	Running  bool      // a step is running on this worker
	Blocked  string    // why this worker does not run it; empty: it does

	Generation int       // rotations finished
	Issued     time.Time // when the token in use was issued; zero: not known
	Finished   time.Time // when the last rotation was over; zero: never
	Expires    time.Time // when the key expires; zero: never, or not known

	// Rotation is what the journal says of a rotation that is under way or
	// stuck; nil: nothing is.
	Rotation *rotation.Status
}

// UnderWay reports whether a rotation was begun and is not over.
func (s Status) UnderWay() bool { return s.Rotation != nil && !s.Rotation.State.Finished() }

// Snapshot returns how all jobs of the schedule stand, sorted by name. It asks
// the database alone, and the journal only for what is under way.
func (r *Runner) Snapshot(ctx context.Context) ([]Status, error) {
	if !r.Running() {
		return nil, ErrNotRunning
	}
	rows, err := r.store.List(ctx)
	if err != nil {
		return nil, err
	}
	known, err := r.allFacts(ctx)
	if err != nil {
		return nil, err
	}
	all := make([]Status, 0, len(rows))
	var due []store.Schedule
	for _, row := range rows {
		s, err := r.status(ctx, row, known[row.Job], false)
		if err != nil {
			return nil, err
		}
		if s.Overdue {
			due = append(due, row)
		}
		all = append(all, s)
	}
	held, err := r.held(ctx, due, known)
	if err != nil {
		return nil, err
	}
	for i := range all {
		all[i].hold(held)
	}
	return all, nil
}

// held says of jobs that are due why they do not begin yet: they wait for a
// canary.
func (r *Runner) held(ctx context.Context, due []store.Schedule, known map[string]facts) (map[string]string, error) {
	if len(due) == 0 {
		return nil, nil
	}
	now := r.now()
	_, members, err := r.members(ctx, now, due, known)
	if err != nil {
		return nil, err
	}
	held := make(map[string]string)
	for _, turn := range schedule.Order(now, members) {
		if !turn.Begin {
			held[turn.Name] = turn.Reason
		}
	}
	return held, nil
}

// hold adds to the reason why the job is due that it does not begin yet.
func (s *Status) hold(held map[string]string) {
	if why := held[s.Job]; why != "" && s.Reason != "" {
		s.Reason += ", " + why
	}
}

// Status returns how a job stands, with what the journal says of it whether
// anything is under way or not. The error matches [ErrUnknown] if it is not in
// the schedule.
func (r *Runner) Status(ctx context.Context, job string) (Status, error) {
	if !r.Running() {
		return Status{}, ErrNotRunning
	}
	row, err := r.store.Get(ctx, job)
	if errors.Is(err, store.ErrNotFound) {
		return Status{}, fmt.Errorf("%w: %w", ErrUnknown, err)
	}
	if err != nil {
		return Status{}, err
	}
	f, _, err := r.facts(ctx, job)
	if err != nil {
		return Status{}, err
	}
	s, err := r.status(ctx, row, f, true)
	if err != nil || !s.Overdue {
		return s, err
	}
	known, err := r.allFacts(ctx)
	if err != nil {
		return Status{}, err
	}
	held, err := r.held(ctx, []store.Schedule{row}, known)
	s.hold(held)
	return s, err
}

func (r *Runner) status(ctx context.Context, row store.Schedule, f facts, journal bool) (Status, error) {
	now := r.now()
	s := Status{
		Job: row.Job, Owner: row.Owner, Due: row.Due, Overdue: !row.Due.IsZero() && !row.Due.After(now),
		State: row.LastState, Problem: row.LastProblem, Attempts: row.Attempts, LastRun: row.LastRun,
		Generation: f.generation, Issued: f.issued, Finished: f.finished, Expires: f.expires,
	}
	r.mu.Lock()
	g := r.jobs[row.Job]
	s.Running = r.running[row.Job]
	r.mu.Unlock()
	if g == nil {
		s.Blocked = "this worker does not know the job"
	} else {
		s.Strategy, s.Provider, s.Key = g.traits.Name, g.traits.Provider, g.traits.Key
		if err := r.refusal(g, row.Owner); err != nil {
			s.Blocked = err.Error()
		}
		_, s.Reason, _ = r.next(g, f, row.Created, now)
	}
	// A step that runs may have got anywhere since its row was written.
	if !journal && !s.Running && standing(row) != schedule.Running && row.LastState != string(rotation.StateStuck) && f.run == 0 {
		return s, nil
	}
	status, err := r.engine.Status(ctx, row.Job)
	if errors.Is(err, rotation.ErrJournal) || errors.Is(err, rotation.ErrRefused) {
		s.Problem = err.Error()
		return s, nil
	}
	if err != nil {
		return Status{}, err
	}
	if journal || !status.State.Finished() {
		s.Rotation = status
	}
	return s, nil
}
