package rotation

import (
	"context"
	"errors"
	"net/http"
	"time"

	"github.com/keywright/keywright"
)

// Strategy is how the keys of one provider are rotated. The engine keeps the
// journal, delivers the token and waits; a strategy makes the provider's
// calls. This package has [RicloudPaired], [RicloudOverlap], [AceDataSwap] and
// [AceDataInPlace]; package rotationtest tests another.
//
// Every method may be called again after a crash with an [Operation] that is
// as it was when it was last made durable. Only Issue, Retire and the optional
// Extend, Undo and Sweep may change anything at the provider, and all of them
// but Issue must have the same effect twice as once.
//
// A strategy may also be an [Extender], an [Undoer], a [Sweeper] or an
// [Idler].
type Strategy interface {
	// Traits says what can be expected. It does no I/O.
	Traits() Traits

	// Inspect reads the key. It sets op.Old to the token in use, if the
	// provider shows it, and op.Replaced to the token that Issue will replace;
	// it may write op.Data. It returns a [*RefusedError] for what must not be
	// rotated.
	Inspect(ctx context.Context, op *Operation) error

	// Issue makes the one call that issues a token, once, and sets op.New. Its
	// error says through keywright.OutcomeOf what became of the call.
	Issue(ctx context.Context, op *Operation) error

	// Resolve finds out, by reading, whether an Issue whose answer was lost
	// took effect, and sets op.New if it did. It may delete what Issue made
	// and nobody can read.
	Resolve(ctx context.Context, op *Operation) (Verdict, error)

	// Verify returns nil if the provider accepts op.New and shows no other
	// token as current. If it shows another, Verify adopts it: it sets op.New.
	// An error that matches [ErrNotAccepted] says that the provider does not
	// accept the token; any other says nothing about it.
	Verify(ctx context.Context, op *Operation) error

	// Retire makes the provider refuse op.Old, if that is not so by itself.
	// It may be called many times. An error that matches [ErrOrphan] says that
	// the provider will not.
	Retire(ctx context.Context, op *Operation) error
}

// Extender is a [Strategy] whose new key is born with a short life, which
// Extend makes a full one when the key has proved itself.
type Extender interface {
	Extend(ctx context.Context, op *Operation) error
}

// Undoer is a [Strategy] that can go back.
type Undoer interface {
	// VerifyOld returns nil if the provider accepts op.Old, and an error that
	// matches [ErrNotAccepted] if it does not. There is no way back then.
	VerifyOld(ctx context.Context, op *Operation) error
	// Undo makes the provider refuse op.New, when the sinks hold op.Old again.
	Undo(ctx context.Context, op *Operation) error
}

// Sweeper is a [Strategy] that can find what earlier runs of this journal left
// behind, and delete it.
type Sweeper interface {
	Sweep(ctx context.Context, op *Operation) error
}

// Idler is a [Strategy] that can see whether anybody still uses op.Old. Idle
// returns an error that matches [ErrNotReady] while somebody does.
type Idler interface {
	Idle(ctx context.Context, op *Operation) error
}

// Verdict is what Resolve found out.
type Verdict int

// Verdicts. Unknown is the zero value.
const (
	Unknown     Verdict = iota // the provider's state cannot tell
	Executed                   // a token was issued, and op.New is it
	NotExecuted                // no token was issued
	Repeatable                 // nobody can tell, and to ask again harms nothing
)

// String returns the verdict's name.
func (v Verdict) String() string {
	return [...]string{"unknown", "executed", "not executed", "repeatable"}[v]
}

// Traits is what can be expected of a strategy.
type Traits struct {
	Name     string // "ricloud-paired"; written to the journal
	Provider string // "ricloud", "acedata"
	Key      string // names the key for people: "keys 1 and 2"

	// Overlap is how long the old token outlives Issue: zero, not at all;
	// [UntilRetired], as long as need be.
	Overlap time.Duration
	// Outage says that the service is interrupted between Issue and the last
	// sink.
	Outage bool
	// Reversible says that the strategy is an [Undoer], so that the point of
	// no return is Retire and not Issue.
	Reversible bool

	Issue  string // the call, for people: "POST /keys/2/rotate"
	Extend string // likewise; empty if it is no Extender
	Retire string // likewise; empty if there is none
}

// UntilRetired is an overlap that lasts until the old token is retired.
const UntilRetired = time.Duration(-1)

// Operation is one rotation, as its strategy sees it. The engine makes it
// durable before and after every step.
type Operation struct {
	Job     string // name of the job
	ID      string // of this operation: 16 random hexadecimal digits
	Lineage string // of this journal: 16 random hexadecimal digits
	// Marker is for what Issue creates, so that it can be found again:
	// "keywright-" and the two above.
	Marker string

	Old      keywright.Secret // the token in use before
	Replaced keywright.Secret // the token that Issue replaces, where that is another
	New      keywright.Secret // zero until there is one

	// Known are other tokens that were found, in readable sinks and in the
	// journal: places to look for access when the usual one is gone.
	Known []keywright.Secret

	// Data is the strategy's own memory. It is durable, holds no secret, and
	// outlives the operation: the next one begins with it.
	Data map[string]string

	// Window is when the overlap of the operation before ends, by the
	// provider's clock; zero if there was none.
	Window time.Time

	clock *timeline
}

// NewOperation returns an operation that has not begun, for tests of a
// strategy. A nil clock is the system's.
func NewOperation(job string, clock Clock) *Operation {
	if clock == nil {
		clock = newSystemClock()
	}
	id, lineage := randomHex(16), randomHex(16)
	return &Operation{
		Job: job, ID: id, Lineage: lineage, Marker: marker(lineage, id), Data: make(map[string]string),
		clock: newTimeline(clock, 0, time.Time{}),
	}
}

// Now returns the time by the provider's clock, as far as it is known.
func (op *Operation) Now() time.Time { return op.clock.now() }

// Observe takes the provider's time from the Date header of an answer. A
// strategy calls it after each call, so that no jump of the local clock makes
// a deadline wrong.
func (op *Operation) Observe(answer http.Header) {
	if t, err := http.ParseTime(answer.Get("Date")); err == nil {
		op.clock.observe(t)
	}
}

// watched returns a call option and a function to call after the call, which
// observes the provider's time.
func (op *Operation) watched() (keywright.CallOption, func()) {
	meta := new(keywright.Meta)
	return keywright.WithMeta(meta), func() { op.Observe(meta.Header) }
}

// isBefore reports whether a token is one from before: a provider that shows
// it is behind its own answer.
func (op *Operation) isBefore(token keywright.Secret) bool {
	return !token.IsZero() && (token.Equal(op.Old) || token.Equal(op.Replaced))
}

// tokens returns the distinct tokens that might give access, the given ones
// first.
func (op *Operation) tokens(first ...keywright.Secret) []keywright.Secret {
	var out []keywright.Secret
next:
	for _, t := range append(first, op.Known...) {
		if t.IsZero() {
			continue
		}
		for _, have := range out {
			if have.Equal(t) {
				continue next
			}
		}
		out = append(out, t)
	}
	return out
}

// passing reports whether what failed may succeed later without anybody's
// doing.
func passing(err error) bool {
	var transport *keywright.TransportError
	return errors.Is(err, keywright.ErrServer) || errors.Is(err, keywright.ErrRateLimited) || errors.As(err, &transport) ||
		errors.Is(err, ErrNotReady) || errors.Is(err, ErrNotAccepted)
}
