package rotation

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"strings"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// Fleet rotates many keys, with bounded concurrency: it goes on with what is
// under way, then come a few canaries, then the rest in waves. It stops when too
// many fail, and at the first that is stuck; but everything that is under way
// gets its turn before, whatever becomes of the others.
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
	// a later run. One that was under way is a canary too.
	Canaries int
	// Wave is how many jobs make a wave: the next begins when one is over.
	// 0: all in one.
	Wave int
	// MaxFailures is how many jobs may fail before no more are begun, those
	// that were under way included. 0: none may. A job that is stuck stops the
	// fleet whatever this says.
	MaxFailures int
	// PerSecond bounds how many rotations begin, or are resumed, in a second,
	// for each provider; 0: not bounded.
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
	Errors  []error   // of the first hundred that failed, and of the first that is stuck, each with the name of its job
}

// ErrFleet is returned by [Fleet.Run] when jobs have failed.
var ErrFleet = errors.New("rotation: fleet")

// maxFleetErrors bounds what is kept of a fleet of any size.
const maxFleetErrors = 100

// Run rotates the keys of all jobs. It ranges over jobs twice: once for what is
// under way, so that nothing that may have a deadline waits behind what is
// refused, or fails, and once for the rest. It keeps no job longer than it runs,
// and the names of those that were under way, so that jobs may be made as they
// are asked for. The error matches [ErrFleet] if jobs have failed, and what is
// wrong with each of Errors; its text has the first.
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
	fr := &fleetRun{fleet: f, resumed: make(map[string]bool), limits: make(map[string]*rate.Limiter)}
	canaries, some := fr.goOn(ctx, jobs, width, canaries)
	next, stop := iter.Pull(jobs)
	defer stop()
	asked := false
	rest := func() (Job, bool) {
		for {
			job, ok := next()
			if !ok && some && !asked { // or it would look as if all were done
				fr.once = true
			}
			if asked = true; !ok || !fr.resumed[job.Name] {
				return job, ok
			}
		}
	}
	more := true
	if canaries > 0 {
		before := fr.result.Failed + fr.result.Waiting
		more = fr.wave(ctx, rest, min(width, canaries), canaries)
		if fr.result.Failed+fr.result.Waiting > before { // a canary is there to tell
			fr.stop = true
		}
	}
	for more && !fr.stopped(ctx) {
		more = fr.wave(ctx, rest, width, f.Wave)
	}
	if more {
		_, fr.result.Stopped = rest()
	}
	return fr.over(ctx)
}

// fleetRun is a fleet at work.
type fleetRun struct {
	fleet *Fleet
	once  bool // the jobs could be ranged over only once

	mu      sync.Mutex
	result  FleetResult
	stop    bool
	stuck   bool                     // one is
	resumed map[string]bool          // names of the jobs that were under way
	limits  map[string]*rate.Limiter // by provider
}

// each calls do for up to n jobs, all if n is not positive, width of them at a
// time, until over says so, and waits for them. It reports whether there may be
// more.
func each(next func() (Job, bool), width, n int, over func() bool, do func(i int, job Job)) (more bool) {
	var running sync.WaitGroup
	defer running.Wait()
	slots := make(chan struct{}, width)
	for i := 0; n <= 0 || i < n; i++ {
		slots <- struct{}{}
		if over() {
			return true
		}
		job, ok := next()
		if !ok {
			return false
		}
		running.Go(func() {
			defer func() { <-slots }()
			do(i, job)
		})
	}
	return true
}

// goOn goes on with every job that is under way: none is held back by the
// failure of another. It returns how many of the canaries, which are the first
// jobs, are still to come, and whether any job is.
func (fr *fleetRun) goOn(ctx context.Context, jobs iter.Seq[Job], width, canaries int) (left int, some bool) {
	next, stop := iter.Pull(jobs)
	defer stop()
	left = canaries
	seen := 0
	each(func() (Job, bool) {
		job, ok := next()
		if ok {
			seen++
		}
		return job, ok
	}, width, 0, func() bool { return ctx.Err() != nil }, func(i int, job Job) {
		if !fr.underWay(ctx, job) {
			return
		}
		result, err := fr.run(ctx, job, (*run).goOn)
		if err == nil && !result.Resumed {
			return // nothing was sent: it takes its turn with the rest
		}
		fr.mu.Lock()
		defer fr.mu.Unlock()
		fr.resumed[strings.Clone(job.Name)] = true
		done := fr.count(job, result, err)
		if i < canaries {
			left--
			fr.stop = fr.stop || !done
		}
	})
	return left, seen > len(fr.resumed)
}

// underWay reports whether the journal says that a rotation is. A journal that
// cannot be read says nothing: its job fails when its turn comes.
func (fr *fleetRun) underWay(ctx context.Context, job Job) bool {
	s, err := fr.fleet.Engine.Status(ctx, job.Name)
	return err == nil && !s.State.Finished()
}

// wave rotates up to n keys, all if n is not positive, and waits for them. It
// reports whether there may be more.
func (fr *fleetRun) wave(ctx context.Context, next func() (Job, bool), width, n int) (more bool) {
	return each(next, width, n, func() bool { return fr.stopped(ctx) }, func(_ int, job Job) {
		result, err := fr.run(ctx, job, (*run).rotate)
		fr.mu.Lock()
		defer fr.mu.Unlock()
		fr.count(job, result, err)
	})
}

func (fr *fleetRun) stopped(ctx context.Context) bool {
	fr.mu.Lock()
	defer fr.mu.Unlock()
	return fr.stop || ctx.Err() != nil
}

// run does something to one job, at the rate of its provider.
func (fr *fleetRun) run(ctx context.Context, job Job, do func(*run, context.Context) error) (*Result, error) {
	if err := fr.limit(ctx, &job); err != nil {
		return nil, err
	}
	return fr.fleet.Engine.run(ctx, job, fr.fleet.Campaign, do)
}

// count counts what a job came to, and reports whether it is done. The caller
// holds mu.
func (fr *fleetRun) count(job Job, result *Result, err error) (done bool) {
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
		done = true
	}
	if fr.fleet.Progress != nil {
		fr.fleet.Progress(Progress{job.Name, result, err, fr.result.Done, fr.result.Waiting, fr.result.Failed})
	}
	return done
}

// fail counts a job that failed. The caller holds mu.
func (fr *fleetRun) fail(job Job, err error) {
	fr.result.Failed++
	stuck := errors.Is(err, ErrStuck)
	if len(fr.result.Errors) < maxFleetErrors || stuck && !fr.stuck {
		fr.result.Errors = append(fr.result.Errors, fmt.Errorf("%s: %w", job.Name, err))
	}
	fr.stuck = fr.stuck || stuck
	if fr.result.Failed > fr.fleet.MaxFailures || stuck {
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
	r := &fr.result
	e := &fleetError{classes: append([]error{ErrFleet}, r.Errors...)}
	switch {
	case fr.once && ctx.Err() == nil:
		r.Stopped = true
		e.text = fmt.Sprintf("%v: the jobs can be ranged over only once: no rotation was begun, and %d jobs that were under way failed", ErrFleet, r.Failed)
	case r.Failed > 0:
		e.text = fmt.Sprintf("%v: %d jobs failed, the first: %v", ErrFleet, r.Failed, r.Errors[0])
	default:
		return r, ctx.Err()
	}
	return r, e
}

// fleetError names the first job that failed, and is what is wrong with each.
type fleetError struct {
	text    string
	classes []error
}

func (e *fleetError) Error() string   { return strings.ReplaceAll(e.text, "\n", "; ") }
func (e *fleetError) Unwrap() []error { return e.classes }
