package rotation_test

import (
	"errors"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/keywright/keywright/keywrighttest"
	"github.com/keywright/keywright/rotation"
)

// trouble is a fault of the provider, or of what is between.
type trouble struct {
	name  string
	fault func(op string) *keywrighttest.Fault
	loose bool // the provider itself breaks I2 for a while
}

// troubles are what may happen to the call that issues a token.
var troubles = []trouble{
	{name: "none"},
	{name: "refused before", fault: at(keywrighttest.BeforeApply, keywrighttest.Answer, 401)},
	{name: "failed before", fault: at(keywrighttest.BeforeApply, keywrighttest.Answer, 503)},
	{name: "dropped before", fault: at(keywrighttest.BeforeApply, keywrighttest.Drop, 0)},
	{name: "answer lost", fault: at(keywrighttest.AfterApply, keywrighttest.Drop, 0)},
	{name: "answer cut", fault: at(keywrighttest.AfterApply, keywrighttest.Cut, 0)},
	{name: "failed after commit", fault: at(keywrighttest.AfterApply, keywrighttest.Answer, 500)},
	{name: "late", fault: func(op string) *keywrighttest.Fault {
		return &keywrighttest.Fault{Op: op, When: keywrighttest.LateApply, Do: keywrighttest.Drop, Delay: 20 * time.Second}
	}},
	{name: "throttled", fault: func(op string) *keywrighttest.Fault {
		f := keywrighttest.Retry(op, 429, "2")
		return &f
	}},
	{name: "arrives twice", loose: true, fault: func(op string) *keywrighttest.Fault {
		return &keywrighttest.Fault{Op: op, Do: keywrighttest.Twice}
	}},
}

func at(when keywrighttest.Moment, do keywrighttest.Action, status int) func(string) *keywrighttest.Fault {
	return func(op string) *keywrighttest.Fault {
		return &keywrighttest.Fault{Op: op, When: when, Do: do, Status: status}
	}
}

// variant is a way in which the provider may be.
type variant struct {
	name    string
	only    func(strategyName) bool
	options []keywrighttest.Option
}

var variants = []variant{
	{name: "plain"},
	{name: "masked", options: []keywrighttest.Option{keywrighttest.WithMaskedTokens()}, only: func(s strategyName) bool { return s != overlap }},
	{name: "many old tokens", options: []keywrighttest.Option{keywrighttest.WithManyGraceTokens()}, only: func(s strategyName) bool { return s == paired || s == overlap }},
	{name: "results", options: []keywrighttest.Option{keywrighttest.WithResults(), keywrighttest.WithNullsRefused()}, only: func(s strategyName) bool { return s == swap }},
	{name: "text ids", options: []keywrighttest.Option{keywrighttest.WithTextIDs(), keywrighttest.WithNestedReferences()}, only: func(s strategyName) bool { return s == paired || s == overlap }},
	{name: "without rotate", options: []keywrighttest.Option{keywrighttest.WithoutRotate(404)}, only: func(s strategyName) bool { return s == inPlace }},
}

// restarts bounds how often a program has to be started until it is done.
const restarts = 8

// story is one world with one fault, in which the program is killed at given
// steps of its lives, and started again until nothing is under way.
type story struct {
	strategy strategyName
	variant  variant
	trouble  trouble
	kills    []int // in each life the step, 0: none
}

func (s story) String() string {
	return fmt.Sprintf("%s, %s, %s, killed at %v", s.strategy, s.variant.name, s.trouble.name, s.kills)
}

// told is what came of a story.
type told struct {
	steps  int // of the first life
	lives  int
	checks int
	err    error
}

// locksOut reports whether a request that arrives twice kills the token in the
// answer, or, with one key, the token in use. That shows, and is left to a
// person.
func (s story) locksOut() bool {
	return s.strategy == overlap || s.strategy == inPlace || s.strategy == paired && s.variant.name == "masked"
}

// tell plays the story in a bubble of its own.
func (s story) tell(t *testing.T) (out told) {
	w, err := newWorld(s.strategy, s.variant.options...)
	if err != nil {
		return told{err: err}
	}
	w.loose = s.trouble.loose && s.strategy == overlap && s.variant.name != "many old tokens"
	synctest.Test(t, func(t *testing.T) {
		defer w.close()
		if out.err = w.seed(); out.err != nil {
			return
		}
		if s.trouble.fault != nil {
			w.inject(*s.trouble.fault(s.strategy.issues()))
		}
		out = s.live(t, w)
		out.checks = w.checks
	})
	if out.err != nil {
		out.err = fmt.Errorf("%s: %w", s, out.err)
	}
	return out
}

// live starts the program until a rotation is over, or refused for good.
func (s story) live(t *testing.T, w *world) (out told) {
	for life := range restarts {
		kill := 0
		if life < len(s.kills) {
			kill = s.kills[life]
		}
		p := w.start(t.Context(), kill)
		r, err := p.rotate()
		out.lives++
		if life == 0 {
			out.steps = p.steps
		}
		killed := kill != 0 && p.steps >= kill
		switch {
		case w.problem != nil:
			out.err = w.problem
			return out
		case killed:
			continue
		case err == nil:
			if r.State != rotation.StateDone {
				out.err = fmt.Errorf("no error, and %s", r.State)
				return out
			}
			out.err = w.over(r)
			if out.err == nil {
				out.err = s.again(t, w)
			}
			return out
		case s.trouble.loose && errors.Is(err, rotation.ErrStuck) && s.locksOut():
			return out // the provider itself has locked everybody out
		case refusedFor(err, rotation.ReasonWindow) && life > 0:
			// The life before was killed when all was done.
			out.err = w.over(&rotation.Result{State: rotation.StateDone})
			return out
		case s.variant.name == "without rotate":
			if !errors.Is(err, rotation.ErrNotIssued) || w.aceData.Applied("credential.rotate") != 0 {
				out.err = fmt.Errorf("not refused: %w", err)
			}
			return out
		case !errors.Is(err, rotation.ErrNotIssued) && !errors.Is(err, rotation.ErrUnfinished):
			out.err = err
			return out
		}
	}
	out.err = fmt.Errorf("not over after %d lives", restarts)
	return out
}

func refusedFor(err error, reason rotation.Reason) bool {
	var refused *rotation.RefusedError
	return errors.As(err, &refused) && refused.Reason == reason
}

// again resumes what is over: nothing may happen.
func (s story) again(t *testing.T, w *world) error {
	before := len(w.sent)
	p := w.start(t.Context(), 0)
	defer p.cancel()
	r, err := p.engine().Resume(p.ctx, p.job())
	switch {
	case err != nil:
		return err
	case r.State != rotation.StateDone || len(w.sent) != before:
		return fmt.Errorf("I5: resuming what is over did something: %+v", r)
	}
	return nil
}

// TestKilledAnywhere kills the program before and after every operation of its
// disk and every call, for every strategy, every way the provider may be and
// every fault, and starts it again until it is done. Under the race detector,
// which is slow, it tries every seventeenth point.
func TestKilledAnywhere(t *testing.T) {
	t.Parallel()
	stride := 1
	if raceDetector {
		stride = 17
	}
	start := time.Now()
	var stories, lives, checks atomic.Int64
	type group struct {
		s    strategyName
		v    variant
		t    trouble
		from int
	}
	var groups []group
	for _, s := range strategies {
		for _, v := range variants {
			if v.only != nil && !v.only(s) {
				continue
			}
			for i, tr := range troubles {
				groups = append(groups, group{s, v, tr, 1 + (len(groups)+i)%stride})
			}
		}
	}
	work := make(chan group)
	var running sync.WaitGroup
	for range runtime.GOMAXPROCS(0) {
		running.Go(func() {
			for g := range work {
				count := func(s story) told {
					out := s.tell(t)
					stories.Add(1)
					lives.Add(int64(out.lives))
					checks.Add(int64(out.checks))
					return out
				}
				whole := count(story{g.s, g.v, g.t, nil})
				if whole.err != nil {
					t.Error(whole.err)
					continue
				}
				for k := g.from; k <= whole.steps; k += stride {
					if out := count(story{g.s, g.v, g.t, []int{k}}); out.err != nil {
						t.Error(out.err)
						break
					}
				}
			}
		})
	}
	for _, g := range groups {
		work <- g
	}
	close(work)
	running.Wait()
	t.Logf("%d stories of %d lives, the world looked at %d times, in %s", stories.Load(), lives.Load(), checks.Load(), time.Since(start).Round(time.Millisecond))
	require.Greater(t, stories.Load(), int64(300))
}
