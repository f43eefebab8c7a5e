package jobs

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/riverqueue/river"
	"github.com/riverqueue/river/riverdriver"
	"github.com/riverqueue/river/riverdriver/riverpgxv5"
	"github.com/riverqueue/river/riverdriver/riversqlite"
	"github.com/riverqueue/river/rivermigrate"
	"github.com/riverqueue/river/rivertype"

	"github.com/keywright/keywright/jobs/store"
)

// dialect is where the two databases differ.
type dialect struct {
	many bool // several processes work it
}

func dialectOf(st *store.Store) dialect { return dialect{many: st.Pool() != nil} }

// queue is River, whatever the driver.
type queue interface {
	Start(ctx context.Context) error
	Stop(ctx context.Context) error
	StopAndCancel(ctx context.Context) error
	Stopped() <-chan struct{}
	InsertMany(ctx context.Context, params []river.InsertManyParams) ([]*rivertype.JobInsertResult, error)
}

// newQueue returns River on the store's database.
func (r *Runner) newQueue() (queue, error) {
	workers := river.NewWorkers()
	river.AddWorker(workers, &rotateWorker{runner: r})
	river.AddWorker(workers, &sweepWorker{runner: r})
	config := &river.Config{
		// River wants an id that no process before has had, of at most 100 bytes.
		ID: strings.ToValidUTF8(r.workerID[:min(80, len(r.workerID))], "") + "-" + strconv.FormatUint(rand.Uint64(), 36),
		Queues: map[string]river.QueueConfig{
			anyQueue:               {MaxWorkers: r.concurrency},
			ownerQueue(r.workerID): {MaxWorkers: r.concurrency},
			sweepQueue:             {MaxWorkers: 1},
		},
		Workers:                     workers,
		JobTimeout:                  r.step,
		RescueStuckJobsAfter:        r.rescue,
		CompletedJobRetentionPeriod: time.Hour,
		DiscardedJobRetentionPeriod: 24 * time.Hour,
		FetchPollInterval:           r.poll,
		FetchCooldown:               min(r.poll, 100*time.Millisecond),
		PeriodicJobs: []*river.PeriodicJob{river.NewPeriodicJob(
			river.PeriodicInterval(r.sweep),
			func() (river.JobArgs, *river.InsertOpts) { return sweepArgs{}, r.sweepOpts() },
			&river.PeriodicJobOpts{RunOnStart: true, ID: sweepQueue},
		)},
		Logger:   quiet(r.log),
		TestOnly: r.fast,
	}
	if r.dialect.many {
		return river.NewClient(riverpgxv5.New(r.store.Pool()), config)
	}
	return river.NewClient(riversqlite.New(r.store.SQL()), config)
}

// migrate makes River's tables. Of several workers one does.
func (r *Runner) migrate(ctx context.Context) error {
	var err error
	if r.dialect.many {
		unlock, lockErr := r.limits.lock(ctx)
		if lockErr != nil {
			return lockErr
		}
		err = errors.Join(migrateRiver(ctx, riverpgxv5.New(r.store.Pool())), unlock(context.WithoutCancel(ctx)))
	} else {
		err = migrateRiver(ctx, riversqlite.New(r.store.SQL()))
	}
	if err != nil {
		return fmt.Errorf("jobs: the tables could not be made: %w", err)
	}
	return nil
}

func migrateRiver[Tx any](ctx context.Context, driver riverdriver.Driver[Tx]) error {
	m, err := rivermigrate.New(driver, &rivermigrate.Config{Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		return err
	}
	_, err = m.Migrate(ctx, rivermigrate.DirectionUp, nil)
	return err
}

// reclaim takes back, on a database of one process, what the process before has
// left running, and the leadership that it had. Whatever it is, that process has
// ended, because this one has its lock. What it was doing is in the journal.
func (r *Runner) reclaim(ctx context.Context) error {
	if r.dialect.many {
		return nil // River's rescue does it
	}
	tx, err := r.store.SQL().BeginTx(ctx, nil)
	if err != nil {
		return fmt.Errorf("jobs: %w", err)
	}
	defer func() { _ = tx.Rollback() }() // after a commit it does nothing
	var n int64
	for _, s := range [...]struct {
		query string
		args  []any
	}{
		{`UPDATE river_job SET state = 'available', attempt = max(attempt - 1, 0), scheduled_at = datetime('now', 'subsec')
			WHERE state = 'running' AND kind = ?`, []any{rotateArgs{}.Kind()}},
		// Not deleted: if somebody still completes it, River panics at a row that
		// is gone, or completes the one that has its id now.
		{`UPDATE river_job SET state = 'discarded', finalized_at = datetime('now', 'subsec')
			WHERE kind = ? AND state NOT IN ('completed', 'cancelled', 'discarded')`, []any{sweepArgs{}.Kind()}},
		{`DELETE FROM river_leader`, nil},
	} {
		result, err := tx.ExecContext(ctx, s.query, s.args...)
		if err != nil {
			return fmt.Errorf("jobs: what was left running could not be taken back: %w", err)
		}
		if k, err := result.RowsAffected(); err == nil && n == 0 && s.args != nil && s.args[0] == (rotateArgs{}).Kind() {
			n = k
		}
	}
	if err := tx.Commit(); err != nil {
		return fmt.Errorf("jobs: %w", err)
	}
	if n > 0 {
		r.log.LogAttrs(ctx, slog.LevelInfo, "took back what was left running", slog.Int64("jobs", n))
	}
	return nil
}

// facts are what this package remembers of a job beside its schedule.
type facts struct {
	generation int       // rotations finished that were written down
	finished   time.Time // when the latest was
	issued     time.Time // when the token in use was
	expires    time.Time // when the key in use expires; zero: never, or not known
	looked     time.Time // when that was asked; zero: never
	run        int64     // the run of the history that is under way; 0: none
}

func micros(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMicro()
}

func fromMicros(us int64) time.Time {
	if us == 0 {
		return time.Time{}
	}
	return time.UnixMicro(us).UTC()
}

const factsColumns = `generation, finished, issued, expires, looked, run`

func scanFacts(scan func(...any) error, job *string) (f facts, err error) {
	var finished, issued, expires, looked int64
	to := []any{&f.generation, &finished, &issued, &expires, &looked, &f.run}
	if job != nil {
		to = append([]any{job}, to...)
	}
	err = scan(to...)
	f.finished, f.issued, f.expires, f.looked = fromMicros(finished), fromMicros(issued), fromMicros(expires), fromMicros(looked)
	return f, err
}

func (r *Runner) facts(ctx context.Context, job string) (f facts, known bool, err error) {
	f, err = scanFacts(r.store.SQL().QueryRowContext(ctx, r.store.Rebind(`SELECT `+factsColumns+` FROM keywright_facts WHERE job = ?`), job).Scan, nil)
	if errors.Is(err, sql.ErrNoRows) {
		return facts{}, false, nil
	}
	if err != nil {
		return facts{}, false, fmt.Errorf("jobs: %w", err)
	}
	return f, true, nil
}

func (r *Runner) allFacts(ctx context.Context) (map[string]facts, error) {
	rows, err := r.store.SQL().QueryContext(ctx, `SELECT job, `+factsColumns+` FROM keywright_facts`)
	if err != nil {
		return nil, fmt.Errorf("jobs: %w", err)
	}
	defer rows.Close()
	all := make(map[string]facts)
	for rows.Next() {
		var job string
		f, err := scanFacts(rows.Scan, &job)
		if err != nil {
			return nil, fmt.Errorf("jobs: %w", err)
		}
		all[job] = f
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("jobs: %w", err)
	}
	return all, nil
}

// execer is a database or a transaction of it.
type execer interface {
	ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error)
}

func (r *Runner) setFacts(ctx context.Context, job string, f facts) error {
	return r.writeFacts(ctx, r.store.SQL(), job, f)
}

func (r *Runner) writeFacts(ctx context.Context, to execer, job string, f facts) error {
	_, err := to.ExecContext(ctx, r.store.Rebind(`INSERT INTO keywright_facts (job, `+factsColumns+`) VALUES (?, ?, ?, ?, ?, ?, ?)
		ON CONFLICT (job) DO UPDATE SET generation = excluded.generation, finished = excluded.finished, issued = excluded.issued,
			expires = excluded.expires, looked = excluded.looked, run = excluded.run`),
		job, f.generation, micros(f.finished), micros(f.issued), micros(f.expires), micros(f.looked), f.run)
	if err != nil {
		return fmt.Errorf("jobs: %w", err)
	}
	return nil
}

// setAllFacts writes those of many jobs, all or none.
func (r *Runner) setAllFacts(ctx context.Context, all map[string]facts) error {
	if len(all) == 0 {
		return nil
	}
	tx, err := r.store.SQL().BeginTx(ctx, nil)
	if err != nil {
		return fmt.Errorf("jobs: %w", err)
	}
	defer func() { _ = tx.Rollback() }() // after a commit it does nothing
	for _, job := range slices.Sorted(maps.Keys(all)) {
		if err := r.writeFacts(ctx, tx, job, all[job]); err != nil {
			return err
		}
	}
	if err := tx.Commit(); err != nil {
		return fmt.Errorf("jobs: %w", err)
	}
	return nil
}
