package rotation

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// Fleet rotates many keys: a few canaries first, then the rest in waves, with
// bounded concurrency. It stops when too many fail, and at the first that is
// stuck.
//
// A run that was stopped, or killed, is taken up by running it again with the
// same Campaign: what is done stays done, what is under way is resumed.
type Fleet struct {
	// Engine rotates the keys. Required.
	Engine *Engine
	// Campaign names this run, such as "2026-11"; the journal keeps it with
	// each key. Empty: every run rotates every key.
	Campaign string
	// Width is how many keys are rotated at a time; 8.
	Width int
	// Canaries is how many jobs, the first ones, must be done before the rest
	// begin; 1. Negative: none. A canary that waits holds the rest back until
	// a later run.
	Canaries int
	// Wave is how many jobs make a wave: the next begins when one is over.
	// 0: all in one.
	Wave int
	// MaxFailures is how many jobs may fail before no more are begun. 0: none
	// may. A job that is stuck stops the fleet whatever this says.
	MaxFailures int
	// PerSecond bounds how many rotations begin in a second, for each
	// provider; 0: not bounded.
	PerSecond float64
	// Progress, if not nil, is called after every job, by one goroutine at a
	// time.
	Progress func(Progress)
}

// Progress is how far a fleet is.
type Progress struct {
	Job     string  // the job that has just ended
	Result  *Result // what it came to; nil if it was refused or could not begin
	Err     error   // its error, or nil
	Done    int     // rotated, so far
	Waiting int     // under way; resume them later
	Failed  int     // with an error
}

// FleetResult is what a fleet came to.
type FleetResult struct {
	Done    int       // rotated, now or by an earlier run of the campaign
	Waiting int       // under way, because of a wait longer than their policy allows
	Failed  int       // with an error
	Stopped bool      // not every job was begun
	Resume  time.Time // the earliest time at which one that waits can go on; zero if none waits
	Errors  []error   // of the first hundred that failed, each with the name of its job
}

// ErrFleet is returned by [Fleet.Run] when jobs have failed.
var ErrFleet = errors.New("rotation: fleet")

// maxFleetErrors bounds what is kept of a fleet of any size.
const maxFleetErrors = 100

// Run rotates the keys of all jobs. It keeps no job longer than it runs, so
// that jobs may be made as they are asked for. The error matches [ErrFleet] if
// jobs have failed, and what is wrong with the first of them.
func (f *Fleet) Run(ctx context.Context, jobs iter.Seq[Job]) (*FleetResult, error) {
	if f.Engine == nil {
		return nil, fmt.Errorf("%w: an Engine is required", ErrFleet)
	}
	width := f.Width
	if width <= 0 {
		width = 8
	}
	canaries := f.Canaries
	if canaries == 0 {
		canaries = 1
	}
	fr := &fleetRun{fleet: f, limits: make(map[string]*rate.Limiter)}
	next, stop := iter.Pull(jobs)
	defer stop()
	more := true
	if canaries > 0 {
		more = fr.wave(ctx, next, min(width, canaries), canaries)
		if fr.result.Failed+fr.result.Waiting > 0 { // a canary is there to tell
			fr.stop = true
		}
	}
	for more && !fr.stopped(ctx) {
		more = fr.wave(ctx, next, width, f.Wave)
	}
	if more {
		_, fr.result.Stopped = next()
	}
	return fr.over(ctx)
}

// fleetRun is a fleet at work.
type fleetRun struct {
	fleet *Fleet

	mu     sync.Mutex
	result FleetResult
	stop   bool
	limits map[string]*rate.Limiter // by provider
}

// wave runs up to n jobs, all if n is not positive, and waits for them. It
// reports whether there may be more.
func (fr *fleetRun) wave(ctx context.Context, next func() (Job, bool), width, n int) (more bool) {
	var running sync.WaitGroup
	defer running.Wait()
	slots := make(chan struct{}, width)
	for i := 0; n <= 0 || i < n; i++ {
		slots <- struct{}{}
		if fr.stopped(ctx) {
			return true
		}
		job, ok := next()
		if !ok {
			return false
		}
		running.Go(func() {
			defer func() { <-slots }()
			fr.one(ctx, job)
		})
	}
	return true
}

func (fr *fleetRun) stopped(ctx context.Context) bool {
	fr.mu.Lock()
	defer fr.mu.Unlock()
	return fr.stop || ctx.Err() != nil
}

// one rotates one key.
func (fr *fleetRun) one(ctx context.Context, job Job) {
	var result *Result
	err := fr.limit(ctx, &job)
	if err == nil {
		result, err = fr.fleet.Engine.run(ctx, job, fr.fleet.Campaign, (*run).rotate)
	}
	fr.mu.Lock()
	defer fr.mu.Unlock()
	switch {
	case err != nil:
		fr.fail(job, err)
	case !result.ResumeAt.IsZero():
		fr.result.Waiting++
		if fr.result.Resume.IsZero() || result.ResumeAt.Before(fr.result.Resume) {
			fr.result.Resume = result.ResumeAt
		}
	case result.State != StateDone:
		fr.fail(job, fmt.Errorf("%w: it is %s", ErrNotIssued, result.State))
	default:
		fr.result.Done++
	}
	if fr.fleet.Progress != nil {
		fr.fleet.Progress(Progress{job.Name, result, err, fr.result.Done, fr.result.Waiting, fr.result.Failed})
	}
}

// fail counts a job that failed. The caller holds mu.
func (fr *fleetRun) fail(job Job, err error) {
	fr.result.Failed++
	if len(fr.result.Errors) < maxFleetErrors {
		fr.result.Errors = append(fr.result.Errors, fmt.Errorf("%s: %w", job.Name, err))
	}
	if fr.result.Failed > fr.fleet.MaxFailures || errors.Is(err, ErrStuck) {
		fr.stop = true
	}
}

// limit waits until the provider's rate allows another rotation.
func (fr *fleetRun) limit(ctx context.Context, job *Job) error {
	if fr.fleet.PerSecond <= 0 || job.Strategy == nil {
		return nil
	}
	provider := job.Strategy.Traits().Provider
	fr.mu.Lock()
	l := fr.limits[provider]
	if l == nil {
		l = rate.NewLimiter(rate.Limit(fr.fleet.PerSecond), 1)
		fr.limits[provider] = l
	}
	fr.mu.Unlock()
	return l.Wait(ctx)
}

func (fr *fleetRun) over(ctx context.Context) (*FleetResult, error) {
	if fr.result.Failed == 0 {
		return &fr.result, ctx.Err()
	}
	return &fr.result, fmt.Errorf("%w: %d jobs failed, the first: %w", ErrFleet, fr.result.Failed, fr.result.Errors[0])
}
