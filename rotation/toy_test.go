package rotation_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/keywright/keywright"
	"github.com/keywright/keywright/rotation"
	"github.com/keywright/keywright/rotation/rotationtest"
)

// toy is a third provider: it keeps two tokens per key, and calls take no time.
// It is what a strategy has to be, and no more.
type toy struct {
	mu     sync.Mutex
	tokens []string // accepted, the newest last
	issued int
	next   error // what the next Issue answers with
	lost   bool  // the answer to the next Issue is lost,
	before bool  // before it takes effect
	calls  func()
}

// lostAnswer is an error whose outcome nobody knows.
type lostAnswer struct{}

func (lostAnswer) Error() string              { return "toy: the answer was lost" }
func (lostAnswer) Outcome() keywright.Outcome { return keywright.Ambiguous }
func (lostAnswer) Is(target error) bool       { return target == keywright.ErrOutcomeUnknown }

// refusal is an error whose outcome is known.
type refusal struct{}

func (refusal) Error() string              { return "toy: no" }
func (refusal) Outcome() keywright.Outcome { return keywright.Rejected }

func newToy(name string) *toy { return &toy{tokens: []string{"toy-" + name + "-0123456789-0"}} }

func (p *toy) call() {
	if p.calls != nil {
		p.calls()
	}
}

func (p *toy) newest() keywright.Secret { return keywright.NewSecret(p.tokens[len(p.tokens)-1]) }

// toyStrategy rotates a toy.
type toyStrategy struct{ *toy }

func (s toyStrategy) Traits() rotation.Traits {
	return rotation.Traits{
		Name: "toy", Provider: "toy", Key: "the toy's key", Overlap: rotation.UntilRetired, Reversible: true,
		Issue: "issue", Retire: "retire",
	}
}

func (s toyStrategy) Inspect(_ context.Context, op *rotation.Operation) error {
	s.call()
	s.mu.Lock()
	defer s.mu.Unlock()
	op.Old = s.newest()
	return nil
}

func (s toyStrategy) Issue(_ context.Context, op *rotation.Operation) error {
	s.call()
	s.mu.Lock()
	defer s.mu.Unlock()
	err, lost, before := s.next, s.lost, s.before
	s.next, s.lost, s.before = nil, false, false
	if err != nil {
		return err
	}
	if lost && before {
		return lostAnswer{}
	}
	s.issued++
	s.tokens = append(s.tokens, fmt.Sprintf("%s-%d", op.ID, s.issued))
	if lost {
		return lostAnswer{}
	}
	op.New = s.newest()
	return nil
}

func (s toyStrategy) Resolve(_ context.Context, op *rotation.Operation) (rotation.Verdict, error) {
	s.call()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.newest().Equal(op.Old) {
		return rotation.NotExecuted, nil
	}
	op.New = s.newest()
	return rotation.Executed, nil
}

func (s toyStrategy) Verify(_ context.Context, op *rotation.Operation) error {
	return s.accepts(op.New)
}

func (s toyStrategy) VerifyOld(_ context.Context, op *rotation.Operation) error {
	return s.accepts(op.Old)
}

func (s toyStrategy) accepts(token keywright.Secret) error {
	s.call()
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, t := range s.tokens {
		if keywright.NewSecret(t).Equal(token) {
			return nil
		}
	}
	return rotation.ErrNotAccepted
}

func (s toyStrategy) Retire(_ context.Context, op *rotation.Operation) error {
	s.call()
	return s.drop(op.Old)
}

func (s toyStrategy) Undo(_ context.Context, op *rotation.Operation) error {
	s.call()
	return s.drop(op.New)
}

func (s toyStrategy) drop(token keywright.Secret) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	var kept []string
	for _, t := range s.tokens {
		if !keywright.NewSecret(t).Equal(token) {
			kept = append(kept, t)
		}
	}
	if len(kept) == 0 {
		return errors.New("toy: that is the last token")
	}
	s.tokens = kept
	return nil
}

// A third provider passes the tests that this package's own strategies pass.
func TestThirdProvider(t *testing.T) {
	t.Parallel()
	rotationtest.Run(t, func(*testing.T) rotationtest.Provider {
		p := newToy("a")
		return rotationtest.Provider{
			Strategy: toyStrategy{p}, Token: p.tokens[0], Settle: time.Millisecond,
			Accepted: func() []string {
				p.mu.Lock()
				defer p.mu.Unlock()
				return append([]string(nil), p.tokens...)
			},
			Lose:   func(applied bool) { p.lost, p.before = true, !applied },
			Refuse: func() { p.next = refusal{} },
			Issues: func() int { return p.issued },
		}
	})
}
