// Package sink delivers tokens to where programs read them: files, dotenv,
// INI and JSON files, commands, Vault, Kubernetes, GitHub Actions.
//
// A [Sink] is written by compare and write: it replaces the token that it is
// known to hold and nothing else, so that what somebody else wrote meanwhile
// is not lost. Everything a sink does can be done again: a rotation that was
// interrupted reads the sink, and writes only what is missing.
package sink

import (
	"context"
	"errors"
	"time"

	"github.com/keywright/keywright"
)

// Sink is a place that a token is delivered to.
//
// Its methods are called one at a time. They return promptly when ctx ends,
// and their errors hold no token. An error that may pass (a connection that
// failed, 429, 5xx) matches [ErrTemporary]; the caller tries again later.
type Sink interface {
	// Name tells the sink from the others of a job: "file /etc/app/token".
	// It is written to journals and logs, and must stay the same.
	Name() string

	// Traits says what can be expected of the sink. It does no I/O.
	Traits() Traits

	// Read returns what the sink holds now.
	Read(ctx context.Context) (Reading, error)

	// CompareAndWrite makes the sink hold token if it still is as previous,
	// which came from Read, says; else it changes nothing and returns an error
	// that matches [ErrConflict]. It returns when the token is as durable as
	// the sink can make it. After an error nobody knows whether it was
	// written, and Read tells.
	CompareAndWrite(ctx context.Context, previous Reading, token keywright.Secret) error

	// Confirm returns nil if the sink has token: by reading it back where
	// Traits.Readable says that this can be done, else by the best evidence
	// there is. [ErrConflict] says that it holds another.
	Confirm(ctx context.Context, token keywright.Secret) error
}

// Tester is a [Sink] that can tell before a rotation whether a write would be
// refused, without changing what readers see.
type Tester interface {
	Test(ctx context.Context) error
}

// Reading is what a sink was found to hold.
type Reading struct {
	// Token is what the sink holds; zero if it holds none, or if it cannot be
	// read.
	Token keywright.Secret
	// Version tells one state of the sink from another: a version number, a
	// resource version, a time. It may be empty.
	Version string
}

// Traits is what can be expected of a sink.
type Traits struct {
	// Lag is how long after a write the last reader has the new token. Zero:
	// at once.
	Lag time.Duration
	// UntilRestart says that readers keep the old token until they are
	// restarted, however long that takes. Lag then means nothing.
	UntilRestart bool
	// Readable says that Read returns the token itself.
	Readable bool
	// Grade is how good a confirmation is.
	Grade Grade
	// Guarantee is one sentence for people about what a successful write means.
	Guarantee string
}

// Grade is how well a sink can confirm that it holds a token.
type Grade string

// Grades, best first.
const (
	// GradeReadBack: the token was read back from where its readers read it.
	GradeReadBack Grade = "read back"
	// GradeAcknowledged: the other side said that it has the token.
	GradeAcknowledged Grade = "acknowledged"
	// GradeAssumed: nothing but the absence of an error.
	GradeAssumed Grade = "assumed"
)

// Classes of errors, for errors.Is.
var (
	// ErrConflict: the sink holds something else than was expected, written by
	// somebody else.
	ErrConflict = errors.New("sink: holds what somebody else wrote")
	// ErrTemporary: the same may succeed later.
	ErrTemporary = errors.New("sink: temporarily unavailable")
	// ErrRefused: the sink does not allow this; permissions or settings must
	// be mended first.
	ErrRefused = errors.New("sink: refused")
)

// Error is what failed with a sink. Its text holds no token.
type Error struct {
	Sink   string // name of the sink
	Op     string // "read", "write", "confirm" or "test"
	Reason string // what is wrong, and where it helps, what to do
	Err    error  // ErrConflict, ErrTemporary, ErrRefused, or a cause; may be nil
}

// Error returns one line.
func (e *Error) Error() string { return "sink: " + e.Sink + ": " + e.Op + ": " + e.Reason }

// Unwrap returns the class or the cause.
func (e *Error) Unwrap() error { return e.Err }
