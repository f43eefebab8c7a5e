package rotation

import (
	"errors"
	"strings"

	"github.com/keywright/keywright"
)

// Classes of errors, for errors.Is.
var (
	// ErrRefused: the rotation was not begun, because it would have been
	// unsafe; see [RefusedError].
	ErrRefused = errors.New("rotation: refused")
	// ErrBusy: another run holds the job's lock.
	ErrBusy = errors.New("rotation: another run is rotating this key")
	// ErrStuck: the rotation needs a person; see [StuckError].
	ErrStuck = errors.New("rotation: stuck")
	// ErrUnfinished: the rotation is under way and goes on when it is run
	// again. What kept it from going on is wrapped beside this.
	ErrUnfinished = errors.New("rotation: unfinished; run it again")
	// ErrNoWayBack: the point of no return is passed, or nothing is under way.
	ErrNoWayBack = errors.New("rotation: cannot be rolled back")
	// ErrJournal: the journal is damaged, open to others, or sealed with
	// another key.
	ErrJournal = errors.New("rotation: journal cannot be used")
	// ErrNotIssued: the attempt ended without a new token; the old one stays.
	ErrNotIssued = errors.New("rotation: no token was issued")
	// ErrNoAccess: the provider accepts none of the tokens that were found.
	ErrNoAccess = errors.New("rotation: no accepted token was found")
	// ErrMasked: the provider shows a mask where a token is needed.
	ErrMasked = errors.New("rotation: the provider does not show the token")
	// ErrNotAccepted: the provider does not accept the new token (yet).
	ErrNotAccepted = errors.New("rotation: the new token is not accepted")
	// ErrOrphan: the provider does not let go of the old key.
	ErrOrphan = errors.New("rotation: the old key is still live")
	// ErrNotReady: something that a step waits for has not happened yet. A
	// job's Acknowledge returns it.
	ErrNotReady = errors.New("rotation: not ready")
)

// Reason says why a rotation was refused.
type Reason string

// Reasons of refusals.
const (
	ReasonForce      Reason = "force"       // a forced rotation of the key that authenticates us
	ReasonWindow     Reason = "window"      // the overlap of the rotation before is still open
	ReasonDrift      Reason = "drift"       // a sink does not hold the provider's current token
	ReasonOutage     Reason = "outage"      // the strategy interrupts service, and nobody consented
	ReasonBudget     Reason = "budget"      // the sinks need longer than the overlap lasts
	ReasonState      Reason = "state"       // the key is not active
	ReasonSpent      Reason = "spent"       // the credential's spend limit is used up
	ReasonMasked     Reason = "masked"      // a lost answer could not be read back
	ReasonSingle     Reason = "single"      // the application takes one credential only
	ReasonSink       Reason = "sink"        // a sink cannot be read or written
	ReasonInterval   Reason = "interval"    // the last rotation was too recent
	ReasonJob        Reason = "job"         // the job is not what it should be
	ReasonUnfinished Reason = "unfinished"  // another strategy has a rotation under way
	ReasonGone       Reason = "gone"        // there is no such key
	ReasonUnreadable Reason = "unreadable"  // no place holds the token in use
	ReasonNoRotate   Reason = "unsupported" // the provider has no such call
)

// RefusedError is a rotation that was not begun. Nothing has changed. It
// matches [ErrRefused].
type RefusedError struct {
	Job     string // name of the job
	Reason  Reason // which rule
	Message string // what is wrong
	Instead string // what to do instead
	Err     error  // a cause, or nil
}

// Error returns one line: what is wrong and what to do instead.
func (e *RefusedError) Error() string {
	s := "rotation: "
	if e.Job != "" {
		s += e.Job + ": "
	}
	s += "refused (" + string(e.Reason) + "): " + e.Message
	if e.Err != nil {
		s += ": " + e.Err.Error()
	}
	if e.Instead != "" {
		s += "; " + e.Instead
	}
	return s
}

// Is matches [ErrRefused].
func (e *RefusedError) Is(target error) bool { return target == ErrRefused }

// Unwrap returns the cause.
func (e *RefusedError) Unwrap() error { return e.Err }

// OrphanError says that the provider does not let go of an old key. It matches
// [ErrOrphan].
type OrphanError struct {
	Key string // names it: "key 7", "credential 4f…"
	Err error  // why not
}

// Error returns one line.
func (e *OrphanError) Error() string {
	return "rotation: " + e.Key + " is still live: " + e.Err.Error()
}

// Is matches [ErrOrphan].
func (e *OrphanError) Is(target error) bool { return target == ErrOrphan }

// Unwrap returns why not.
func (e *OrphanError) Unwrap() error { return e.Err }

// refuse makes a RefusedError; the engine adds the job.
func refuse(reason Reason, message, instead string) error {
	return &RefusedError{Reason: reason, Message: message, Instead: instead}
}

// StuckError is a rotation that cannot go on by itself. It matches [ErrStuck].
// Do what Steps say and run Resume; nothing is lost by waiting but what they
// warn of.
type StuckError struct {
	Job   string   // name of the job
	State State    // where it goes on
	Steps []string // what a person does, in order
	Err   error    // what went wrong
}

// Error returns one line.
func (e *StuckError) Error() string {
	return "rotation: " + e.Job + ": stuck in " + string(e.State) + ": " + e.Err.Error() + "; " + strings.Join(e.Steps, "; ")
}

// Is matches [ErrStuck].
func (e *StuckError) Is(target error) bool { return target == ErrStuck }

// Unwrap returns what went wrong.
func (e *StuckError) Unwrap() error { return e.Err }

// UnsavedError says that a new token was issued and the journal could not keep
// it. The token is here and, if the job has an Escrow, there.
type UnsavedError struct {
	Job     string           // name of the job
	Token   keywright.Secret // the new token: keep it
	Escrow  error            // nil if the escrow has it; ErrNotReady if there is none
	Journal error            // why the journal could not keep it
}

// Error returns one line, without the token.
func (e *UnsavedError) Error() string {
	s := "rotation: " + e.Job + ": a new token was issued, and the journal could not keep it: " + e.Journal.Error()
	switch {
	case e.Escrow == nil:
		return s + "; the escrow has it; run Resume when the journal can be written"
	case errors.Is(e.Escrow, ErrNotReady):
		return s + "; it is in this error's Token; run Resume when the journal can be written"
	}
	return s + "; the escrow failed too: " + e.Escrow.Error() + "; it is in this error's Token"
}

// Unwrap returns why the journal and the escrow failed.
func (e *UnsavedError) Unwrap() []error {
	errs := []error{ErrUnfinished, e.Journal}
	if e.Escrow != nil && !errors.Is(e.Escrow, ErrNotReady) {
		errs = append(errs, e.Escrow)
	}
	return errs
}
