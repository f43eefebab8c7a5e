package store

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"
)

// Schedule is when a job is due, and what came of it last. Times are kept to
// the microsecond, in UTC; a text is kept on one line, and cut where that is
// said.
type Schedule struct {
	Job   string    // name of the job
	Due   time.Time // when it is due; zero: not by itself
	Spec  string    // what the due time was made from, as the caller writes it; any UTF-8 text without NUL
	Owner string    // the only worker that may run it; empty: any

	LastRun     time.Time // when the last run began; zero: never
	LastState   string    // what it came to
	LastProblem string    // what went wrong; cut at 2000 bytes
	Attempts    int       // runs in a row that failed

	Created time.Time // when the job was first put
	Updated time.Time // when the row was last changed
}

// Outcome is what came of a run, for [Store.SetOutcome].
type Outcome struct {
	Run      time.Time // when the run began
	State    string    // what it came to
	Problem  string    // what went wrong; empty: nothing
	Attempts int       // runs in a row that failed
	Due      time.Time // when the job is due next; zero: not by itself
}

// Put adds jobs to the schedule, or changes them, all or none. A job that is
// there keeps what came of it last, and if its Spec has not changed its due
// time too, whatever Due says. A row that does not change is not written. Put
// takes Job, Due, Spec and Owner and ignores the rest.
func (s *Store) Put(ctx context.Context, schedules ...Schedule) error {
	for i := range schedules {
		if err := checkJob(schedules[i].Job); err != nil {
			return err
		}
		if spec := schedules[i].Spec; strings.ContainsRune(spec, 0) || strings.ToValidUTF8(spec, "") != spec {
			return fmt.Errorf("store: the specification of %s is no text", schedules[i].Job)
		}
	}
	// In one order, so that two who do this do not wait for each other.
	sorted := slices.Clone(schedules)
	slices.SortStableFunc(sorted, func(a, b Schedule) int { return strings.Compare(a.Job, b.Job) })
	return s.inTx(ctx, func(t *tx) error {
		now := time.Now()
		for _, v := range sorted {
			if _, err := t.exec(ctx, `INSERT INTO keywright_schedule AS k (job, due, spec, owner, created, updated) VALUES (?, ?, ?, ?, ?, ?)
				ON CONFLICT (job) DO UPDATE SET
					due = CASE WHEN k.spec = excluded.spec THEN k.due ELSE excluded.due END,
					spec = excluded.spec, owner = excluded.owner, updated = excluded.updated
				WHERE k.spec <> excluded.spec OR k.owner <> excluded.owner`,
				v.Job, v.Due, v.Spec, clean(v.Owner, maxName), now, now); err != nil {
				return err
			}
		}
		return nil
	})
}

const scheduleColumns = `job, due, spec, owner, last_run, last_state, last_problem, attempts, created, updated`

func (s *Store) schedules(ctx context.Context, rest string, args ...any) ([]Schedule, error) {
	var all []Schedule
	err := s.rows(ctx, func(scan func(...any) error) error {
		var v Schedule
		err := scan(&v.Job, moment{&v.Due}, &v.Spec, &v.Owner, moment{&v.LastRun}, &v.LastState, &v.LastProblem, &v.Attempts, moment{&v.Created}, moment{&v.Updated})
		all = append(all, v)
		return err
	}, `SELECT `+scheduleColumns+` FROM keywright_schedule `+rest, args...)
	return all, err
}

// Due returns at most limit jobs that are due at now, the one that has been
// due for longest first.
func (s *Store) Due(ctx context.Context, now time.Time, limit int) ([]Schedule, error) {
	return s.schedules(ctx, `WHERE due IS NOT NULL AND due <= ? ORDER BY due, job LIMIT ?`, now, max(0, limit))
}

// NextDue returns when the next job is due, or has been for longest; the zero
// time if none is.
func (s *Store) NextDue(ctx context.Context) (time.Time, error) {
	var due time.Time
	err := s.row(ctx, `SELECT MIN(due) FROM keywright_schedule`).Scan(moment{&due})
	return due, s.wrap(err)
}

// List returns the whole schedule, sorted by job.
func (s *Store) List(ctx context.Context) ([]Schedule, error) {
	return s.schedules(ctx, `ORDER BY job`)
}

// Get returns one job's row, or [ErrNotFound].
func (s *Store) Get(ctx context.Context, job string) (Schedule, error) {
	all, err := s.schedules(ctx, `WHERE job = ?`, job)
	if err != nil {
		return Schedule{}, err
	}
	if len(all) == 0 {
		return Schedule{}, fmt.Errorf("%w: %s is not in the schedule", ErrNotFound, clean(job, maxName))
	}
	return all[0], nil
}

// SetDue sets when a job is due next; zero: not by itself. It returns
// [ErrNotFound] if the job is not in the schedule.
func (s *Store) SetDue(ctx context.Context, job string, due time.Time) error {
	n, err := s.exec(ctx, `UPDATE keywright_schedule SET due = ?, updated = ? WHERE job = ?`, due, time.Now(), job)
	return s.one(n, err, job)
}

// SetOutcome notes what came of a run and when the job is due next. It returns
// [ErrNotFound] if the job is not in the schedule.
func (s *Store) SetOutcome(ctx context.Context, job string, o Outcome) error {
	n, err := s.exec(ctx, `UPDATE keywright_schedule SET due = ?, last_run = ?, last_state = ?, last_problem = ?, attempts = ?, updated = ? WHERE job = ?`,
		o.Due, o.Run, clean(o.State, maxName), clean(o.Problem, maxText), o.Attempts, time.Now(), job)
	return s.one(n, err, job)
}

func (s *Store) one(n int64, err error, what any) error {
	if err == nil && n == 0 {
		return fmt.Errorf("%w: %v", ErrNotFound, what)
	}
	return err
}

// Remove removes jobs from the schedule, and returns the names of those that were
// there. It takes Job and Owner and ignores the rest: a job that has another owner
// by now stays. A job's journal stays, with what may be under way in it, and so
// does its history.
func (s *Store) Remove(ctx context.Context, schedules ...Schedule) (removed []string, err error) {
	err = s.inTx(ctx, func(t *tx) error {
		removed = nil
		for _, v := range schedules {
			n, err := t.exec(ctx, `DELETE FROM keywright_schedule WHERE job = ? AND owner = ?`, v.Job, v.Owner)
			if err != nil {
				return err
			}
			if n > 0 {
				removed = append(removed, v.Job)
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return removed, nil
}
