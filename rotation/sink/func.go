package sink

import (
	"context"
	"errors"

	"github.com/keywright/keywright"
)

// Func returns a sink that is made of functions, for a place that this package
// does not know. write makes the sink hold token; it should do so only if it
// holds previous, and return an error that matches [ErrConflict] if not. read
// returns what the sink holds, and the zero Secret if that is nothing; it is
// nil for a sink that cannot be read. Then a token is confirmed only by the
// process that wrote it.
//
// Traits.Readable follows from read. The texts of errors of write and read are
// told without the tokens, at most 200 bytes of them; errors that match
// [ErrTemporary], [ErrRefused] or [ErrConflict] keep doing so.
func Func(name string, traits Traits, write func(ctx context.Context, previous, token keywright.Secret) error, read func(ctx context.Context) (keywright.Secret, error)) Sink {
	traits.Readable = read != nil
	switch {
	case traits.Readable && traits.Grade == "":
		traits.Grade = GradeReadBack
	case !traits.Readable && traits.Grade != GradeAcknowledged:
		traits.Grade = GradeAssumed
	}
	return &funcSink{name: "func " + name, traits: traits, write: write, read: read}
}

type funcSink struct {
	name    string
	traits  Traits
	write   func(ctx context.Context, previous, token keywright.Secret) error
	read    func(ctx context.Context) (keywright.Secret, error)
	written keywright.Secret
}

func (s *funcSink) Name() string { return s.name }

func (s *funcSink) Traits() Traits { return s.traits }

func (s *funcSink) Read(ctx context.Context) (Reading, error) { return s.readAs(ctx, "read") }

func (s *funcSink) readAs(ctx context.Context, op string, secrets ...keywright.Secret) (Reading, error) {
	if err := ctx.Err(); err != nil {
		return Reading{}, s.fail(op, err)
	}
	if s.read == nil {
		return Reading{}, nil
	}
	token, err := s.read(ctx)
	if err != nil {
		return Reading{}, s.fail(op, err, append(secrets, token)...)
	}
	return Reading{Token: token}, nil
}

func (s *funcSink) CompareAndWrite(ctx context.Context, previous Reading, token keywright.Secret) error {
	const op = "write"
	if p := writable(token); p != "" {
		return s.fail(op, p)
	}
	if s.write == nil {
		return s.fail(op, problem("no function to write is given"))
	}
	now, err := s.readAs(ctx, op, previous.Token, token)
	if err != nil {
		return err
	}
	if s.read != nil && !now.Token.Equal(previous.Token) && !now.Token.Equal(token) {
		return s.fail(op, conflict(now.Token))
	}
	s.written = keywright.Secret{} // after an error nobody knows what it holds
	if err := s.write(ctx, previous.Token, token); err != nil {
		return s.fail(op, err, previous.Token, token, now.Token)
	}
	s.written = token
	return nil
}

func (s *funcSink) Confirm(ctx context.Context, token keywright.Secret) error {
	const op = "confirm"
	now, err := s.readAs(ctx, op, token)
	switch {
	case err != nil:
		return err
	case s.read == nil && !token.IsZero() && s.written.Equal(token),
		s.read != nil && !token.IsZero() && now.Token.Equal(token):
		return nil
	case s.read == nil:
		return &Error{Sink: s.name, Op: op, Reason: writeAgain, Err: ErrTemporary}
	}
	return s.fail(op, conflict(now.Token))
}

// fail retells err. An error that does not say more than it may is kept as the
// cause; of others no more is left than the class.
func (s *funcSink) fail(op string, err error, secrets ...keywright.Secret) error {
	var other conflict
	var wrong problem
	e := &Error{Sink: s.name, Op: op, Reason: scrub(err.Error(), false, secrets...), Err: err}
	switch {
	case errors.As(err, &other):
		e.Err = ErrConflict
	case errors.As(err, &wrong):
		e.Err = ErrRefused
	case e.Reason != err.Error():
		e.Err = nil
		for _, class := range []error{ErrConflict, ErrTemporary, ErrRefused, context.Canceled, context.DeadlineExceeded} {
			if errors.Is(err, class) {
				e.Err = class
				break
			}
		}
	}
	return e
}
