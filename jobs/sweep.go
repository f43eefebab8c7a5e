package jobs

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/riverqueue/river"
	"github.com/riverqueue/river/rivertype"

	"github.com/keywright/keywright/jobs/schedule"
	"github.com/keywright/keywright/jobs/store"
	"github.com/keywright/keywright/rotation"
)

// River's queues.
const (
	anyQueue   = "keywright"
	sweepQueue = "keywright_sweep"
)

// sweepArgs is a River job that looks at what is due.
type sweepArgs struct{}

// Kind names the River job.
func (sweepArgs) Kind() string { return "keywright_sweep" }

// sweepOpts: at most one waits in each interval, even if one of an interval
// before hangs. Those that are over do not count: a clock that goes back comes to
// their intervals again.
func (r *Runner) sweepOpts() *river.InsertOpts {
	return &river.InsertOpts{Queue: sweepQueue, MaxAttempts: 1, UniqueOpts: river.UniqueOpts{ByPeriod: r.sweep, ByState: liveStates}}
}

type sweepWorker struct {
	river.WorkerDefaults[sweepArgs]
	runner *Runner
}

// Work sweeps. What fails is tried again at the next sweep.
func (w *sweepWorker) Work(ctx context.Context, _ *river.Job[sweepArgs]) error {
	if err := w.runner.sweepOnce(ctx); err != nil && ctx.Err() == nil {
		w.runner.log.LogAttrs(ctx, slog.LevelWarn, "looking for due rotations failed", slog.Any("error", err))
	}
	return nil
}

// liveStates are those in which a River job is yet to end.
var liveStates = []rivertype.JobState{
	rivertype.JobStateAvailable, rivertype.JobStatePending, rivertype.JobStateRunning, rivertype.JobStateRetryable, rivertype.JobStateScheduled,
}

// liveCondition is the same to the database.
const liveCondition = `state IN ('available', 'pending', 'running', 'retryable', 'scheduled')`

// maxDue bounds what a sweep reads.
const maxDue = 50_000

// sweepOnce enqueues what is due, as far as a batch goes.
func (r *Runner) sweepOnce(ctx context.Context) error {
	r.sweeping.Lock() // two would fill a batch each
	defer r.sweeping.Unlock()
	now := r.now()
	if err := r.mend(ctx, now); err != nil {
		return err
	}
	due, err := r.store.Due(ctx, now, maxDue)
	if err != nil || len(due) == 0 {
		return err
	}
	live, err := r.live(ctx)
	if err != nil {
		return err
	}
	// What is due and has a River job waits to begin, whatever for, but for a few
	// that are about to.
	room := r.batch + r.concurrency
	for _, row := range due {
		queue, there := live[row.Job]
		if !there {
			continue
		}
		room--
		// Its owner has changed. The one before may never come back.
		if queue != ownerQueue(row.Owner) {
			if err := r.requeue(ctx, row.Job, row.Owner); err != nil {
				return err
			}
		}
	}
	if room <= 0 {
		return nil
	}
	known, err := r.allFacts(ctx)
	if err != nil {
		return err
	}
	rows, members, err := r.members(ctx, now, due, known)
	if err != nil {
		return err
	}
	return r.begin(ctx, now, members, rows, known, live, room)
}

// live returns the queues of the jobs that have a River job.
func (r *Runner) live(ctx context.Context) (map[string]string, error) {
	rows, err := r.store.SQL().QueryContext(ctx, r.store.Rebind(`SELECT `+r.dialect.jobName()+`, queue FROM river_job WHERE kind = ? AND `+liveCondition), rotateArgs{}.Kind())
	if err != nil {
		return nil, fmt.Errorf("jobs: %w", err)
	}
	defer rows.Close()
	live := make(map[string]string)
	for rows.Next() {
		var job, queue string
		if err := rows.Scan(&job, &queue); err != nil {
			return nil, fmt.Errorf("jobs: %w", err)
		}
		live[job] = queue
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("jobs: %w", err)
	}
	return live, nil
}

// members are the jobs that take turns: what is due, and for groups that have
// canaries, all of the group.
func (r *Runner) members(ctx context.Context, now time.Time, due []store.Schedule, known map[string]facts) (map[string]store.Schedule, []schedule.Member, error) {
	specs := make(map[string]*schedule.Spec) // by text: many jobs have the same
	specOf := func(text string) *schedule.Spec {
		spec, ok := specs[text]
		if !ok && text != "" {
			var err error
			if spec, err = schedule.Parse([]byte(text)); err != nil {
				spec = nil // of a newer program
			}
			specs[text] = spec
		}
		return spec
	}
	rows := make(map[string]store.Schedule, len(due))
	groups := make(map[string]bool)
	for _, row := range due {
		rows[row.Job] = row
		if spec := specOf(row.Spec); spec != nil {
			groups[spec.Group] = true
		}
	}
	all := due
	list, err := r.store.List(ctx)
	if err != nil {
		return nil, nil, err
	}
	guarded := make(map[string]bool) // groups that have canaries
	for _, row := range list {
		if spec := specOf(row.Spec); spec != nil && spec.Canary && groups[spec.Group] {
			guarded[spec.Group] = true
		}
	}
	for _, row := range list {
		if _, there := rows[row.Job]; there {
			continue
		}
		if spec := specOf(row.Spec); spec != nil && guarded[spec.Group] {
			rows[row.Job] = row
			all = append(all, row)
		}
	}
	members := make([]schedule.Member, 0, len(all))
	for _, row := range all {
		f := known[row.Job]
		m := schedule.Member{
			Name: row.Job, Due: row.Due, Planned: row.Due, Last: f.finished, FirstSeen: row.Created, Expires: f.expires,
			State: standing(row),
		}
		spec := specOf(row.Spec)
		if spec != nil {
			m.Group, m.Canary = spec.Group, spec.Canary
			_, m.Frozen, _ = spec.FrozenAt(now) // where it fails, so does Next, which tells
		} else {
			// No schedule that we know: it has no group, and waits for nobody.
			m.Group = "\x00" + row.Job
		}
		members = append(members, m)
	}
	return rows, members, nil
}

// standing is how a job stands.
func standing(row store.Schedule) schedule.State {
	switch state := row.LastState; {
	case state == StateRefused, state == StateFailed, state == string(rotation.StateStuck), state == string(rotation.StateRolledBack):
		return schedule.Failed
	case state == "", rotation.State(state).Finished():
		return schedule.Idle
	}
	return schedule.Running
}

// begin enqueues what may begin, until there is no room.
func (r *Runner) begin(ctx context.Context, now time.Time, members []schedule.Member, rows map[string]store.Schedule, known map[string]facts, live map[string]string, room int) error {
	// What has failed, and is to be tried again, has had its turn, and so has
	// what is under way, whose River job is late, or lost.
	var turns []schedule.Turn
	for _, m := range members {
		if live[m.Name] == "" && m.State != schedule.Idle && !m.Due.IsZero() && !m.Due.After(now) {
			turns = append(turns, schedule.Turn{Name: m.Name, Begin: true})
		}
	}
	for _, t := range schedule.Order(now, members) {
		if t.Begin && live[t.Name] == "" {
			turns = append(turns, t)
		}
	}
	enqueued := 0
	for rest := turns; len(rest) > 0 && enqueued < room; {
		chunk := rest[:min(len(rest), room-enqueued, 100)]
		rest = rest[len(chunk):]
		args, owners := make([]rotateArgs, len(chunk)), make([]string, len(chunk))
		for i, t := range chunk {
			row := rows[t.Name]
			args[i] = rotateArgs{Job: t.Name, Generation: known[t.Name].generation, Force: row.Due.IsZero() || row.Due.After(now)}
			owners[i] = row.Owner
		}
		n, err := r.enqueue(ctx, args, owners)
		if err != nil {
			return err
		}
		enqueued += n
	}
	if enqueued > 0 {
		r.log.LogAttrs(ctx, slog.LevelInfo, "rotations are due", slog.Int("enqueued", enqueued), slog.Int("due", len(turns)))
	}
	return nil
}

// farAhead is how far ahead a time may be of what has happened, because clocks
// differ, or were set back.
const farAhead = 48 * time.Hour

// mend takes back what was written down while the clock was far ahead, as after a
// start without a battery: it counts as if it had happened now. Else such jobs
// would not be due for as long as the clock was ahead. What was less far ahead is
// left alone: the next rotation is later by that.
func (r *Runner) mend(ctx context.Context, now time.Time) error {
	rows, err := r.store.SQL().QueryContext(ctx, r.store.Rebind(`SELECT k.job FROM keywright_schedule AS k LEFT JOIN keywright_facts AS f ON f.job = k.job
		WHERE k.created > ? OR k.last_run > ? OR f.finished > ? OR f.looked > ?`),
		r.dialect.time(now.Add(farAhead)), r.dialect.time(now.Add(farAhead)), now.Add(farAhead).UnixMicro(), now.Add(farAhead).UnixMicro())
	if err != nil {
		return fmt.Errorf("jobs: %w", err)
	}
	defer rows.Close()
	var jobs []string
	for rows.Next() {
		var job string
		if err := rows.Scan(&job); err != nil {
			return fmt.Errorf("jobs: %w", err)
		}
		jobs = append(jobs, job)
	}
	if err := errors.Join(rows.Err(), rows.Close()); err != nil {
		return fmt.Errorf("jobs: %w", err)
	}
	for _, job := range jobs {
		if err := r.mend1(ctx, job, now); err != nil {
			return err
		}
	}
	if len(jobs) > 0 {
		r.log.LogAttrs(ctx, slog.LevelWarn, "the clock was far ahead: jobs that had run then count as run now", slog.Int("jobs", len(jobs)))
	}
	return nil
}

func (r *Runner) mend1(ctx context.Context, job string, now time.Time) error {
	row, err := r.store.Get(ctx, job)
	if errors.Is(err, store.ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	f, _, err := r.facts(ctx, job)
	if err != nil {
		return err
	}
	row.Created, row.LastRun, f.finished, f.looked = minTime(row.Created, now), minTime(row.LastRun, now), minTime(f.finished, now), minTime(f.looked, now)
	due := row.Due
	if spec, err := schedule.Parse([]byte(row.Spec)); err == nil {
		if at, _, err := r.nextOf(spec, job, f, row.Created, now); err == nil && !at.IsZero() {
			due = minTime(due, at)
		}
	}
	if err := r.setFacts(ctx, job, f); err != nil {
		return err
	}
	if err := r.store.SetDue(ctx, job, due); err != nil && !errors.Is(err, store.ErrNotFound) {
		return err
	}
	var last any
	if !row.LastRun.IsZero() {
		last = r.dialect.time(row.LastRun)
	}
	_, err = r.store.SQL().ExecContext(ctx, r.store.Rebind(`UPDATE keywright_schedule SET created = ?, last_run = ? WHERE job = ?`), r.dialect.time(row.Created), last, job)
	if err != nil {
		return fmt.Errorf("jobs: %w", err)
	}
	return nil
}

// time is a time as the database has it.
func (d dialect) time(t time.Time) any {
	if d.many {
		return t.UTC()
	}
	return t.UnixMicro()
}

func minTime(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}

// requeue puts a job's River job into its owner's queue. One that is running is
// there when it waits again.
func (r *Runner) requeue(ctx context.Context, job, owner string) error {
	_, err := r.store.SQL().ExecContext(ctx, r.store.Rebind(`UPDATE river_job SET queue = ?
		WHERE kind = ? AND `+liveCondition+` AND `+r.dialect.matchJob()), ownerQueue(owner), rotateArgs{}.Kind(), job)
	if err != nil {
		return fmt.Errorf("jobs: %w", err)
	}
	return nil
}

// enqueue makes River jobs, in order, and returns how many there were none of
// before.
func (r *Runner) enqueue(ctx context.Context, args []rotateArgs, owners []string) (added int, err error) {
	params := make([]river.InsertManyParams, len(args))
	for i := range args {
		params[i] = river.InsertManyParams{Args: args[i], InsertOpts: &river.InsertOpts{
			Queue: ownerQueue(owners[i]), UniqueOpts: river.UniqueOpts{ByArgs: true, ByState: liveStates},
		}}
	}
	to, err := r.inserter()
	if err != nil {
		return 0, fmt.Errorf("jobs: river: %w", err)
	}
	results, err := to.InsertMany(ctx, params)
	if err != nil {
		return 0, fmt.Errorf("jobs: river: %w", err)
	}
	for _, result := range results {
		if !result.UniqueSkippedAsDuplicate {
			added++
		}
	}
	return added, nil
}

// jobName is the name of a River job's job.
func (d dialect) jobName() string {
	if d.many {
		return `args->>'job'`
	}
	return `json_extract(args, '$.job')`
}

// matchJob is whether a River job is that of a job.
func (d dialect) matchJob() string { return d.jobName() + ` = ?` }

// now is River's clock.
func (d dialect) now() string {
	if d.many {
		return `now()`
	}
	return `datetime('now', 'subsec')`
}

// cancel takes a job's River job away, unless it is running.
func (r *Runner) cancel(ctx context.Context, job string) (live bool, err error) {
	d := r.dialect
	if _, err := r.store.SQL().ExecContext(ctx, r.store.Rebind(`UPDATE river_job SET state = 'cancelled', finalized_at = `+d.now()+`
		WHERE kind = ? AND state IN ('available', 'pending', 'retryable', 'scheduled') AND `+d.matchJob()), rotateArgs{}.Kind(), job); err != nil {
		return false, fmt.Errorf("jobs: %w", err)
	}
	// One that was running may wait again by now.
	var n int
	if err := r.store.SQL().QueryRowContext(ctx, r.store.Rebind(`SELECT COUNT(*) FROM river_job
		WHERE kind = ? AND `+liveCondition+` AND `+d.matchJob()), rotateArgs{}.Kind(), job).Scan(&n); err != nil {
		return false, fmt.Errorf("jobs: %w", err)
	}
	return n > 0, nil
}

// force makes a job's River job, if there is one, begin the rotation, and at
// once if it waits. A step that is running does not know of that.
func (r *Runner) force(ctx context.Context, args rotateArgs) (running bool, err error) {
	text, err := json.Marshal(args)
	if err != nil {
		return false, fmt.Errorf("jobs: %w", err)
	}
	d, to, earlier := r.dialect, `?`, `min`
	if d.many {
		to, earlier = `CAST(? AS JSONB)`, `least`
	}
	err = r.store.SQL().QueryRowContext(ctx, r.store.Rebind(`UPDATE river_job SET args = `+to+`,
			scheduled_at = CASE state WHEN 'running' THEN scheduled_at ELSE `+earlier+`(scheduled_at, `+d.now()+`) END,
			state = CASE WHEN state IN ('scheduled', 'retryable') THEN 'available' ELSE state END
		WHERE kind = ? AND `+liveCondition+` AND `+d.matchJob()+` RETURNING state = 'running'`), text, args.Kind(), args.Job).Scan(&running)
	if errors.Is(err, sql.ErrNoRows) {
		return true, nil // it has just ended
	}
	if err != nil {
		return false, fmt.Errorf("jobs: %w", err)
	}
	return running, nil
}
