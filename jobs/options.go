package jobs

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/keywright/keywright/rotation"
)

// Defaults of the options.
const (
	// DefaultConcurrency is how many steps a worker runs at a time.
	DefaultConcurrency = 8
	// DefaultSweep is how often what is due is looked at.
	DefaultSweep = 10 * time.Second
	// DefaultBatch is how many River jobs may wait to begin.
	DefaultBatch = 200
	// DefaultStep is how long a step may take.
	DefaultStep = time.Minute
	// DefaultWait is the longest wait within a step.
	DefaultWait = 5 * time.Second
	// DefaultRescue is how long a River job may run before it is taken for one
	// whose worker has died.
	DefaultRescue = 2 * time.Minute
	// DefaultLook is how long after a rotation got stuck, or was refused, it is
	// tried again at the latest.
	DefaultLook = 24 * time.Hour
)

// DefaultLimit is the limit of a provider that was given none.
var DefaultLimit = Limit{Concurrency: 8, PerSecond: 5}

// Limit bounds what is done at a provider by all workers together.
type Limit struct {
	// Concurrency is how many steps run at a time; 0: as many as workers run.
	Concurrency int
	// PerSecond is how many steps begin in a second; 0: as many as come.
	PerSecond float64
}

// Result is what one step of a job came to, for metrics.
type Result struct {
	Job      string        // name of the job
	Provider string        // "ricloud", "acedata"
	State    string        // a rotation.State, or one of StateRefused, StateFailed
	Err      error         // what went wrong; nil: nothing. Its text holds no token.
	Over     bool          // the rotation is over; else it goes on by itself, unless it is stuck
	Took     time.Duration // how long the step took
}

type options struct {
	workerID    string
	sealer      rotation.Sealer
	engine      []rotation.Option
	concurrency int
	sweep       time.Duration
	batch       int
	step        time.Duration
	wait        time.Duration
	rescue      time.Duration
	grace       time.Duration
	limits      map[string]Limit
	log         *slog.Logger
	now         func() time.Time
	results     func(Result)
	unsaved     func(context.Context, *rotation.UnsavedError)

	poll     time.Duration // River's fetch interval
	fast     bool          // River's TestOnly; for tests
	starting func(string)  // called when a step begins; for tests
}

// Option configures a [Runner].
type Option func(*options) error

// WithWorkerID names this worker: 1 to 100 bytes, the same after a restart, and
// different from that of every other worker of the database. A job that needs
// an owner names it. The default is the host's name.
func WithWorkerID(id string) Option {
	return func(o *options) error {
		if id == "" || len(id) > 100 {
			return errors.New("jobs: a worker's id has 1 to 100 bytes")
		}
		o.workerID = id
		return nil
	}
}

// WithSealer sets what encrypts the tokens in the journal. It is required. All
// workers need the same key, and it must not be in the database.
func WithSealer(s rotation.Sealer) Option {
	return func(o *options) error {
		if s == nil {
			return errors.New("jobs: sealer must not be nil")
		}
		o.sealer = s
		return nil
	}
}

// WithEngineOptions adds options to the engine, such as an observer. The journal
// is always the store's.
func WithEngineOptions(opts ...rotation.Option) Option {
	return func(o *options) error { o.engine = append(o.engine, opts...); return nil }
}

// WithConcurrency sets how many steps this worker runs at a time, of the jobs
// that may run anywhere, and as many again of those that it owns:
// [DefaultConcurrency] if not given.
func WithConcurrency(n int) Option {
	return func(o *options) error {
		if n < 1 || n > 1000 {
			return errors.New("jobs: concurrency must be 1 to 1000")
		}
		o.concurrency = n
		return nil
	}
}

// WithLimit bounds the steps at a provider, named as rotation.Traits names it,
// on all workers together: [DefaultLimit] if not given. Workers should be given
// the same.
func WithLimit(provider string, l Limit) Option {
	return func(o *options) error {
		if l.Concurrency < 0 || l.PerSecond != 0 && !(l.PerSecond >= 1e-6 && l.PerSecond <= 1e6) {
			return fmt.Errorf("jobs: the limit of %s is out of range", provider)
		}
		o.limits[provider] = l
		return nil
	}
}

// WithSweep sets how often what is due is looked at, at least every second:
// [DefaultSweep] if not given.
func WithSweep(every time.Duration) Option {
	return func(o *options) error {
		if every < time.Second {
			return errors.New("jobs: a sweep takes a second")
		}
		o.sweep = every
		return nil
	}
}

// WithBatch sets how many River jobs may wait to begin: [DefaultBatch] if not
// given. What is under way waits behind no more than these.
func WithBatch(n int) Option {
	return func(o *options) error {
		if n < 1 || n > 10000 {
			return errors.New("jobs: a batch has 1 to 10000 jobs")
		}
		o.batch = n
		return nil
	}
}

// WithStep sets how long a step may take and the longest wait within:
// [DefaultStep] and [DefaultWait] if not given. A job whose own policy waits
// less keeps that. Nothing is sent in a step's name after its time.
func WithStep(timeout, wait time.Duration) Option {
	return func(o *options) error {
		if timeout < time.Second || wait <= 0 || wait > timeout/2 {
			return errors.New("jobs: a step takes at least a second, and waits for at most half of it")
		}
		o.step, o.wait = timeout, wait
		return nil
	}
}

// WithRescue sets how long a River job may run on PostgreSQL before it is taken
// for one whose worker has died: [DefaultRescue] if not given. It must be more
// than a step takes.
func WithRescue(after time.Duration) Option {
	return func(o *options) error { o.rescue = after; return nil }
}

// WithGrace sets how long [Runner.Stop] and the end of [Runner.Run] let running
// steps go on before they are cancelled: as long as a step takes if not given.
func WithGrace(d time.Duration) Option {
	return func(o *options) error {
		if d <= 0 {
			return errors.New("jobs: grace must be positive")
		}
		o.grace = d
		return nil
	}
}

// WithLogger logs what happens: runs at Info, what a person should look at at
// Warn and Error. River's warnings and errors come too, each at most once a
// minute, and at Debug the rest.
func WithLogger(l *slog.Logger) Option {
	return func(o *options) error {
		if l == nil {
			return errors.New("jobs: logger must not be nil")
		}
		o.log = l
		return nil
	}
}

// WithClock sets where the schedule takes the time of day from, for tests and
// demonstrations. River and the engine keep their own.
func WithClock(now func() time.Time) Option {
	return func(o *options) error {
		if now == nil {
			return errors.New("jobs: clock must not be nil")
		}
		o.now = now
		return nil
	}
}

// WithResults calls f after every step, on the goroutine of the step.
func WithResults(f func(Result)) Option {
	return func(o *options) error { o.results = f; return nil }
}

// WithUnsaved calls f with a new token that the journal could not keep, before
// anything else is done: f may keep it. That is logged as an error in any case,
// without the token.
func WithUnsaved(f func(context.Context, *rotation.UnsavedError)) Option {
	return func(o *options) error { o.unsaved = f; return nil }
}
