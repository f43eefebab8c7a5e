package jobs

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
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

// sweepOpts: at most one in each interval, whatever became of the one before.
func (r *Runner) sweepOpts() *river.InsertOpts {
	return &river.InsertOpts{Queue: sweepQueue, MaxAttempts: 1, UniqueOpts: river.UniqueOpts{ByPeriod: r.sweep}}
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

// maxDue bounds what a sweep reads.
const maxDue = 50_000

// sweepOnce enqueues what is due, as far as a batch goes.
func (r *Runner) sweepOnce(ctx context.Context) error {
	r.sweeping.Lock() // two would fill a batch each
	defer r.sweeping.Unlock()
	now := r.now()
	due, err := r.store.Due(ctx, now, maxDue)
	if err != nil || len(due) == 0 {
		return err
	}
	live, waiting, err := r.live(ctx)
	if err != nil {
		return err
	}
	room := r.batch - waiting
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

// live returns the jobs that have a River job, and how many of those wait to
// begin.
func (r *Runner) live(ctx context.Context) (live map[string]bool, waiting int, err error) {
	name := `json_extract(args, '$.job')`
	if r.dialect.many {
		name = `args->>'job'`
	}
	rows, err := r.store.SQL().QueryContext(ctx, r.dialect.bind(`SELECT `+name+`, state = 'available' FROM river_job
		WHERE kind = ? AND state IN ('available', 'pending', 'running', 'retryable', 'scheduled')`), rotateArgs{}.Kind())
	if err != nil {
		return nil, 0, fmt.Errorf("jobs: %w", err)
	}
	defer rows.Close()
	live = make(map[string]bool)
	for rows.Next() {
		var job string
		var waits bool
		if err := rows.Scan(&job, &waits); err != nil {
			return nil, 0, fmt.Errorf("jobs: %w", err)
		}
		live[job] = true
		if waits {
			waiting++
		}
	}
	if err := rows.Err(); err != nil {
		return nil, 0, fmt.Errorf("jobs: %w", err)
	}
	return live, waiting, nil
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
			if _, m.Frozen, err = spec.FrozenAt(now); err != nil {
				return nil, nil, fmt.Errorf("jobs: %s: %w", row.Job, err)
			}
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
	case state == StateRefused, state == StateFailed, state == string(rotation.StateStuck):
		return schedule.Failed
	case state == "", rotation.State(state).Finished():
		return schedule.Idle
	}
	return schedule.Running
}

// begin enqueues what may begin, until there is no room.
func (r *Runner) begin(ctx context.Context, now time.Time, members []schedule.Member, rows map[string]store.Schedule, known map[string]facts, live map[string]bool, room int) error {
	// What has failed, and is to be tried again, has had its turn, and so has
	// what is under way, whose River job is late, or lost.
	var turns []schedule.Turn
	for _, m := range members {
		if !live[m.Name] && m.State != schedule.Idle && !m.Due.IsZero() && !m.Due.After(now) {
			turns = append(turns, schedule.Turn{Name: m.Name, Begin: true})
		}
	}
	for _, t := range schedule.Order(now, members) {
		if t.Begin && !live[t.Name] {
			turns = append(turns, t)
		}
	}
	enqueued := 0
	for chunk := range slices.Chunk(turns, min(room, 100)) {
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
		if enqueued += n; enqueued >= room {
			break
		}
	}
	if enqueued > 0 {
		r.log.LogAttrs(ctx, slog.LevelInfo, "rotations are due", slog.Int("enqueued", enqueued), slog.Int("due", len(turns)))
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
	results, err := r.river.InsertMany(ctx, params)
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

// wake lets a job's River job begin at once, if it waits.
func (r *Runner) wake(ctx context.Context, job string) error {
	now := `datetime('now', 'subsec')`
	match := `json_extract(args, '$.job') = ?`
	if r.dialect.many {
		now, match = `now()`, `args->>'job' = ?`
	}
	_, err := r.store.SQL().ExecContext(ctx, r.dialect.bind(`UPDATE river_job SET state = 'available', scheduled_at = `+now+`
		WHERE kind = ? AND state IN ('available', 'scheduled', 'retryable') AND scheduled_at > `+now+` AND `+match), rotateArgs{}.Kind(), job)
	if err != nil {
		return fmt.Errorf("jobs: %w", err)
	}
	return nil
}
