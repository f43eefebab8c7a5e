package keywright

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"reflect"
	"slices"
	"strings"
	"sync"
	"time"
)

// Recovery is what reading back found out about a call whose outcome was
// unknown. Errors that match [ErrOutcomeUnknown] offer it through their
// Recover method:
//
//	var lost interface {
//		Recover(context.Context) (*keywright.Recovery, error)
//	}
//	if errors.Is(err, keywright.ErrOutcomeUnknown) && errors.As(err, &lost) {
//		found, err := lost.Recover(ctx)
//		…
//	}
//
// Recover only reads. It returns as soon as the provider shows the change, and
// else keeps looking until the settle time is over (60 seconds from the end of
// the lost attempt, unless [WithSettleTime] says otherwise): only
// then is "not there" a proof. The context may end it sooner; the Recovery
// then says Ambiguous, and it may be called again.
//
// A lost create is told by its parameters and its time, and by not being one
// that this client knows to be another call's. If other processes create the
// same kind of thing at the same time, what is found may be theirs: give a
// credential a name of its own, and see [WithExisting].
type Recovery struct {
	// Outcome is Applied, NotApplied, or Ambiguous if the provider's state
	// cannot tell.
	Outcome Outcome
	// Candidates are the resources that the call made or changed, as the
	// provider has them now: one, or for a create several that all fit.
	Candidates []any

	provisional bool // may change until the settle time is over
}

// Resource returns the one candidate, such as a *Key or a *Credential, and nil
// if there is none or more than one.
func (r *Recovery) Resource() any {
	if r == nil || len(r.Candidates) != 1 {
		return nil
	}
	return r.Candidates[0]
}

// lostCall is what a probe knows of the call it asks about.
type lostCall struct {
	token   Secret    // it authenticated with this
	started time.Time // by our clock
	done    bool      // the provider said 2xx
	call    *byte     // names the call

	existing map[madeID]struct{} // was there before it
}

// others reports whether a resource is known not to have been made by the call.
func (lost *lostCall) others(made *madeIDs, kind string, id ident) bool {
	_, existed := lost.existing[madeID{kind, id}]
	return existed || made.by(kind, id, lost.call)
}

// madeIDs knows which resources were made by which call of this client, so that
// one call's resource is not taken for another's.
type madeIDs struct {
	sync.Mutex
	owner map[madeID]*byte
	turn  []madeID // in order, to forget the oldest
}

type madeID struct {
	kind string
	id   ident
}

// maxMadeIDs is how many resources are remembered: more than can be made within
// the time that a lost create is looked for.
const maxMadeIDs = 4096

// note records that a resource was made by a call.
func (m *madeIDs) note(kind string, id ident, call *byte) {
	m.Lock()
	defer m.Unlock()
	if m.owner == nil {
		m.owner = make(map[madeID]*byte)
	}
	key := madeID{kind, id}
	if _, known := m.owner[key]; !known {
		m.turn = append(m.turn, key)
	}
	m.owner[key] = call
	if len(m.turn) > maxMadeIDs {
		delete(m.owner, m.turn[0])
		m.turn = m.turn[1:]
	}
}

// by reports whether a resource was made by another call than this.
func (m *madeIDs) by(kind string, id ident, call *byte) bool {
	m.Lock()
	defer m.Unlock()
	other, known := m.owner[madeID{kind, id}]
	return known && other != call
}

// recovery returns the Recover function of an error: it probes until there is
// a verdict.
func (cl *call) recovery(probe func(context.Context, lostCall) (*Recovery, error)) func(context.Context) (*Recovery, error) {
	lost := lostCall{
		token: cl.token, started: cl.started, done: cl.status >= 200 && cl.status < 300,
		call: new(byte), existing: cl.cfg.existing,
	}
	settled := time.Now().Add(cl.settleTime()) // the attempt is just over
	return func(ctx context.Context) (*Recovery, error) {
		return settle(ctx, settled, func(ctx context.Context) (*Recovery, error) { return probe(ctx, lost) })
	}
}

// Waits between two probes of one recovery.
const (
	firstProbeWait = 250 * time.Millisecond
	maxProbeWait   = 10 * time.Second
)

// settle probes until the change is seen or the settle time is over.
func settle(ctx context.Context, settled time.Time, probe func(context.Context) (*Recovery, error)) (*Recovery, error) {
	for wait := firstProbeWait; ; wait = min(2*wait, maxProbeWait) {
		// Whether time is up must be known before looking: what is not there
		// when time is up never will be.
		over := !time.Now().Before(settled)
		found, err := probe(ctx)
		switch {
		case err != nil && (over || !passing(err)):
			return &Recovery{Outcome: Ambiguous}, err
		case err == nil && (over || found.Outcome != NotApplied && !found.provisional):
			return found, nil
		}
		if err := sleep(ctx, min(wait, max(0, time.Until(settled)))); err != nil {
			return &Recovery{Outcome: Ambiguous}, err
		}
	}
}

// passing reports whether a read that failed may succeed later.
func passing(err error) bool {
	var transport *TransportError
	return errors.Is(err, ErrServer) || errors.Is(err, ErrRateLimited) ||
		errors.As(err, &transport) && !permanent(transport.cause) &&
			!errors.Is(err, context.Canceled)
}

// probeIssued looks for the outcome of a rotation: it reads the resource and
// compares its secret with the old one.
func probeIssued[T any, P resource[T]](retrieve func(context.Context) (P, error), old Secret) func(context.Context, lostCall) (*Recovery, error) {
	return func(ctx context.Context, lost lostCall) (*Recovery, error) {
		v, err := retrieve(ctx)
		if err != nil {
			return nil, err
		}
		now := secretOf(v)
		found := &Recovery{Candidates: []any{v}}
		switch {
		case now.IsZero():
			found.Outcome = Ambiguous // masked: rotated or not, the secret cannot be read
			if lost.done {
				found.Outcome = ResultLost
			}
		case now.Equal(old), now.Equal(lost.token):
			found.Outcome = NotApplied
		case lost.done, !old.IsZero():
			found.Outcome = Applied
		default:
			// The old token is not known, so nothing can be compared; but once
			// all is settled, what was read is the token that is accepted.
			found.Outcome, found.provisional = Ambiguous, true
		}
		return found, nil
	}
}

// probeUpdated looks for the outcome of an update: it reads the resource and
// compares what was asked for with what is there.
func probeUpdated[T any, P resource[T]](retrieve func(context.Context) (P, error), compare func(P) Outcome) func(context.Context, lostCall) (*Recovery, error) {
	return func(ctx context.Context, lost lostCall) (*Recovery, error) {
		v, err := retrieve(ctx)
		if err != nil {
			return nil, err
		}
		found := &Recovery{Outcome: Applied, Candidates: []any{v}}
		if !lost.done {
			found.Outcome = compare(v)
		}
		return found, nil
	}
}

// createdSlack allows for the whole seconds of a Date header.
const createdSlack = 2 * time.Second

// probeLimit bounds how many resources a probe looks through.
const probeLimit = 1000

// probeCreated looks for the outcome of a create: it goes through a list,
// newest first, for resources that fit and are no older than the call. The
// provider's own clock, from a Date header, says how old that is.
func probeCreated[T any, P resource[T]](s *service, list func(context.Context, *Meta) (*Page[T], error), made func(P) time.Time, fits func(P) bool) func(context.Context, lostCall) (*Recovery, error) {
	return func(ctx context.Context, lost lostCall) (*Recovery, error) {
		var meta Meta
		page, err := list(ctx, &meta)
		if err != nil {
			return nil, err
		}
		since := lost.started
		if date, err := http.ParseTime(meta.Header.Get("Date")); err == nil {
			since = since.Add(time.Until(date))
		}
		since = since.Add(-createdSlack)
		found := &Recovery{Outcome: NotApplied}
		for seen := 0; ; {
			for _, v := range page.Items {
				p := P(v)
				at := made(p)
				if !fits(p) || !at.IsZero() && at.Before(since) || lost.others(&s.c.made, p.kind(), p.ident()) {
					continue
				}
				if at.IsZero() {
					found.Outcome = Ambiguous // nobody knows how old it is
				}
				found.Candidates = append(found.Candidates, v)
			}
			if seen += len(page.Items); !page.HasMore {
				break
			}
			if seen >= probeLimit {
				found.Outcome = Ambiguous // there is more than was looked at
				return found, nil
			}
			if page, err = page.Next(ctx); err != nil {
				return nil, err
			}
		}
		switch {
		case found.Outcome == Ambiguous:
		case len(found.Candidates) == 1:
			found.Outcome = Applied
			p := P(found.Candidates[0].(*T))
			s.c.made.note(p.kind(), p.ident(), lost.call)
		case len(found.Candidates) > 1:
			found.Outcome = Ambiguous // one of them is ours
		}
		return found, nil
	}
}

// remove carries out a delete. One whose answer was lost is looked into: if the
// resource is gone that is success, and if it is still there after the settle
// time the delete is sent again.
func (s *service) remove(ctx context.Context, r *request, look func(context.Context) error, opts []CallOption) error {
	if s == nil || s.c == nil {
		return ErrNotInitialized
	}
	cfg, err := s.c.callOptions(ctx, r.op, opts)
	if err != nil {
		return err
	}
	if cfg.total > 0 { // bounds all of this, not each sending
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, cfg.total)
		defer cancel()
		cfg.total = 0
	}
	if cfg.meta == nil {
		cfg.meta = new(Meta)
	}
	r.probe = func(ctx context.Context, _ lostCall) (*Recovery, error) {
		err := look(ctx)
		if isGone(err) {
			return &Recovery{Outcome: Applied}, nil
		}
		return &Recovery{Outcome: NotApplied}, err
	}
	attempts := cfg.retry.MaxAttempts
	for first := true; ; first = false {
		cl, err := s.c.send(ctx, r, cfg)
		if err == nil {
			cl.release()
			return nil
		}
		if !first && isGone(err) {
			return nil
		}
		var lost interface {
			Recover(context.Context) (*Recovery, error)
		}
		if OutcomeOf(err) != Ambiguous || !errors.As(err, &lost) || errors.Is(err, context.Canceled) {
			return err
		}
		var found *Recovery
		unresolved := ctx.Err()
		if unresolved == nil {
			found, unresolved = lost.Recover(ctx)
		}
		if stopped := ctx.Err(); stopped != nil {
			return &TransportError{
				Provider: s.c.provider, Op: r.op.name, Attempts: cfg.meta.Attempts, cause: stopped, ctx: contextCause(ctx), last: err,
				fate: fate{outcome: Ambiguous, recover: lost.Recover},
			}
		}
		if unresolved != nil {
			return err
		}
		if found.Outcome == Applied {
			return nil
		}
		if attempts -= cfg.meta.Attempts; attempts <= 0 {
			return err
		}
		cfg.retry.MaxAttempts = attempts
	}
}

// isGone reports whether an error is the provider's word that a resource does
// not exist.
func isGone(err error) bool {
	var api *APIError
	return errors.As(err, &api) && (api.StatusCode == http.StatusNotFound || api.StatusCode == http.StatusGone)
}

// reflects compares what an update asked for with what the provider shows. A
// member that is shown and differs means NotApplied; if none does, but one is
// not shown at all, nobody can tell.
func reflects(params any, shown map[string]any) Outcome {
	asked, have := asJSON(params), asJSON(shown)
	verdict := Applied
	for name, want := range asked {
		got, visible := have[name]
		switch {
		case !visible:
			verdict = Ambiguous
		case !sameValue(want, got):
			return NotApplied
		}
	}
	return verdict
}

// asJSON returns the members of a value as they are sent.
func asJSON(v any) (members map[string]any) {
	if b, err := json.Marshal(v); err == nil {
		_ = json.Unmarshal(b, &members) // what is no object has no members
	}
	return members
}

// sameValue compares two JSON values as a provider would: null is the same as
// an empty list or text.
func sameValue(a, b any) bool {
	if isEmpty(a) && isEmpty(b) {
		return true
	}
	if x, ok := a.([]any); ok {
		y, _ := b.([]any)
		return sameSet(x, y)
	}
	if x, ok := a.(string); ok {
		y, _ := b.(string)
		if t, err := time.Parse(time.RFC3339, x); err == nil {
			u, err := time.Parse(time.RFC3339, y)
			return err == nil && t.Truncate(time.Microsecond).Equal(u.Truncate(time.Microsecond))
		}
	}
	return reflect.DeepEqual(a, b)
}

// sameSet compares lists of ids, whose order and case mean nothing.
func sameSet(a, b []any) bool {
	fold := func(list []any) []string {
		out := make([]string, len(list))
		for i, v := range list {
			s, _ := v.(string)
			out[i] = strings.ToLower(s)
		}
		slices.Sort(out)
		return out
	}
	return slices.Equal(fold(a), fold(b))
}

func isEmpty(v any) bool {
	switch v := v.(type) {
	case nil:
		return true
	case string:
		return v == ""
	case []any:
		return len(v) == 0
	}
	return false
}
