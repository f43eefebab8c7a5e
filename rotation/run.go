package rotation

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"strings"
	"time"

	"github.com/keywright/keywright"
	"github.com/keywright/keywright/rotation/sink"
)

// run is one run of a job, which holds the job's lock.
type run struct {
	*Engine
	job      Job
	policy   Policy
	traits   Traits
	session  Session
	vault    vault
	clock    *timeline
	campaign string // of the fleet that runs the job

	rec     *record
	op      *Operation
	current keywright.Secret // in use while nothing is under way
	saved   []byte           // the latest record; nil if that is in doubt
	resumed bool
	waited  time.Duration
	found   State          // that the run was begun in
	forward bool           // a later record was lost: there may be no way back
	settled time.Duration  // by the local clock, when what this run has sent must have died
	since   *time.Duration // by the local clock, when the last sink was confirmed, if by this run
}

// pause ends a run that would have to wait too long.
type pause struct {
	until time.Time
	cause error // what is waited out, if it is a failure
}

func (p *pause) Error() string { return "rotation: waits until " + p.until.Format(time.RFC3339) }

// run does something to a job under its lock.
func (e *Engine) run(ctx context.Context, job Job, campaign string, do func(*run, context.Context) error) (*Result, error) {
	if err := job.check(); err != nil {
		return nil, err
	}
	ctx = e.context(ctx)
	session, err := e.journal.Begin(ctx, job.Name)
	if err != nil {
		return nil, err
	}
	r := &run{Engine: e, job: job, policy: job.Policy.withDefaults(), traits: job.Strategy.Traits(), session: session, campaign: campaign}
	return r.whole(ctx, do)
}

// whole is a run from beginning to end, whatever ends it.
func (r *run) whole(ctx context.Context, do func(*run, context.Context) error) (result *Result, err error) {
	defer func() { err = errors.Join(err, r.session.Close()) }()
	return r.under(ctx, do)
}

func (r *run) under(ctx context.Context, do func(*run, context.Context) error) (*Result, error) {
	if err := r.load(ctx); err != nil {
		return nil, r.named(err)
	}
	r.found = r.rec.State
	err := do(r, ctx)
	var p *pause
	if errors.As(err, &p) || errors.Is(err, ErrUnfinished) {
		r.remember(ctx, p, err)
	}
	result := &Result{
		Job: r.job.Name, Operation: r.rec.Operation, State: r.rec.State, Resumed: r.resumed,
		Finished: r.rec.Finished, Fingerprint: r.vault.fingerprint(r.current),
	}
	if p != nil {
		result.ResumeAt = p.until
		return result, nil
	}
	if err != nil {
		err = r.class(ctx, r.named(err))
		r.observe(Failed{r.job.Name, r.rec.Operation, r.rec.State, err})
	}
	return result, err
}

// remember makes durable what a run that ends in between has learned. If that
// fails, the next one learns it again.
func (r *run) remember(ctx context.Context, p *pause, err error) {
	if r.rec.State.Finished() {
		return
	}
	cause := err
	var u *unfinishedError
	switch {
	case p != nil:
		cause = p.cause
	case errors.As(err, &u):
		cause = u.waitedOut
		if cause == nil {
			cause = u.cause
		}
	}
	if r.rec.Problem = ""; cause != nil {
		r.rec.Problem = r.clean(cause).Error()
	}
	_ = r.store(context.WithoutCancel(ctx))
}

// note adds what kept a run from going on to what is durable, and nothing else
// of what the run was about to write.
func (r *run) note(ctx context.Context, cause error) {
	if r.saved == nil {
		return
	}
	rec, err := decodeRecord(r.saved, r.job.Name)
	if err != nil || rec.State.Finished() || rec.State == StateStuck {
		return
	}
	rec.Problem = r.clean(cause).Error()
	_ = r.session.Save(context.WithoutCancel(ctx), rec.encode())
}

// named puts the job's name into a refusal.
func (r *run) named(err error) error {
	var refused *RefusedError
	if errors.As(err, &refused) {
		refused.Job = r.job.Name
	}
	return err
}

// class makes sure that an error says whether anything is under way.
func (r *run) class(ctx context.Context, err error) error {
	for _, class := range [...]error{ErrRefused, ErrNotIssued, ErrUnfinished, ErrStuck, ErrNoWayBack} {
		if errors.Is(err, class) {
			return err
		}
	}
	if r.rec.State.Finished() {
		return fmt.Errorf("%w: %w", ErrNotIssued, err)
	}
	r.note(ctx, err)
	return r.unfinished(err)
}

// load reads the journal, or begins it.
func (r *run) load(ctx context.Context) error {
	b, damaged, err := r.session.Load(ctx)
	if err != nil {
		return err
	}
	r.vault = vault{sealer: r.sealer, job: r.job.Name}
	if !damaged { // else what is known of that must not be lost
		r.saved = b
	}
	if b == nil {
		r.rec = &record{Version: recordVersion, Job: r.job.Name, Strategy: r.traits.Name, Key: r.traits.Key, Lineage: randomHex(16), State: StateIdle}
		r.vault.key = []byte(randomHex(64))
		r.rec.FingerprintKey, err = r.vault.seal(ctx, keywright.NewSecret(string(r.vault.key)))
	} else if r.rec, err = decodeRecord(b, r.job.Name); err == nil {
		var key keywright.Secret
		key, err = r.vault.open(ctx, r.rec.FingerprintKey)
		r.vault.key = []byte(key.Reveal())
	}
	if err != nil {
		return err
	}
	r.clock = newTimeline(r.Engine.clock, r.rec.Offset, r.rec.Latest)
	if r.rec.State == StateStuck {
		r.rec.State, r.rec.Resume, r.rec.Steps = r.rec.Resume, "", nil
	}
	if !r.rec.State.Finished() {
		r.rec.Problem = "" // of the run before
	}
	switch {
	case r.rec.Strategy == r.traits.Name && r.rec.Key == r.traits.Key:
	case !r.rec.State.Finished():
		return refuse(ReasonUnfinished, "a rotation of "+r.rec.Key+" by "+r.rec.Strategy+" is under way", "resume it with that strategy and key first")
	case r.rec.Strategy == r.traits.Name:
		return refuse(ReasonJob, "its journal is the one of "+r.rec.Key+", not of "+r.traits.Key, "give another key another job, or name the key as before")
	default:
		r.rec.Strategy, r.rec.Key = r.traits.Name, r.traits.Key
		r.rec.Data, r.rec.Current, r.rec.Issued = nil, nil, time.Time{}
	}
	r.op = &Operation{
		Job: r.job.Name, ID: r.rec.Operation, Lineage: r.rec.Lineage, Marker: marker(r.rec.Lineage, r.rec.Operation),
		Data: maps.Clone(r.rec.Data), clock: r.clock,
	}
	if r.op.Data == nil {
		r.op.Data = make(map[string]string)
	}
	for _, t := range [...]struct {
		to     *keywright.Secret
		sealed []byte
	}{{&r.op.Old, r.rec.Old}, {&r.op.Replaced, r.rec.Replaced}, {&r.op.New, r.rec.New}, {&r.current, r.rec.Current}} {
		if *t.to, err = r.vault.open(ctx, t.sealed); err != nil {
			return err
		}
	}
	return r.interrupted(ctx, damaged)
}

func marker(lineage, operation string) string { return "keywright-" + lineage + "-" + operation }

// interrupted makes of the state that an earlier run was killed in the one to
// go on from. What may have been sent shortly before is waited out.
func (r *run) interrupted(ctx context.Context, damaged bool) error {
	if damaged {
		r.observe(Failed{r.job.Name, r.rec.Operation, r.rec.State, errDamaged})
	}
	switch s := r.rec.State; {
	case s == StateIntent, damaged && (s == StatePlanned || s == StateResolving):
		// After a damaged record nobody knows whether the call was begun.
		r.unsettle()
		return r.enter(ctx, StateResolving)
	case s == StateRetiring, s == StateRollingBack:
		r.unsettle()
	case s == StateConverging && damaged:
		r.unsettle()
		r.forward = true
	case s == StateResolving:
		r.reserve(ctx)
	}
	switch r.rec.State {
	case StateVerified, StateDistributing, StateConverging, StateRetiring:
		r.handOver(r.op.New)
	}
	return nil
}

// unsettle notes that a call may be on its way until the settle time is over.
func (r *run) unsettle() {
	r.rec.Quiet = r.clock.now().Add(r.policy.SettleTime)
	r.settled = r.clock.clock.Elapsed() + r.policy.SettleTime
}

// quiet returns how long it is until nothing that was sent can arrive any more:
// by the provider's clock, and for what this run has sent by the local one too,
// so that no answer with a wrong date makes it shorter.
func (r *run) quiet() time.Duration {
	r.believe()
	left := r.rec.Quiet.Sub(r.clock.atLeast())
	if r.settled > 0 {
		left = max(left, r.settled-r.clock.clock.Elapsed())
	}
	return max(0, left)
}

// believe corrects times that were written down by a clock that was ahead.
func (r *run) believe() {
	now := r.clock.now()
	for _, t := range [...]*time.Time{&r.rec.Since, &r.rec.Finished, &r.rec.Issued, &r.rec.Intent} {
		if t.After(now) {
			*t = now
		}
	}
	if latest := now.Add(r.policy.SettleTime); r.rec.Quiet.After(latest) {
		r.rec.Quiet = latest
	}
}

// reserve makes room for the next record. Where it is not needed for safety it
// may fail.
func (r *run) reserve(ctx context.Context) {
	if err := r.session.Reserve(ctx); err != nil {
		r.observe(Failed{r.job.Name, r.rec.Operation, r.rec.State, err})
	}
}

// handOver gives a token to the client of this process.
func (r *run) handOver(token keywright.Secret) {
	if r.job.Self != nil {
		r.job.Self.Swap(token)
	}
}

// enter makes a state durable.
func (r *run) enter(ctx context.Context, to State) error {
	from, trying := r.rec.State, r.rec.Trying
	r.rec.State, r.rec.Trying = to, time.Time{}
	if err := r.save(ctx, auditEntry{From: from, To: to, Problem: r.rec.Problem}); err != nil {
		r.rec.State, r.rec.Trying = from, trying
		return err
	}
	r.observe(StateChanged{
		r.job.Name, r.rec.Operation, from, to,
		r.vault.fingerprint(r.op.Old), r.vault.fingerprint(r.op.New), r.rec.Latest,
	})
	if !r.rec.Deadline.IsZero() && !to.Finished() {
		r.observe(Window{r.job.Name, r.rec.Operation, r.rec.Deadline.Sub(r.rec.Latest)})
	}
	return nil
}

// enterSink makes the state of a sink durable.
func (r *run) enterSink(ctx context.Context, k *sinkRecord, to SinkState, problem error) error {
	k.State, k.Problem = to, ""
	if problem != nil {
		k.Problem = problem.Error()
	}
	if to == SinkConfirmed {
		k.At, r.rec.Trying = r.clock.now(), time.Time{}
	}
	if err := r.save(ctx, auditEntry{Sink: k.Name, SinkState: to, Problem: k.Problem}); err != nil {
		return err
	}
	r.observe(SinkChanged{r.job.Name, r.rec.Operation, k.Name, to, r.rec.Latest})
	return nil
}

// save writes the record, and then a line of the audit trail. What has happened
// must be written down even if ctx has ended meanwhile. A trail that cannot be
// written is reported, and stops nothing.
func (r *run) save(ctx context.Context, a auditEntry) error {
	ctx = context.WithoutCancel(ctx)
	if err := r.store(ctx); err != nil {
		return err
	}
	last, err := r.session.Last(ctx)
	if err == nil {
		a.Time, a.Operation = r.rec.Latest.Format(time.RFC3339Nano), r.rec.Operation
		a.Old, a.New = r.vault.fingerprint(r.op.Old), r.vault.fingerprint(r.op.New)
		err = r.session.Append(ctx, a.line(last))
	}
	if err != nil {
		r.observe(Failed{r.job.Name, r.rec.Operation, r.rec.State, err})
	}
	return nil
}

// store makes the record durable.
func (r *run) store(ctx context.Context) error {
	rec := r.rec
	rec.Data, rec.Offset, rec.Latest = r.op.Data, r.clock.offset(), r.clock.now()
	for _, t := range [...]struct {
		to    *[]byte
		token keywright.Secret
	}{{&rec.Old, r.op.Old}, {&rec.Replaced, r.op.Replaced}, {&rec.New, r.op.New}, {&rec.Current, r.current}} {
		var err error
		if *t.to, err = r.vault.reseal(ctx, *t.to, t.token); err != nil {
			return err
		}
	}
	r.saved = nil
	b := rec.encode()
	if err := r.session.Save(ctx, b); err != nil {
		return err
	}
	r.saved = b
	return nil
}

// rotate begins a rotation, or goes on with one.
func (r *run) rotate(ctx context.Context) error {
	if r.rec.State.Finished() {
		if r.campaign != "" && r.rec.Campaign == r.campaign && r.rec.State == StateDone {
			return nil // an earlier run of this campaign did it
		}
		if err := r.plan(ctx); err != nil {
			return err
		}
	} else {
		r.resumed = true
	}
	return r.onward(ctx)
}

// resume goes on with a rotation, if one is under way.
func (r *run) resume(ctx context.Context) error {
	r.resumed = !r.rec.State.Finished()
	return r.onward(ctx)
}

// goOn goes on with a rotation, if one is under way that may have sent
// something.
func (r *run) goOn(ctx context.Context) error {
	if r.rec.State == StatePlanned {
		return nil
	}
	return r.resume(ctx)
}

// onward goes on the way that the rotation was last sent.
func (r *run) onward(ctx context.Context) error {
	if r.rec.Back && !r.rec.State.Finished() {
		return r.rollback(ctx)
	}
	return r.advance(ctx)
}

// rollback takes a rotation back.
func (r *run) rollback(ctx context.Context) error {
	_, undoes := r.job.Strategy.(Undoer)
	switch s := r.rec.State; {
	case s.Finished():
		return fmt.Errorf("%w: nothing is under way", ErrNoWayBack)
	case s == StatePlanned:
		return r.giveUp(ctx, nil)
	case !undoes || !r.traits.Reversible:
		return fmt.Errorf("%w: %s goes forward only; run Resume", ErrNoWayBack, r.traits.Name)
	case s == StateRetiring, r.forward:
		return fmt.Errorf("%w: the old token is being retired; run Resume", ErrNoWayBack)
	case r.op.Old.IsZero():
		return fmt.Errorf("%w: the old token is not known; run Resume", ErrNoWayBack)
	case s == StateResolving:
		r.rec.Back = true
		if err := r.resolve(ctx, false); err != nil || r.rec.State.Finished() {
			return err
		}
	}
	r.resumed = true
	if r.rec.State != StateRollingBack {
		if err := r.oldWorks(ctx); errors.Is(err, ErrNotAccepted) {
			return fmt.Errorf("%w: the old token is not accepted any more: %w", ErrNoWayBack, err)
		} else if err != nil {
			return r.orUnfinished(err)
		}
		for i := range r.rec.Sinks {
			if k := &r.rec.Sinks[i]; k.State != SinkPending {
				k.State = SinkWriting
			}
		}
		r.rec.Since, r.since, r.rec.Back = time.Time{}, nil, false
		if err := r.enter(ctx, StateRollingBack); err != nil {
			return err
		}
	}
	return r.advance(ctx)
}

// advance takes one step after the other until nothing is under way.
func (r *run) advance(ctx context.Context) error {
	for {
		if err := r.sameSinks(ctx); err != nil {
			return err
		}
		var err error
		switch r.rec.State {
		case StatePlanned:
			if r.resumed { // by an earlier run: look again
				if err = r.plan(ctx); err != nil {
					return err
				}
				r.resumed = false
			}
			err = r.issue(ctx)
		case StateResolving:
			err = r.resolve(ctx, true)
		case StateIssued:
			err = r.verify(ctx)
		case StateVerified:
			err = r.extend(ctx)
		case StateDistributing:
			err = r.distribute(ctx)
		case StateConverging:
			err = r.converge(ctx)
		case StateRetiring:
			err = r.retire(ctx)
		case StateRollingBack:
			err = r.goBack(ctx)
		default:
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// giveUp ends an attempt that has issued nothing.
func (r *run) giveUp(ctx context.Context, cause error) error {
	if r.rec.Doubt && r.traits.Outage {
		// An earlier call may have taken the readers' token away: it goes on
		// until they have another.
		r.rec.Attempts = 0
		return r.unfinished(errors.Join(cause, r.enter(ctx, StateResolving)))
	}
	undo := r.change()
	if !r.op.Old.IsZero() {
		r.current = r.op.Old
	}
	r.op.Old, r.op.Replaced, r.op.New = keywright.Secret{}, keywright.Secret{}, keywright.Secret{}
	r.rec.Sinks, r.rec.Deadline, r.rec.Attempts, r.rec.Back, r.rec.Doubt = nil, time.Time{}, 0, false, false
	r.rec.Problem = ""
	if cause != nil {
		r.rec.Problem = cause.Error()
	}
	if err := r.enter(ctx, StateIdle); err != nil {
		undo()
		return r.unfinished(errors.Join(cause, err))
	}
	if cause == nil {
		return nil
	}
	return fmt.Errorf("%w: %w", ErrNotIssued, cause)
}

// change returns a function that takes back what is about to change, if it
// cannot be made durable.
func (r *run) change() (undo func()) {
	rec, op, current := *r.rec, *r.op, r.current
	return func() { *r.rec, *r.op, r.current = rec, op, current }
}

// stuck ends a run that needs a person.
func (r *run) stuck(ctx context.Context, cause error, steps ...string) error {
	steps = append(steps, "then run Resume")
	err := &StuckError{Job: r.job.Name, State: r.rec.State, Steps: steps, Err: cause}
	r.rec.Resume, r.rec.Problem, r.rec.Steps = r.rec.State, cause.Error(), steps
	if serr := r.enter(ctx, StateStuck); serr != nil {
		return errors.Join(err, serr)
	}
	return err
}

// unfinished ends a run that can go on later.
func (r *run) unfinished(cause error) error {
	return &unfinishedError{job: r.job.Name, state: r.rec.State, cause: cause}
}

// unfinishedError is a run that ended with a rotation under way.
type unfinishedError struct {
	job   string
	state State
	cause error

	waitedOut error // the failure that it was waiting after, if it was interrupted there
}

func (e *unfinishedError) Error() string {
	return fmt.Sprintf("%v (%s, in %s): %v", ErrUnfinished, e.job, e.state, e.cause)
}

func (e *unfinishedError) Unwrap() []error { return []error{ErrUnfinished, e.cause} }

// Waits between two tries of a step.
const (
	firstWait = 250 * time.Millisecond
	maxWait   = 10 * time.Second
)

// sleep waits for d, unless that makes the run wait longer than the policy
// allows.
func (r *run) sleep(ctx context.Context, d time.Duration, why string, cause error) error {
	r.waited += d
	if m := r.policy.MaxWait; m != 0 && r.waited > m {
		return &pause{r.clock.atLeast().Add(d), cause}
	}
	r.observe(Waiting{r.job.Name, r.rec.Operation, r.rec.State, d, why})
	if err := r.clock.sleepUntil(ctx, r.clock.atLeast().Add(d), r.askTime); err != nil {
		return &unfinishedError{job: r.job.Name, state: r.rec.State, cause: err, waitedOut: cause}
	}
	return nil
}

// askTime has the strategy look at the provider, for the time that it says.
func (r *run) askTime(ctx context.Context) {
	look := *r.op
	if look.New.IsZero() {
		_, _ = r.job.Strategy.Resolve(ctx, &look)
	} else {
		_ = r.job.Strategy.Verify(ctx, &look)
	}
}

// try calls step until it succeeds or fails for good, for at most d, which
// earlier runs may have begun.
func (r *run) try(ctx context.Context, d time.Duration, why string, again func(error) bool, step func() error) error {
	for wait := firstWait; ; wait = min(2*wait, maxWait) {
		err := r.clean(step())
		switch {
		case err == nil:
			r.rec.Trying = time.Time{}
			return nil
		case ended(err):
			return err
		case ctx.Err() != nil:
			return r.unfinished(err)
		case !again(err):
			return err
		}
		now := r.clock.atLeast()
		if r.rec.Trying.IsZero() || r.rec.Trying.After(now) {
			r.rec.Trying = now
		}
		if !now.Before(r.rec.Trying.Add(d)) {
			r.rec.Trying = time.Time{} // the next run has as long
			return err
		}
		r.observe(Failed{r.job.Name, r.rec.Operation, r.rec.State, err})
		var api *keywright.APIError
		if errors.As(err, &api) {
			wait = max(wait, min(api.RetryAfter, time.Minute))
		}
		if err := r.sleep(ctx, wait, why, err); err != nil {
			return err
		}
	}
}

// cleaned is an error whose text has lost the tokens in it. It keeps the
// classes of what it was, and nothing that could be printed.
type cleaned struct {
	text    string
	classes []error
}

func (e *cleaned) Error() string   { return e.text }
func (e *cleaned) Unwrap() []error { return e.classes }

// clean takes the tokens of this rotation out of an error: what a job's own
// functions and sinks return may repeat them.
func (r *run) clean(err error) error {
	if err == nil {
		return nil
	}
	text := err.Error()
	for _, t := range r.op.tokens(r.op.Old, r.op.New, r.op.Replaced, r.current) {
		text = strings.ReplaceAll(text, t.Reveal(), "[REDACTED]")
	}
	if text == err.Error() {
		return err
	}
	e := &cleaned{text: text}
	for _, class := range [...]error{
		ErrNotAccepted, ErrNotReady, ErrOrphan, ErrNoAccess, sink.ErrConflict, sink.ErrTemporary, sink.ErrRefused,
		keywright.ErrServer, keywright.ErrRateLimited, context.Canceled, context.DeadlineExceeded,
	} {
		if errors.Is(err, class) {
			e.classes = append(e.classes, class)
		}
	}
	return e
}

// ended reports whether an error is this run's own way of ending.
func ended(err error) bool {
	var p *pause
	return errors.As(err, &p) || errors.Is(err, ErrUnfinished) || errors.Is(err, ErrStuck)
}

// list joins names for people.
func list(names []string) string { return strings.Join(names, ", ") }
