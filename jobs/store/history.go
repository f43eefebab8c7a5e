package store

import (
	"context"
	"errors"
	"time"

	"github.com/keywright/keywright/rotation"
)

// Run is one run of a job, for people who look.
type Run struct {
	ID        int64     // given by AddRun; later runs have larger ones
	Job       string    // name of the job
	Operation string    // id of the rotation, if known
	Owner     string    // the worker
	Started   time.Time // when it began
	Finished  time.Time // when it was over; zero: it is not, or its process has died
	State     string    // what it came to
	Problem   string    // what went wrong; cut at 2000 bytes
	ResumeAt  time.Time // when the rotation goes on; zero: nothing is under way
}

// Event is something that happened in a run, for people who look. It holds no
// token.
type Event struct {
	ID        int64     // given by AddEvent; later events have larger ones
	Job       string    // name of the job
	Operation string    // id of the rotation
	At        time.Time // when
	Kind      string    // "state", "sink", "waiting", "window", "failed", or what the caller says
	From, To  string    // states, of the job or of the sink
	Sink      string    // name of the sink, if it is about one
	Text      string    // what a person wants to know; cut at 2000 bytes
}

// Kinds of events.
const (
	KindState   = "state"   // the job is in a new state: From, To
	KindSink    = "sink"    // a sink is in a new state: Sink, To
	KindWaiting = "waiting" // the run waits: To is where, Text for what
	KindWindow  = "window"  // how much of the overlap is left: Text
	KindFailed  = "failed"  // something did not work: To is where, Text what
	KindLost    = "lost"    // events that could not be written: Text says how many
)

// EventOf makes a row of an engine's event. What has no time of its own
// happened now. Fingerprints are left out, and so is everything that could be
// a token.
func EventOf(e rotation.Event, now time.Time) Event {
	v := Event{Job: e.About(), At: now}
	switch e := e.(type) {
	case rotation.StateChanged:
		v.Kind, v.Operation, v.From, v.To = KindState, e.Operation, string(e.From), string(e.To)
		v.At = known(e.Time, now)
	case rotation.SinkChanged:
		v.Kind, v.Operation, v.Sink, v.To = KindSink, e.Operation, e.Sink, string(e.State)
		v.At = known(e.Time, now)
	case rotation.Waiting:
		v.Kind, v.Operation, v.To = KindWaiting, e.Operation, string(e.State)
		v.Text = e.For.String() + " " + e.Why
	case rotation.Window:
		v.Kind, v.Operation = KindWindow, e.Operation
		v.Text = e.Remaining.Round(time.Second).String()
	case rotation.Failed:
		v.Kind, v.Operation, v.To = KindFailed, e.Operation, string(e.State)
		if e.Err != nil {
			v.Text = e.Err.Error()
		}
	}
	return v
}

func known(t, now time.Time) time.Time {
	if t.IsZero() {
		return now
	}
	return t
}

// AddRun notes that a run has begun, and returns its id. The run's own ID is
// ignored.
func (s *Store) AddRun(ctx context.Context, r Run) (id int64, err error) {
	if r.Started.IsZero() {
		r.Started = time.Now()
	}
	err = s.row(ctx, `INSERT INTO keywright_runs (job, operation, owner, started, finished, state, problem, resume_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?) RETURNING id`,
		clean(r.Job, maxName), clean(r.Operation, maxName), clean(r.Owner, maxName), r.Started, r.Finished,
		clean(r.State, maxName), clean(r.Problem, maxText), r.ResumeAt).Scan(&id)
	return id, s.wrap(err)
}

// FinishRun notes what came of a run: it takes ID, Operation, Finished (now, if
// zero), State, Problem and ResumeAt, and ignores the rest. It returns
// [ErrNotFound] if the run was pruned meanwhile.
func (s *Store) FinishRun(ctx context.Context, r Run) error {
	if r.Finished.IsZero() {
		r.Finished = time.Now()
	}
	n, err := s.exec(ctx, `UPDATE keywright_runs SET operation = ?, finished = ?, state = ?, problem = ?, resume_at = ? WHERE id = ?`,
		clean(r.Operation, maxName), r.Finished, clean(r.State, maxName), clean(r.Problem, maxText), r.ResumeAt, r.ID)
	return s.one(n, err, r.ID)
}

// Runs returns at most limit runs of a job, or of all if job is empty, the
// latest first.
func (s *Store) Runs(ctx context.Context, job string, limit int) ([]Run, error) {
	var all []Run
	query, args := ofJob(`SELECT id, job, operation, owner, started, finished, state, problem, resume_at FROM keywright_runs`, job, limit)
	err := s.rows(ctx, func(scan func(...any) error) error {
		var r Run
		err := scan(&r.ID, &r.Job, &r.Operation, &r.Owner, moment{&r.Started}, moment{&r.Finished}, &r.State, &r.Problem, moment{&r.ResumeAt})
		all = append(all, r)
		return err
	}, query, args...)
	return all, err
}

func ofJob(query, job string, limit int) (string, []any) {
	var args []any
	if job != "" {
		query, args = query+` WHERE job = ?`, append(args, job)
	}
	return query + ` ORDER BY id DESC LIMIT ?`, append(args, max(0, limit))
}

// AddEvent adds events to the history, all or none. Their own IDs are ignored.
func (s *Store) AddEvent(ctx context.Context, events ...Event) error {
	if len(events) == 0 {
		return nil
	}
	return s.inTx(ctx, func(t *tx) error {
		for _, e := range events {
			if e.At.IsZero() {
				e.At = time.Now()
			}
			if _, err := t.exec(ctx, `INSERT INTO keywright_events (job, operation, at, kind, state_from, state_to, sink, text) VALUES (?, ?, ?, ?, ?, ?, ?, ?)`,
				clean(e.Job, maxName), clean(e.Operation, maxName), e.At, clean(e.Kind, maxName), clean(e.From, maxName),
				clean(e.To, maxName), clean(e.Sink, maxName), clean(e.Text, maxText)); err != nil {
				return err
			}
		}
		return nil
	})
}

// Events returns at most limit events of a job, or of all if job is empty, the
// latest first.
func (s *Store) Events(ctx context.Context, job string, limit int) ([]Event, error) {
	var all []Event
	query, args := ofJob(`SELECT id, job, operation, at, kind, state_from, state_to, sink, text FROM keywright_events`, job, limit)
	err := s.rows(ctx, func(scan func(...any) error) error {
		var e Event
		err := scan(&e.ID, &e.Job, &e.Operation, moment{&e.At}, &e.Kind, &e.From, &e.To, &e.Sink, &e.Text)
		all = append(all, e)
		return err
	}, query, args...)
	return all, err
}

// Retention is how much of the history is kept. Of runs and events each,
// what either limit excludes goes.
type Retention struct {
	PerJob int       // the latest so many of each job; 0: no limit
	Before time.Time // nothing from before; zero: no limit
}

// Prune removes runs and events that are not to be kept, and returns how many.
// Journals and audit trails are never pruned.
func (s *Store) Prune(ctx context.Context, r Retention) (removed int64, err error) {
	if r.PerJob < 0 {
		return 0, errors.New("store: retention is negative")
	}
	for _, table := range [...]struct{ name, at string }{{"keywright_runs", "started"}, {"keywright_events", "at"}} {
		if !r.Before.IsZero() {
			n, err := s.exec(ctx, `DELETE FROM `+table.name+` WHERE `+table.at+` < ?`, r.Before)
			if removed += n; err != nil {
				return removed, err
			}
		}
		if r.PerJob > 0 {
			n, err := s.exec(ctx, `DELETE FROM `+table.name+` WHERE id IN (
				SELECT id FROM (SELECT id, ROW_NUMBER() OVER (PARTITION BY job ORDER BY id DESC) AS n FROM `+table.name+`) AS numbered WHERE n > ?)`, r.PerJob)
			if removed += n; err != nil {
				return removed, err
			}
		}
	}
	return removed, nil
}
