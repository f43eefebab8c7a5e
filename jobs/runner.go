package jobs

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"maps"
	"os"
	"regexp"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/keywright/keywright/jobs/schedule"
	"github.com/keywright/keywright/jobs/store"
	"github.com/keywright/keywright/rotation"
)

// Classes of errors, for errors.Is.
var (
	// ErrNotRunning: the runner was not started, or was stopped.
	ErrNotRunning = errors.New("jobs: the runner is not running")
	// ErrUnknown: no such job is registered, nor in the schedule.
	ErrUnknown = errors.New("jobs: no such job")
	// ErrOwner: the job may only run on the worker that owns it.
	ErrOwner = errors.New("jobs: the job needs its owner")
	// ErrWorkerID: another worker of the database has this id.
	ErrWorkerID = errors.New("jobs: another worker has this id")
	// ErrJob: a job cannot be registered as it is.
	ErrJob = errors.New("jobs: the job is not what it should be")
)

// Job is a rotation job with its schedule.
type Job struct {
	rotation.Job

	// Schedule is when the key is rotated; nil: not by itself, only by
	// [Runner.Trigger]. It is not to be changed.
	Schedule *schedule.Spec

	// Owner is the id of the only worker that runs the job; empty: any. On
	// PostgreSQL it is required if [NeedsOwner] is true of the strategy.
	Owner string

	// Expires, if not nil, asks when the key in use expires; zero: never. It
	// is asked when the schedule depends on it: before the first rotation, after
	// each, and daily while that is not known. Nil: the provider is asked,
	// where the strategy is one of package rotation's.
	Expires func(ctx context.Context) (time.Time, error)

	// Err, if not nil, says why the job could not be made, as of a token that
	// is not there. It is shown in the job's place, and the job is not run.
	Err error
}

// From makes jobs of what jobfile.File.All returns: one that could not be made
// has its error in Job.Err. complete fills in the rest, such as the schedule; it
// may be nil.
func From(jobs iter.Seq2[rotation.Job, error], complete func(*Job)) iter.Seq[Job] {
	return func(yield func(Job) bool) {
		for made, err := range jobs {
			job := Job{Job: made, Err: err}
			if complete != nil {
				complete(&job)
			}
			if !yield(job) {
				return
			}
		}
	}
}

// NeedsOwner reports whether a strategy's jobs may only run on one worker: its
// calls would do harm if a worker that was paused sent them after another has
// taken the job over. It is true of RicloudOverlap and AceDataInPlace, and of
// every other strategy whose old token does not last until it is retired.
func NeedsOwner(s rotation.Strategy) bool {
	t := s.Traits()
	return t.Outage || t.Overlap != rotation.UntilRetired
}

// Runner runs rotation jobs. Make one with [New]; it is safe for concurrent use.
type Runner struct {
	options
	store    *store.Store
	engine   *rotation.Engine
	recorder atomic.Pointer[store.Recorder] // nil until it starts
	dialect  dialect
	river    queue

	limits *limiter

	sweeping sync.Mutex
	changing sync.Mutex // of the jobs, by Register, Reload and Start: one at a time
	unlock   []func() error

	mu      sync.Mutex
	state   runnerState
	abort   context.CancelFunc // of Start
	started chan struct{}      // closed when Start is over
	ended   chan struct{}      // closed when Stop is over
	jobs    map[string]*registered
	running map[string]bool // steps of this worker, by job
}

type runnerState int

const (
	stateNew runnerState = iota
	stateStarting
	stateRunning
	stateStopped
)

// registered is a job as this worker knows it. It does not change.
type registered struct {
	Job
	traits rotation.Traits
	spec   string // of the schedule's row
}

// by is the job with the schedule that its row has: another worker, or this one
// meanwhile, may know a newer configuration.
func (g *registered) by(spec string) *registered {
	if spec == g.spec {
		return g
	}
	newer := *g
	newer.spec, newer.Schedule = spec, nil
	if spec != "" {
		var err error
		if newer.Schedule, err = schedule.Parse([]byte(spec)); err != nil {
			return g // of a newer program
		}
	}
	return &newer
}

// New returns a runner on the store's database, which it does not close. It
// does no I/O. [WithSealer] is required.
func New(st *store.Store, opts ...Option) (*Runner, error) {
	if st == nil {
		return nil, errors.New("jobs: a store is required")
	}
	if pool := st.Pool(); pool != nil && pool.Config().MaxConns < 2 {
		return nil, errors.New("jobs: the pool needs two connections at least: one keeps locks")
	}
	r := &Runner{
		options: options{
			concurrency: DefaultConcurrency, sweep: DefaultSweep, batch: DefaultBatch, step: DefaultStep, wait: DefaultWait,
			rescue: DefaultRescue, limits: make(map[string]Limit), log: slog.New(slog.DiscardHandler), now: time.Now, poll: time.Second,
		},
		store: st, dialect: dialectOf(st),
		started: make(chan struct{}), ended: make(chan struct{}),
		jobs: make(map[string]*registered), running: make(map[string]bool),
	}
	for _, opt := range opts {
		if err := opt(&r.options); err != nil {
			return nil, err
		}
	}
	if r.sealer == nil {
		return nil, errors.New("jobs: a sealer is required, see WithSealer")
	}
	if r.rescue <= r.step {
		return nil, errors.New("jobs: the rescue time must be longer than a step's")
	}
	if r.grace == 0 {
		r.grace = r.step
	}
	if r.workerID == "" {
		host, err := os.Hostname()
		if err != nil || host == "" {
			return nil, fmt.Errorf("jobs: the host has no name, see WithWorkerID: %w", err)
		}
		r.workerID = host[:min(100, len(host))]
	}
	engine, err := rotation.Open("", slices.Concat(
		[]rotation.Option{rotation.WithSealer(r.sealer), rotation.WithObserver(r.observe)},
		r.options.engine,
		[]rotation.Option{rotation.WithJournal(st.Journal(r.workerID))},
	)...)
	if err != nil {
		return nil, err
	}
	r.engine = engine
	return r, nil
}

// WorkerID returns this worker's id.
func (r *Runner) WorkerID() string { return r.workerID }

// Engine returns the runner's engine, whose journal is the store's: for what a
// person does, such as a plan or a rollback. A job that a worker has at work is
// busy.
func (r *Runner) Engine() *rotation.Engine { return r.engine }

// Register adds jobs, or replaces those of the same name, whose due time stays
// if the schedule is the same. Before [Runner.Start] it does no I/O.
//
// The error matches [ErrJob], or [ErrOwner] for a job that needs an owner and
// names none; such jobs are registered all the same, to be shown, and not run,
// unless it is the name that is wrong or there twice. Any other error is the database's.
func (r *Runner) Register(ctx context.Context, jobs ...Job) error {
	r.changing.Lock()
	defer r.changing.Unlock()
	_, err := r.register(ctx, slices.Values(jobs))
	return err
}

// Reload registers jobs as [Runner.Register] does, and forgets the others that
// this worker knew, and on SQLite, where there is no other worker, all others:
// they leave the schedule, and the journal and history of each stays. One whose
// rotation is under way stays in the schedule, to be shown, and goes on when it
// is registered again. If it fails for a reason of a job's, the others are
// registered.
func (r *Runner) Reload(ctx context.Context, jobs iter.Seq[Job]) error {
	r.changing.Lock()
	defer r.changing.Unlock()
	names, err := r.register(ctx, jobs)
	if err != nil && names == nil {
		return err
	}
	keep := make(map[string]bool, len(names))
	for _, name := range names {
		keep[name] = true
	}
	gone := make(map[string]bool)
	r.mu.Lock()
	maps.DeleteFunc(r.jobs, func(name string, _ *registered) bool {
		gone[name] = !keep[name]
		return !keep[name]
	})
	running := r.state == stateRunning
	r.mu.Unlock()
	if !running {
		return err
	}
	return errors.Join(err, r.forget(ctx, func(row store.Schedule) bool {
		return !keep[row.Job] && (row.Owner == "" || row.Owner == r.workerID) && (gone[row.Job] || !r.dialect.many)
	}))
}

// validName is what package rotation and the store want of a name.
var validName = regexp.MustCompile(`^[A-Za-z0-9_-][A-Za-z0-9._-]{0,99}$`)

// register returns the names, nil if the database failed.
func (r *Runner) register(ctx context.Context, jobs iter.Seq[Job]) (names []string, problems error) {
	names = []string{}
	var errs []error
	added := make(map[string]*registered)
	for job := range jobs {
		g := &registered{Job: job}
		if !validName.MatchString(job.Name) {
			errs = append(errs, fmt.Errorf("%w: a name has 1 to 100 letters, digits, hyphens, underscores and dots, no dot first", ErrJob))
			continue
		}
		if added[job.Name] != nil {
			errs = append(errs, fmt.Errorf("%w: two jobs are named %s", ErrJob, job.Name))
			continue
		}
		if err := g.check(r.dialect.many); err != nil {
			g.Err = err
			if job.Err == nil {
				errs = append(errs, err)
			}
		}
		added[job.Name] = g
		names = append(names, job.Name)
	}
	r.mu.Lock()
	running := r.state == stateRunning
	if !running {
		maps.Copy(r.jobs, added)
	}
	r.mu.Unlock()
	if running {
		if err := r.put(ctx, added); err != nil {
			return nil, errors.Join(append(errs, err)...)
		}
		r.mu.Lock()
		maps.Copy(r.jobs, added)
		r.mu.Unlock()
	}
	return names, errors.Join(errs...)
}

// check fills in what follows from the job, and returns why it cannot be run.
func (g *registered) check(many bool) error {
	if g.Schedule != nil {
		if err := g.Schedule.Validate(); err != nil {
			return fmt.Errorf("%w: %s: %w", ErrJob, g.Name, err)
		}
		b, err := json.Marshal(g.Schedule)
		if err != nil {
			return fmt.Errorf("%w: %s: %w", ErrJob, g.Name, err)
		}
		g.spec = string(b)
	}
	if g.Err != nil {
		return g.Err
	}
	if g.Strategy == nil {
		return fmt.Errorf("%w: %s has no strategy", ErrJob, g.Name)
	}
	g.traits = g.Strategy.Traits()
	if many && g.Owner == "" && NeedsOwner(g.Strategy) {
		return fmt.Errorf("%w: %s rotates by %s, whose calls do harm if a worker that was paused sends them late: name the worker that owns it", ErrOwner, g.Name, g.traits.Name)
	}
	return nil
}

// put writes jobs to the schedule.
func (r *Runner) put(ctx context.Context, jobs map[string]*registered) error {
	if len(jobs) == 0 {
		return nil
	}
	rows, err := r.store.List(ctx)
	if err != nil {
		return err
	}
	before := make(map[string]store.Schedule, len(rows))
	for _, row := range rows {
		before[row.Job] = row
	}
	known, err := r.allFacts(ctx)
	if err != nil {
		return err
	}
	now := r.now()
	fresh := make(map[string]facts)
	var puts []store.Schedule
	moved := make(map[string]string) // owners
	for _, g := range jobs {
		row, there := before[g.Name]
		if there && row.Spec == g.spec && row.Owner == g.Owner {
			continue
		}
		if there && row.Owner != g.Owner {
			moved[g.Name] = g.Owner
		}
		f, noted := known[g.Name]
		underWay := there && standing(row) == schedule.Running
		if !there || !noted || standing(row) == schedule.Failed {
			// It may have been rotated by somebody else with this journal, or was
			// forgotten while it was, or has failed in the middle.
			status, err := r.engine.Status(ctx, g.Name)
			if err != nil && !errors.Is(err, rotation.ErrJournal) && !errors.Is(err, rotation.ErrRefused) {
				return err // else its own rotation says so, and only that
			}
			if err == nil && !noted {
				f = facts{generation: status.Generation, finished: status.Finished, issued: status.Issued}
				fresh[g.Name] = f
			}
			underWay = err == nil && !status.State.Finished()
		}
		first := row.Created
		if !there {
			first = now
		}
		due, reason, err := r.next(g, f, first, now)
		switch {
		case underWay && !row.Due.IsZero():
			due = row.Due
		case underWay:
			due = now
		case err != nil:
			r.log.LogAttrs(ctx, slog.LevelWarn, "the job is not due by itself", slog.String("job", g.Name), slog.String("reason", reason))
		}
		puts = append(puts, store.Schedule{Job: g.Name, Due: due, Spec: g.spec, Owner: g.Owner})
	}
	// The facts are first: without them a rotation that is known would be taken
	// for one that was not written down.
	if err := r.setAllFacts(ctx, fresh); err != nil || len(puts) == 0 {
		return err
	}
	if err := r.store.Put(ctx, puts...); err != nil {
		return err
	}
	for job, owner := range moved {
		if err := r.requeue(ctx, job, owner); err != nil {
			return err
		}
	}
	return nil
}

// next returns when a job is due, and why then. A key whose expiry matters, and
// is not known, is to be looked at now.
func (r *Runner) next(g *registered, f facts, first, now time.Time) (time.Time, string, error) {
	if g.Schedule == nil {
		return time.Time{}, "no schedule", nil
	}
	if g.Schedule.BeforeExpiry != "" && f.looked.IsZero() {
		return now, "to ask when the key expires", nil
	}
	return r.nextOf(g.Schedule, g.Name, f, first, now)
}

// nextOf is the schedule's next time. One that was missed keeps the time that it
// had.
func (r *Runner) nextOf(spec *schedule.Spec, job string, f facts, first, now time.Time) (time.Time, string, error) {
	due, err := spec.Next(schedule.Input{Job: job, Last: f.finished, FirstSeen: first, Expires: f.expires, Now: now})
	if err != nil {
		return time.Time{}, err.Error(), fmt.Errorf("jobs: %s: %w", job, err)
	}
	at := due.At
	if !at.IsZero() && !at.After(now) && !due.Planned.IsZero() && due.Planned.Before(at) {
		at = due.Planned
	}
	if at.IsZero() && spec.BeforeExpiry != "" {
		at = now.Add(DefaultLook) // the key may be given an expiry
	}
	return at, due.Reason, nil
}

// Start takes the database up: it migrates River's tables, takes back what a
// dead process left running on SQLite, writes the registered jobs to the
// schedule, and begins to work. It returns when that is done; the work goes on
// until [Runner.Stop], whatever becomes of ctx.
//
// The error matches [store.ErrLocked] if another process works the SQLite
// database, and [ErrWorkerID] if another worker has this one's id.
func (r *Runner) Start(ctx context.Context) error {
	r.changing.Lock()
	defer r.changing.Unlock()
	r.mu.Lock()
	if r.state != stateNew {
		r.mu.Unlock()
		return errors.New("jobs: a runner is started once")
	}
	ctx, r.abort = context.WithCancel(ctx)
	defer r.abort()
	r.state = stateStarting
	r.mu.Unlock()
	defer close(r.started)
	err := r.start(ctx)
	if err != nil {
		err = errors.Join(err, r.release(context.WithoutCancel(ctx)))
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if err != nil {
		r.state = stateStopped
		close(r.ended)
		return err
	}
	r.state = stateRunning
	r.log.LogAttrs(ctx, slog.LevelInfo, "rotation worker started", slog.String("worker", r.workerID), slog.Int("jobs", len(r.jobs)))
	return nil
}

func (r *Runner) start(ctx context.Context) error {
	unlock, err := r.store.Exclusive(ctx)
	if err != nil {
		return err
	}
	r.unlock = append(r.unlock, unlock)
	r.recorder.Store(r.store.Recorder())
	r.limits = newLimiter(r.store, r.options.limits)
	r.unlock = append(r.unlock, r.limits.close)
	if err := r.limits.claim(ctx, r.workerID); err != nil {
		return err
	}
	if err := r.migrate(ctx); err != nil {
		return err
	}
	queue, err := r.newQueue()
	if err != nil {
		return fmt.Errorf("jobs: river: %w", err)
	}
	r.mu.Lock()
	r.river = queue
	r.mu.Unlock()
	if err := r.reclaim(ctx); err != nil {
		return err
	}
	if err := r.put(ctx, r.jobs); err != nil {
		return err
	}
	if err := r.river.Start(context.WithoutCancel(ctx)); err != nil {
		return fmt.Errorf("jobs: river: %w", err)
	}
	return nil
}

// Stop ends the work: no step begins any more, and running ones have as long as
// [WithGrace] says, or until ctx ends; then they are cancelled, which leaves
// their rotations to be resumed. It returns when all is over, with an error if
// steps had to be cancelled. A [Runner.Start] that is not over yet fails.
func (r *Runner) Stop(ctx context.Context) error {
	r.mu.Lock()
	if r.state == stateStarting {
		r.abort()
		r.mu.Unlock()
		select {
		case <-r.started:
		case <-ctx.Done():
			return ctx.Err()
		}
		r.mu.Lock()
	}
	switch r.state {
	case stateNew:
		r.mu.Unlock()
		return nil
	case stateStopped: // by somebody else, who may not be done
		r.mu.Unlock()
		select {
		case <-r.ended:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	r.state = stateStopped
	r.mu.Unlock()
	defer close(r.ended)
	soft, cancel := context.WithTimeout(ctx, r.grace)
	err := r.river.Stop(soft)
	cancel()
	ctx = context.WithoutCancel(ctx)
	if err != nil {
		err = fmt.Errorf("jobs: steps were cancelled: %w", err)
		hard, cancel := context.WithTimeout(ctx, max(r.grace, leastHard))
		defer cancel()
		if hardErr := r.river.StopAndCancel(hard); hardErr != nil {
			err = errors.Join(err, fmt.Errorf("jobs: river: %w", hardErr))
		}
	}
	err = errors.Join(err, r.release(ctx))
	r.log.LogAttrs(ctx, slog.LevelInfo, "rotation worker stopped", slog.String("worker", r.workerID), slog.Any("error", err))
	return err
}

// leastHard is how long Stop waits at least for what was cancelled.
const leastHard = 10 * time.Second

// release gives up what start has taken.
func (r *Runner) release(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	var errs []error
	if recorder := r.recorder.Swap(nil); recorder != nil {
		errs = append(errs, recorder.Close(ctx))
	}
	for _, unlock := range slices.Backward(r.unlock) {
		errs = append(errs, unlock())
	}
	r.unlock = nil
	return errors.Join(errs...)
}

// Run starts, and stops when ctx ends. It returns nil if nothing went wrong.
func (r *Runner) Run(ctx context.Context) error {
	if err := r.Start(ctx); err != nil {
		return err
	}
	select {
	case <-ctx.Done():
	case <-r.river.Stopped():
	}
	return r.Stop(context.WithoutCancel(ctx))
}

// Running reports whether the runner was started and not stopped.
func (r *Runner) Running() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.state == stateRunning
}

// observe writes an engine's events to the history.
func (r *Runner) observe(e rotation.Event) {
	if recorder := r.recorder.Load(); recorder != nil {
		recorder.Observe(e)
	}
}

func (r *Runner) job(name string) *registered {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.jobs[name]
}

// ownerQueue is the queue of a worker.
func ownerQueue(owner string) string {
	if owner == "" {
		return anyQueue
	}
	sum := sha256.Sum256([]byte(owner))
	return "keywright_owned_" + hex.EncodeToString(sum[:8])
}
