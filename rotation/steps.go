package rotation

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/keywright/keywright"
	"github.com/keywright/keywright/rotation/sink"
)

// plan checks everything that can be checked before a token is asked for, and
// writes it down.
func (r *run) plan(ctx context.Context) error {
	if err := r.tooSoon(); err != nil {
		return err
	}
	r.begin()
	found, err := r.survey(ctx)
	if err != nil {
		return err
	}
	r.rec.Sinks = found.sinks
	r.rec.Problem, r.rec.Attempts, r.rec.Campaign = "", 0, r.campaign
	r.rec.Intent, r.rec.Deadline, r.rec.Since = time.Time{}, time.Time{}, time.Time{}
	if err := r.enter(ctx, StatePlanned); err != nil {
		return err
	}
	// A journal that cannot be read back must be known before, not after.
	b, damaged, err := r.session.Load(ctx)
	if err == nil && (damaged || string(b) != string(r.rec.encode())) {
		err = fmt.Errorf("%w: what was written is not what is read", ErrJournal)
	}
	return err
}

// tooSoon refuses a rotation right after another.
func (r *run) tooSoon() error {
	next := r.rec.Finished.Add(r.policy.MinInterval)
	if r.policy.MinInterval == 0 || r.rec.State == StateRolledBack || !r.clock.atLeast().Before(next) {
		return nil
	}
	return refuse(ReasonInterval, "the last rotation was over at "+r.rec.Finished.Format(time.RFC3339), "wait until "+next.Format(time.RFC3339))
}

// begin makes a new operation.
func (r *run) begin() {
	id := randomHex(16)
	r.rec.Operation = id
	*r.op = Operation{
		Job: r.job.Name, ID: id, Lineage: r.rec.Lineage, Marker: marker(r.rec.Lineage, id),
		Data: r.op.Data, clock: r.clock,
	}
	if o := r.traits.Overlap; o > 0 && !r.rec.Issued.IsZero() {
		r.op.Window = r.rec.Issued.Add(o)
	}
}

// surveyed is what a look at the provider and the sinks found.
type surveyed struct {
	sinks  []sinkRecord
	budget []SinkBudget
}

// survey looks at the provider and at every sink, and refuses what would be
// unsafe. It changes nothing.
func (r *run) survey(ctx context.Context) (*surveyed, error) {
	readings := make([]sink.Reading, len(r.job.Sinks))
	for i, s := range r.job.Sinks {
		reading, err := s.Read(ctx)
		if t, ok := s.(sink.Tester); err == nil && ok {
			err = t.Test(ctx)
		}
		if err != nil && (ctx.Err() != nil || errors.Is(err, sink.ErrTemporary)) {
			return nil, r.clean(err) // it is not the sink's fault, or passes
		}
		if err = r.clean(err); err != nil {
			return nil, &RefusedError{Reason: ReasonSink, Message: "a sink cannot be used", Instead: "mend it first", Err: err}
		}
		readings[i] = reading
		r.op.Known = append(r.op.Known, reading.Token)
	}
	r.know()
	if err := r.job.Strategy.Inspect(ctx, r.op); errors.Is(err, keywright.ErrNotInitialized) {
		return nil, refuse(ReasonJob, "its strategy has no client", "give it one, from NewRicloud or NewAceData")
	} else if err != nil {
		return nil, err
	}
	if err := r.tokenInUse(ctx, readings); err != nil {
		return nil, err
	}
	found := &surveyed{}
	for i, s := range r.job.Sinks {
		k := sinkRecord{Name: s.Name(), State: SinkPending, Version: readings[i].Version}
		if t := s.Traits(); !t.UntilRestart {
			k.Lag = t.Lag
		}
		switch held := readings[i].Token; {
		case !s.Traits().Readable:
		case held.IsZero():
			k.Held = heldNothing
		case held.Equal(r.op.Old):
			k.Held = heldOld
		default:
			return nil, refuse(ReasonDrift, k.Name+" does not hold the token in use",
				"find out who wrote it, put the provider's current token there, and run it again")
		}
		found.sinks = append(found.sinks, k)
	}
	var err error
	found.budget, err = r.budget()
	return found, err
}

// What a sink held before the rotation.
const (
	heldOld     = "old"
	heldNothing = "nothing"
)

// tokenInUse makes op.Old what the last rotation has delivered, or else what
// the sinks hold, where the provider does not show it. The job's Verify then
// has to know it.
func (r *run) tokenInUse(ctx context.Context, readings []sink.Reading) error {
	shown := !r.op.Old.IsZero()
	if !shown {
		r.op.Old = r.current
	}
	for _, reading := range readings {
		if r.op.Old.IsZero() {
			r.op.Old = reading.Token
		}
	}
	if !shown && !r.op.Old.IsZero() {
		if err := r.clean(r.lastWord(ctx, r.op.Old)); errors.Is(err, ErrNotAccepted) {
			return &RefusedError{
				Reason: ReasonDrift, Message: "the sinks hold a token that does not work, and the provider masks the one that does", Err: err,
				Instead: "put a token of the key that works into them",
			}
		}
	}
	if r.op.Old.IsZero() && !r.traits.Outage {
		return refuse(ReasonUnreadable, "the provider masks the token in use, and no sink can be read",
			"add a sink that can be read, such as a file, and put the token there")
	}
	return nil
}

// budget compares what the sinks need with what the overlap gives.
func (r *run) budget() ([]SinkBudget, error) {
	var budget []SinkBudget
	for _, s := range r.job.Sinks {
		t := s.Traits()
		b := SinkBudget{Sink: s.Name(), Lag: t.Lag, UntilRestart: t.UntilRestart, Grade: t.Grade, Guarantee: t.Guarantee, Needs: r.policy.VerifyFor + r.policy.DistributeFor + t.Lag}
		switch {
		case r.traits.Overlap == 0:
		case t.UntilRestart && r.job.Acknowledge == nil:
			return nil, refuse(ReasonBudget, b.Sink+" is read when its readers start, so that nobody knows when the old token can go",
				"give the job an acknowledgement (Acknowledge) that says when they have restarted")
		case !t.UntilRestart && r.traits.Overlap > 0 && b.Needs > r.traits.Overlap:
			return nil, refuse(ReasonBudget, fmt.Sprintf("%s needs %s, and the provider's overlap lasts %s", b.Sink, b.Needs, r.traits.Overlap),
				"use a strategy whose overlap lasts as long as need be, such as ricloud-paired (RicloudPaired)")
		}
		if r.traits.Overlap > 0 {
			b.Has = r.traits.Overlap
		}
		budget = append(budget, b)
	}
	return budget, nil
}

// issue asks the provider for a token, once.
func (r *run) issue(ctx context.Context) error {
	for left := r.quiet(); left > 0; left = r.quiet() {
		// A call of the rotation before may still arrive.
		if err := r.sleep(ctx, left, "for earlier calls to die", nil); err != nil {
			return err
		}
	}
	if err := errors.Join(ctx.Err(), trySealing(ctx, r.sealer, r.job.Name)); err != nil {
		return r.giveUp(ctx, err)
	}
	r.rec.Attempts++
	r.rec.Intent = r.clock.now()
	if r.traits.Overlap > 0 {
		r.rec.Deadline = r.rec.Intent.Add(r.traits.Overlap)
	}
	if err := r.enter(ctx, StateIntent); err != nil {
		return err
	}
	if err := r.session.Reserve(ctx); err != nil {
		return r.giveUp(ctx, err)
	}
	err := r.job.Strategy.Issue(ctx, r.op)
	var refused *RefusedError
	switch outcome := keywright.OutcomeOf(err); {
	case err == nil && !r.op.New.IsZero():
		return r.issued(ctx)
	case errors.As(err, &refused), errors.Is(err, ErrNoAccess), outcome == keywright.NotSent, outcome == keywright.Rejected:
		r.op.New = keywright.Secret{}
		return r.giveUp(ctx, err)
	case err == nil:
		err = errors.New("rotation: the strategy returned no token")
	}
	r.op.New = keywright.Secret{}
	r.observe(Failed{r.job.Name, r.rec.Operation, r.rec.State, err})
	r.unsettle()
	r.rec.Problem = err.Error()
	return r.enter(ctx, StateResolving)
}

// trySealing makes sure that the new token can be sealed when it comes.
func trySealing(ctx context.Context, sealer Sealer, job string) error {
	probe := []byte(randomHex(32))
	sealed, err := sealer.Seal(ctx, probe, job)
	if err != nil {
		return err
	}
	opened, err := sealer.Open(ctx, sealed, job)
	if err == nil && string(opened) != string(probe) {
		err = fmt.Errorf("%w: the sealer does not open what it has sealed", ErrJournal)
	}
	return err
}

// issued makes the new token durable, before anything else happens.
func (r *run) issued(ctx context.Context) error {
	r.rec.Issued, r.rec.Problem = r.clock.now(), ""
	err := r.enter(ctx, StateIssued)
	if err != nil {
		err = r.enter(ctx, StateIssued) // an error may have been of the moment
	}
	if err == nil {
		return nil
	}
	unsaved := &UnsavedError{Job: r.job.Name, Token: r.op.New, Escrow: ErrNotReady, Journal: err}
	if r.job.Escrow != nil {
		unsaved.Escrow = r.clean(r.job.Escrow(context.WithoutCancel(ctx), r.op.New))
	}
	return unsaved
}

// resolve finds out what became of a call whose answer was lost. Only when
// nothing that was sent can still arrive does "not there" mean "never was";
// then, if reissue is set, the token is asked for again.
func (r *run) resolve(ctx context.Context, reissue bool) error {
	r.hunt(ctx)
	for wait := firstWait; ; wait = min(2*wait, maxWait) {
		// Whether time is up must be known before looking.
		over := r.quiet() == 0
		verdict, err := r.job.Strategy.Resolve(ctx, r.op)
		switch {
		case verdict == Executed && err == nil && !r.op.New.IsZero():
			return r.issued(ctx)
		case ctx.Err() != nil:
			return r.unfinished(ctx.Err())
		case (verdict == NotExecuted || verdict == Repeatable) && err == nil && over:
			r.rec.Doubt = r.rec.Doubt || verdict == Repeatable
			return r.notExecuted(ctx, reissue)
		case over && (errors.Is(err, ErrNoAccess) || errors.Is(err, ErrMasked)):
			return r.lost(ctx, err)
		case over && !r.clock.atLeast().Before(r.rec.Quiet.Add(r.policy.ResolveFor)):
			if err == nil {
				err = errors.New("rotation: the provider's state does not tell whether a token was issued")
			} else if passing(err) {
				return r.unfinished(err)
			}
			return r.lost(ctx, err)
		}
		if err != nil {
			r.observe(Failed{r.job.Name, r.rec.Operation, r.rec.State, err})
		}
		if !over {
			wait = min(wait, max(r.quiet(), time.Millisecond))
		}
		if err := r.sleep(ctx, wait, "to learn what became of a call", err); err != nil {
			return err
		}
	}
}

// notExecuted goes on after proof that no token was issued.
func (r *run) notExecuted(ctx context.Context, reissue bool) error {
	if !reissue {
		return r.giveUp(ctx, nil)
	}
	if r.rec.Attempts >= r.policy.Attempts {
		return r.giveUp(ctx, errors.New("rotation: the provider did not do what it was asked"))
	}
	r.rec.Problem = ""
	return r.issue(ctx)
}

// lost ends a run that cannot find out whether, or which, token was issued.
func (r *run) lost(ctx context.Context, cause error) error {
	steps := []string{"the sinks hold the token from before: do not remove it"}
	if !r.rec.Deadline.IsZero() {
		steps = append(steps, "if a token was issued it lapses at "+r.rec.Deadline.Format(time.RFC3339)+": act before")
	}
	return r.stuck(ctx, cause, append(steps,
		"look at "+r.traits.Key+" with the provider's console",
		"put a token that the provider accepts into the first sink that can be read")...)
}

// hunt gathers the tokens that might give access, wherever they are.
func (r *run) hunt(ctx context.Context) {
	for _, s := range r.job.Sinks {
		if reading, err := s.Read(ctx); err == nil {
			r.op.Known = append(r.op.Known, reading.Token)
		}
	}
	r.know()
}

// know adds the token of the last rotation to those that were found, and keeps
// each of them once.
func (r *run) know() {
	r.op.Known = (&Operation{Known: append(r.op.Known, r.current)}).tokens()
}

// adoptions is how often a verification may find that the provider shows yet
// another token.
const adoptions = 5

// verify waits until the provider accepts the new token.
func (r *run) verify(ctx context.Context) error {
	r.hunt(ctx)
	accepted, adopted := 0, 0
	err := r.try(ctx, r.policy.VerifyFor, "for the provider to accept the new token", func(error) bool { return true }, func() error {
		for accepted < r.policy.Probes {
			before := r.op.New
			err := r.job.Strategy.Verify(ctx, r.op)
			if !r.op.New.Equal(before) {
				if adopted++; adopted > adoptions {
					return errors.New("rotation: the provider shows another token each time: somebody else is rotating it")
				}
				accepted = 0
				if err := r.issued(ctx); err != nil {
					return err
				}
				continue
			}
			if err == nil {
				err = r.lastWord(ctx, r.op.New)
			}
			if err != nil {
				accepted = 0
				return err
			}
			accepted++
		}
		return nil
	})
	switch {
	case err == nil:
		r.handOver(r.op.New)
		return r.enter(ctx, StateVerified)
	case ended(err):
		return err
	case errors.Is(err, ErrNotAccepted):
		return r.stuck(ctx, err, "the sinks still hold the old token", r.wayBack())
	}
	return r.unfinished(err)
}

// wayBack is advice for people.
func (r *run) wayBack() string {
	if r.traits.Reversible {
		return "run Rollback to keep the old token, or mend the cause"
	}
	if r.rec.Deadline.IsZero() {
		return "mend the cause"
	}
	return "mend the cause before the old token lapses at " + r.rec.Deadline.Format(time.RFC3339)
}

// lastWord asks the job whether a token works.
func (r *run) lastWord(ctx context.Context, token keywright.Secret) error {
	if r.job.Verify == nil {
		return nil
	}
	err := r.job.Verify(ctx, token)
	if errors.Is(err, keywright.ErrUnauthorized) {
		err = fmt.Errorf("%w: %w", ErrNotAccepted, err)
	}
	return err
}

// extend gives the new key its full life.
func (r *run) extend(ctx context.Context) error {
	if x, ok := r.job.Strategy.(Extender); ok {
		err := r.try(ctx, r.policy.VerifyFor, "to extend the new key", passing, func() error { return x.Extend(ctx, r.op) })
		switch {
		case ended(err):
			return err
		case err != nil:
			return r.stuck(ctx, err, "the sinks still hold the old token", r.wayBack())
		}
	}
	return r.enter(ctx, StateDistributing)
}

// distribute brings the new token to the sinks, one after the other.
func (r *run) distribute(ctx context.Context) error {
	if err := r.deliverAll(ctx, r.op.Old, r.op.New); err != nil {
		return err
	}
	r.delivered()
	return r.enter(ctx, StateConverging)
}

// delivered notes when the last sink was confirmed.
func (r *run) delivered() {
	elapsed := r.clock.clock.Elapsed()
	r.rec.Since, r.since = r.clock.now(), &elapsed
}

// deliverAll brings a token to every sink. A sink that fails keeps the old
// token from being retired, but not the other sinks from getting the new one,
// unless it is the first.
func (r *run) deliverAll(ctx context.Context, from, to keywright.Secret) error {
	var failed []string
	var causes []error
	for i, s := range r.job.Sinks {
		k := &r.rec.Sinks[i]
		if k.State == SinkConfirmed {
			continue
		}
		err := r.try(ctx, r.policy.DistributeFor, "for "+k.Name, func(err error) bool { return errors.Is(err, sink.ErrTemporary) || passing(err) },
			func() error { return r.deliver(ctx, s, k, from, to) })
		var unsaved *journalError
		switch {
		case err == nil:
			continue
		case errors.As(err, &unsaved):
			return unsaved.err
		case ended(err):
			return err
		case errors.Is(err, sink.ErrTemporary):
			return r.unfinished(err)
		}
		state := SinkFailed
		if errors.Is(err, sink.ErrConflict) {
			state = SinkConflict
		}
		if err := r.enterSink(ctx, k, state, err); err != nil {
			return err
		}
		failed, causes = append(failed, k.Name), append(causes, err)
		if i == 0 {
			break
		}
	}
	if failed == nil {
		return nil
	}
	steps := []string{"mend " + list(failed), "where somebody else wrote, put the old or the new token back", r.wayBack()}
	if r.traits.Overlap != 0 {
		steps = append([]string{"the old token and the new one are both accepted meanwhile"}, steps...)
	}
	cause := causes[0]
	for _, c := range causes[1:] {
		cause = fmt.Errorf("%w; %w", cause, c)
	}
	return r.stuck(ctx, cause, steps...)
}

// sameSinks makes sure that the job has the sinks that the rotation began with:
// one that was left out, or in, would be forgotten.
func (r *run) sameSinks(ctx context.Context) error {
	switch r.rec.State {
	case StateIssued, StateVerified, StateDistributing, StateConverging, StateRetiring, StateRollingBack:
	default:
		return nil
	}
	same := len(r.rec.Sinks) == len(r.job.Sinks)
	for i := 0; same && i < len(r.job.Sinks); i++ {
		same = r.rec.Sinks[i].Name == r.job.Sinks[i].Name()
	}
	if same {
		return nil
	}
	return r.stuck(ctx, errors.New("rotation: the job has other sinks than when it began"), "give it the sinks it had: "+list(names(r.rec.Sinks)))
}

func names(sinks []sinkRecord) []string {
	out := make([]string, len(sinks))
	for i, k := range sinks {
		out[i] = k.Name
	}
	return out
}

// journalError is a failure of the journal and not of a sink.
type journalError struct{ err error }

func (e *journalError) Error() string { return e.err.Error() }

// deliver brings a token to one sink, whatever an earlier run has done.
func (r *run) deliver(ctx context.Context, s sink.Sink, k *sinkRecord, from, to keywright.Secret) error {
	reading, err := s.Read(ctx)
	if err != nil {
		return err
	}
	ours := false // to be overwritten
	switch held := reading.Token; {
	case !s.Traits().Readable && k.State == SinkPending:
		ours = reading.Version == k.Version
	case !s.Traits().Readable && k.State == SinkConflict:
		ours = reading.Version != k.Version // somebody has put a token back since
	case !s.Traits().Readable:
		ours = true // we may have written it
	case held.IsZero():
		ours = k.Held == heldNothing
	default:
		// A token that is there already is written again: nobody knows whether
		// an earlier write is durable.
		ours = held.Equal(from) || held.Equal(to)
	}
	if !ours {
		k.Version = reading.Version
		return &sink.Error{Sink: k.Name, Op: "write", Reason: "it holds what somebody else wrote; nothing was overwritten", Err: sink.ErrConflict}
	}
	if k.State != SinkWriting {
		if err := r.mark(ctx, k, SinkWriting); err != nil {
			return err
		}
	}
	if err := s.CompareAndWrite(ctx, reading, to); err != nil {
		return err
	}
	if err := s.Confirm(ctx, to); err != nil {
		return err
	}
	return r.mark(ctx, k, SinkConfirmed)
}

// mark makes the state of a sink that is being delivered to durable.
func (r *run) mark(ctx context.Context, k *sinkRecord, to SinkState) error {
	if err := r.enterSink(ctx, k, to, nil); err != nil {
		return &journalError{err}
	}
	return nil
}

// converge waits until nobody uses the old token any more.
func (r *run) converge(ctx context.Context) error {
	for {
		if err := r.waitForReaders(ctx); err != nil {
			return err
		}
		// What cannot be taken back comes next: the new token must still be
		// accepted and in its places, and the provider's clock must agree.
		before := r.op.New
		if err := r.try(ctx, r.policy.VerifyFor, "for the provider to accept the new token", passing, func() error {
			return r.job.Strategy.Verify(ctx, r.op)
		}); !r.op.New.Equal(before) {
			return r.overtaken(ctx, before)
		} else if err != nil {
			if ended(err) || passing(err) && !errors.Is(err, ErrNotAccepted) {
				return r.orUnfinished(err)
			}
			return r.stuck(ctx, err, "the old token is not retired", r.wayBack())
		}
		if err := r.stillThere(ctx); err != nil {
			return err
		}
		if r.lagLeft() == 0 {
			return r.enter(ctx, StateRetiring)
		}
	}
}

// overtaken goes on when somebody else has rotated the key since its token was
// delivered. Where the old token lapses by itself, the newest one is delivered
// in its place. Where it is retired, a person has to say who is who.
func (r *run) overtaken(ctx context.Context, before keywright.Secret) error {
	if r.traits.Reversible {
		r.op.New = before
		return r.stuck(ctx, errors.New("rotation: somebody else has rotated the key since"), "the old token is not retired", r.wayBack())
	}
	r.op.Old = before
	for i := range r.rec.Sinks {
		r.rec.Sinks[i].State = SinkWriting
	}
	return r.issued(ctx)
}

// orUnfinished makes an error one that says to run it again.
func (r *run) orUnfinished(err error) error {
	if ended(err) {
		return err
	}
	return r.unfinished(err)
}

// lagLeft is how long it is until the slowest reader has the token: by the
// provider's clock, and for what this run has delivered by the local one too.
func (r *run) lagLeft() time.Duration {
	r.believe()
	var lag time.Duration
	for i, s := range r.job.Sinks {
		lag = max(lag, r.rec.Sinks[i].Lag)
		if t := s.Traits(); !t.UntilRestart {
			lag = max(lag, t.Lag)
		}
	}
	left := r.rec.Since.Add(lag).Sub(r.clock.atLeast())
	if r.since != nil {
		left = max(left, *r.since+lag-r.clock.clock.Elapsed())
	}
	return max(0, left)
}

// waitForReaders waits for the lag of the sinks, for the acknowledgement, and
// for the old key to be idle.
func (r *run) waitForReaders(ctx context.Context) error {
	for left := r.lagLeft(); left > 0; left = r.lagLeft() {
		if err := r.sleep(ctx, left, "for readers to see the new token", nil); err != nil {
			return err
		}
	}
	until := func(why string, step func() error) error {
		for wait := firstWait; ; wait = min(2*wait, maxWait) {
			err := r.clean(step())
			if err == nil {
				return nil
			}
			if ctx.Err() != nil || !passing(err) {
				return r.unfinished(err)
			}
			if errors.Is(err, ErrNotReady) {
				err = nil // no failure
			}
			if err := r.sleep(ctx, wait, why, err); err != nil {
				return err
			}
		}
	}
	if r.job.Acknowledge != nil {
		if err := until("for readers to acknowledge", func() error { return r.job.Acknowledge(ctx, r.op.New) }); err != nil {
			return err
		}
	}
	if x, ok := r.job.Strategy.(Idler); ok {
		return until("for the old key to be idle", func() error { return x.Idle(ctx, r.op) })
	}
	return nil
}

// stillThere makes sure that nobody has put another token into a sink.
func (r *run) stillThere(ctx context.Context) error {
	for i, s := range r.job.Sinks {
		if !s.Traits().Readable {
			continue
		}
		var reading sink.Reading
		err := r.try(ctx, r.policy.DistributeFor, "for "+s.Name(), func(err error) bool { return errors.Is(err, sink.ErrTemporary) }, func() (err error) {
			reading, err = s.Read(ctx)
			return err
		})
		if err != nil {
			return r.orUnfinished(err)
		}
		if !reading.Token.Equal(r.op.New) {
			err := fmt.Errorf("%w: %s", sink.ErrConflict, s.Name())
			k := &r.rec.Sinks[i]
			if serr := r.enterSink(ctx, k, SinkConflict, err); serr != nil {
				return serr
			}
			// What it holds now is for the next run to judge.
			if serr := r.enter(ctx, StateDistributing); serr != nil {
				return serr
			}
			return r.stuck(ctx, err, "it was confirmed, and somebody has changed it since; the old token is not retired",
				"put the old or the new token back into "+s.Name())
		}
	}
	return nil
}

// retire ends the old token's life.
func (r *run) retire(ctx context.Context) error {
	if r.found == StateRetiring {
		// Much may have happened since an earlier run has looked.
		if err := r.stillThere(ctx); err != nil {
			return err
		}
	}
	err := r.try(ctx, r.policy.DistributeFor, "to retire the old token", passing, func() error {
		err := r.job.Strategy.Retire(ctx, r.op)
		if errors.Is(err, keywright.ErrOutcomeUnknown) {
			r.unsettle()
		}
		return err
	})
	if err != nil {
		return r.orphaned(ctx, err)
	}
	if err := r.sweep(ctx); err != nil {
		return err
	}
	return r.over(ctx, StateDone, r.op.New)
}

// orphaned ends a run that could not end the life of a key.
func (r *run) orphaned(ctx context.Context, err error) error {
	var orphan *OrphanError
	switch {
	case errors.As(err, &orphan):
		return r.stuck(ctx, err, "what the sinks hold is accepted, and so is the token of "+orphan.Key,
			"retire "+orphan.Key+", and nothing else, with the provider's console")
	case errors.Is(err, ErrOrphan):
		return r.stuck(ctx, err, "retire the key that is still live with the provider's console")
	}
	return r.orUnfinished(err)
}

// sweep deletes what earlier attempts left behind.
func (r *run) sweep(ctx context.Context) error {
	x, ok := r.job.Strategy.(Sweeper)
	if !ok {
		return nil
	}
	err := r.try(ctx, r.policy.DistributeFor, "to delete what was left behind", passing, func() error { return x.Sweep(ctx, r.op) })
	if err != nil {
		return r.orphaned(ctx, err)
	}
	return nil
}

// over ends the operation, with current as the token in use.
func (r *run) over(ctx context.Context, as State, current keywright.Secret) error {
	undo := r.change()
	r.current = current
	r.op.Old, r.op.Replaced, r.op.New = keywright.Secret{}, keywright.Secret{}, keywright.Secret{}
	r.rec.Deadline, r.rec.Finished, r.rec.Back, r.rec.Doubt, r.rec.Problem = time.Time{}, r.clock.now(), false, false, ""
	if as == StateDone {
		r.rec.Generation++
		if r.campaign != "" {
			r.rec.Campaign = r.campaign
		}
	}
	if err := r.enter(ctx, as); err != nil {
		undo()
		return err
	}
	return nil
}

// goBack brings the old token back to the sinks, waits for their readers, and
// makes the provider refuse the new one.
func (r *run) goBack(ctx context.Context) error {
	if err := r.oldWorks(ctx); errors.Is(err, ErrNotAccepted) {
		return r.stuck(ctx, fmt.Errorf("rotation: the old token is not accepted any more: %w", err),
			"see with the provider's console which token of "+r.traits.Key+" is accepted, and put it into every sink")
	} else if err != nil {
		return r.orUnfinished(err)
	}
	if r.rec.Since.IsZero() {
		r.handOver(r.op.Old)
		if err := r.deliverBack(ctx); err != nil {
			return err
		}
		r.delivered()
		if err := r.enter(ctx, StateRollingBack); err != nil {
			return err
		}
	}
	for left := r.lagLeft(); left > 0; left = r.lagLeft() {
		if err := r.sleep(ctx, left, "for readers to see the old token", nil); err != nil {
			return err
		}
	}
	undo := r.job.Strategy.(Undoer)
	err := r.try(ctx, r.policy.DistributeFor, "to retire the new token", passing, func() error {
		err := undo.Undo(ctx, r.op)
		if errors.Is(err, keywright.ErrOutcomeUnknown) {
			r.unsettle()
		}
		return err
	})
	if err != nil {
		return r.orphaned(ctx, err)
	}
	if err := r.sweep(ctx); err != nil {
		return err
	}
	return r.over(ctx, StateRolledBack, r.op.Old)
}

// oldWorks returns nil if the provider accepts the old token, and an error that
// matches ErrNotAccepted if it does not.
func (r *run) oldWorks(ctx context.Context) error {
	return r.try(ctx, r.policy.VerifyFor, "to see whether the old token is accepted", func(err error) bool {
		return passing(err) && !errors.Is(err, ErrNotAccepted)
	}, func() error {
		if err := r.job.Strategy.(Undoer).VerifyOld(ctx, r.op); err != nil {
			return err
		}
		return r.lastWord(ctx, r.op.Old)
	})
}

// deliverBack brings the old token to the sinks that may have the new one. A
// sink that held nothing before the rotation gets the old token too.
func (r *run) deliverBack(ctx context.Context) error {
	for i := range r.rec.Sinks {
		if k := &r.rec.Sinks[i]; k.State == SinkPending {
			k.State = SinkConfirmed // it was never written
		} else if k.State != SinkConfirmed {
			k.Held = heldNothing
		}
	}
	return r.deliverAll(ctx, r.op.New, r.op.Old)
}
