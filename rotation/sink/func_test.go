package sink_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/keywright/keywright"
	"github.com/keywright/keywright/rotation/sink"
)

func TestFunc(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	held := secret(oldToken)
	s := sink.Func("store", sink.Traits{Lag: time.Minute},
		func(_ context.Context, previous, token keywright.Secret) error {
			require.True(t, previous.Equal(held))
			held = token
			return nil
		},
		func(context.Context) (keywright.Secret, error) { return held, nil })
	require.Equal(t, "func store", s.Name())
	require.Equal(t, sink.Traits{Lag: time.Minute, Readable: true, Grade: sink.GradeReadBack}, s.Traits())
	mustWrite(t, ctx, s, oldToken, newToken)
	held = secret("canary-of-somebody-else")
	mustFail(t, s.Confirm(ctx, secret(newToken)), sink.ErrConflict, "holds another token")
	mustFail(t, s.CompareAndWrite(ctx, sink.Reading{Token: secret(oldToken)}, secret(newToken)), sink.ErrConflict, "holds another token")
	held = keywright.Secret{}
	mustFail(t, s.Confirm(ctx, secret(newToken)), sink.ErrConflict, "holds no token")
	mustFail(t, s.Confirm(ctx, keywright.Secret{}), sink.ErrConflict, "holds no token")
}

func TestFuncThatCannotBeRead(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	var fail error
	s := sink.Func("store", sink.Traits{Readable: true, Grade: sink.GradeReadBack},
		func(context.Context, keywright.Secret, keywright.Secret) error { return fail }, nil)
	require.Equal(t, sink.Traits{Grade: sink.GradeAssumed}, s.Traits())
	got, err := s.Read(ctx)
	require.NoError(t, err)
	require.True(t, got.Token.IsZero())
	mustFail(t, s.Confirm(ctx, secret(newToken)), sink.ErrTemporary, "write it again")
	require.NoError(t, s.CompareAndWrite(ctx, got, secret(newToken)))
	require.NoError(t, s.Confirm(ctx, secret(newToken)))
	mustFail(t, s.Confirm(ctx, secret(oldToken)), sink.ErrTemporary, "write it again")
	mustFail(t, s.Confirm(ctx, keywright.Secret{}), sink.ErrTemporary, "write it again")
	fail = errors.New("lost")
	mustFail(t, s.CompareAndWrite(ctx, got, secret("canary-3")), fail, "lost")
	mustFail(t, s.Confirm(ctx, secret(newToken)), sink.ErrTemporary, "write it again")
}

func TestFuncErrors(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	cause := errors.New("a cause")
	for _, c := range []struct {
		err    error
		class  error
		reason string
	}{
		{cause, cause, "a cause"},
		{fmt.Errorf("busy: %w", sink.ErrTemporary), sink.ErrTemporary, "busy"},
		{fmt.Errorf("%s and %s: %w", oldToken, newToken, sink.ErrRefused), sink.ErrRefused, "[REDACTED] and [REDACTED]: "},
		{fmt.Errorf("%s: %w", newToken, context.Canceled), context.Canceled, "[REDACTED]: "},
		{fmt.Errorf("%s\n%w", strings.Repeat("x", 300), sink.ErrConflict), sink.ErrConflict, strings.Repeat("x", 200)},
	} {
		s := sink.Func("store", sink.Traits{}, func(context.Context, keywright.Secret, keywright.Secret) error { return c.err }, nil)
		mustFail(t, s.CompareAndWrite(ctx, sink.Reading{Token: secret(oldToken)}, secret(newToken)), c.class, c.reason)
		s = sink.Func("store", sink.Traits{}, nil, func(context.Context) (keywright.Secret, error) { return secret(oldToken), c.err })
		mustFail(t, s.Confirm(ctx, secret(newToken)), c.class, c.reason)
	}
	s := sink.Func("store", sink.Traits{}, nil, nil)
	mustFail(t, s.CompareAndWrite(ctx, sink.Reading{}, secret(newToken)), sink.ErrRefused, "no function")
	mustFail(t, s.CompareAndWrite(ctx, sink.Reading{}, keywright.Secret{}), sink.ErrRefused, "no token")
	done, cancel := context.WithCancel(ctx)
	cancel()
	_, err := s.Read(done)
	mustFail(t, err, context.Canceled, "canceled")
}
