// Package rotationtest tests implementations of [rotation.Strategy].
//
//	func TestStrategy(t *testing.T) {
//		rotationtest.Run(t, func(t *testing.T) rotationtest.Provider { … })
//	}
package rotationtest

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/keywright/keywright"
	"github.com/keywright/keywright/rotation"
	"github.com/keywright/keywright/rotation/sink"
)

// Provider is a provider with one key, and what the tests ask of it. It must
// be fast: a client with short time-outs, a fake server.
type Provider struct {
	// Strategy rotates the key. Required.
	Strategy rotation.Strategy
	// Token is the token in use. Required.
	Token string
	// Accepted returns the tokens that the provider accepts for the key, or
	// for its successors, right now. Required.
	Accepted func() []string
	// Lose makes the next call that issues a token lose its answer: after it
	// has taken effect if applied is true, else before. Required.
	Lose func(applied bool)
	// Refuse makes the next call that issues a token be refused. Required.
	Refuse func()
	// Issues returns how many calls that issue a token have taken effect.
	// Required.
	Issues func() int
	// Settle is how long a lost call may still take effect at this provider.
	Settle time.Duration
}

// Run tests a strategy. make is called once for each test and returns a fresh
// provider.
func Run(t *testing.T, make func(t *testing.T) Provider) {
	t.Helper()
	for _, test := range [...]struct {
		name string
		run  func(*testing.T, Provider)
	}{
		{"traits", testTraits},
		{"inspect changes nothing", testInspect},
		{"issue and verify", testIssue},
		{"a refused call changes nothing", testRefused},
		{"a lost answer is read back", testLost},
		{"a call that never arrived is told", testNotExecuted},
		{"a token that was never issued is not accepted", testForeign},
		{"retire twice is the same as once", testRetire},
		{"undo twice is the same as once", testUndo},
		{"a whole rotation", func(t *testing.T, p Provider) { testWhole(t, p, func() {}) }},
		{"a whole rotation whose answer is lost", func(t *testing.T, p Provider) { testWhole(t, p, func() { p.Lose(true) }) }},
		{"a whole rotation whose call is lost", func(t *testing.T, p Provider) { testWhole(t, p, func() { p.Lose(false) }) }},
		{"stopped at every event", testStopped},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			test.run(t, make(t))
		})
	}
}

// begin returns an operation of which the provider was inspected.
func begin(t *testing.T, p Provider) *rotation.Operation {
	t.Helper()
	op := rotation.NewOperation("test", nil)
	op.Known = []keywright.Secret{keywright.NewSecret(p.Token)}
	if err := p.Strategy.Inspect(t.Context(), op); err != nil {
		t.Fatalf("Inspect: %v", err)
	}
	if op.Old.IsZero() {
		op.Old = keywright.NewSecret(p.Token)
	}
	return op
}

// issue returns an operation with a new token.
func issue(t *testing.T, p Provider) *rotation.Operation {
	t.Helper()
	op := begin(t, p)
	if err := p.Strategy.Issue(t.Context(), op); err != nil {
		t.Fatalf("Issue: %v", err)
	}
	return op
}

// has reports whether the provider accepts a token.
func has(p Provider, token keywright.Secret) bool {
	return slices.Contains(p.Accepted(), token.Reveal())
}

func testTraits(t *testing.T, p Provider) {
	traits := p.Strategy.Traits()
	_, undoes := p.Strategy.(rotation.Undoer)
	switch {
	case traits.Name == "" || traits.Provider == "" || traits.Key == "" || traits.Issue == "":
		t.Errorf("Traits: a name is missing: %+v", traits)
	case traits.Overlap < 0 && traits.Overlap != rotation.UntilRetired:
		t.Errorf("Traits: Overlap is %s", traits.Overlap)
	case traits.Outage != (traits.Overlap == 0):
		t.Error("Traits: without an overlap there is an outage, and with one there is none")
	case traits.Reversible != undoes:
		t.Error("Traits: what is Reversible is an Undoer, and the other way round")
	case traits.Reversible && traits.Overlap != rotation.UntilRetired:
		t.Error("Traits: there is no way back when the old token lapses by itself")
	case traits != p.Strategy.Traits():
		t.Error("Traits: differ from call to call")
	}
}

func testInspect(t *testing.T, p Provider) {
	before := p.Accepted()
	op := begin(t, p)
	if !slices.Equal(before, p.Accepted()) || p.Issues() != 0 {
		t.Error("Inspect: changed something")
	}
	if op.Old.Reveal() != p.Token {
		t.Error("Inspect: op.Old is not the token in use")
	}
}

func testIssue(t *testing.T, p Provider) {
	op := issue(t, p)
	switch {
	case op.New.IsZero() || op.New.Equal(op.Old):
		t.Fatal("Issue: no new token")
	case !has(p, op.New):
		t.Error("Issue: the new token is not accepted")
	case p.Issues() != 1:
		t.Errorf("Issue: took effect %d times", p.Issues())
	case has(p, op.Old) == p.Strategy.Traits().Outage:
		t.Error("Issue: the old token does not live as Traits says")
	}
	before := op.New
	if err := p.Strategy.Verify(t.Context(), op); err != nil {
		t.Errorf("Verify: %v", err)
	}
	if !op.New.Equal(before) {
		t.Error("Verify: adopted another token, and there is none")
	}
	if x, ok := p.Strategy.(rotation.Extender); ok {
		for range 2 {
			if err := x.Extend(t.Context(), op); err != nil {
				t.Errorf("Extend: %v", err)
			}
		}
		if !has(p, op.New) {
			t.Error("Extend: the new token is not accepted any more")
		}
	}
}

func testRefused(t *testing.T, p Provider) {
	op := begin(t, p)
	p.Refuse()
	err := p.Strategy.Issue(t.Context(), op)
	if err == nil || keywright.OutcomeOf(err) != keywright.Rejected {
		t.Errorf("Issue: want an error with outcome Rejected, got %v (%s)", err, keywright.OutcomeOf(err))
	}
	if p.Issues() != 0 || !has(p, op.Old) {
		t.Error("Issue: was refused and changed something")
	}
}

func testLost(t *testing.T, p Provider) {
	op := begin(t, p)
	p.Lose(true)
	err := p.Strategy.Issue(t.Context(), op)
	if !errors.Is(err, keywright.ErrOutcomeUnknown) {
		t.Fatalf("Issue: want an error with an unknown outcome, got %v", err)
	}
	op.New = keywright.Secret{}
	verdict, err := p.Strategy.Resolve(t.Context(), op)
	if verdict != rotation.Executed || err != nil {
		t.Fatalf("Resolve: want executed, got %s, %v", verdict, err)
	}
	if !has(p, op.New) || op.New.Equal(op.Old) {
		t.Error("Resolve: op.New is not the new token")
	}
	if p.Issues() != 1 {
		t.Errorf("Resolve: %d tokens were issued", p.Issues())
	}
}

func testNotExecuted(t *testing.T, p Provider) {
	op := begin(t, p)
	p.Lose(false)
	if err := p.Strategy.Issue(t.Context(), op); !errors.Is(err, keywright.ErrOutcomeUnknown) {
		t.Fatalf("Issue: want an error with an unknown outcome, got %v", err)
	}
	op.New = keywright.Secret{}
	verdict, err := p.Strategy.Resolve(t.Context(), op)
	if verdict != rotation.NotExecuted || err != nil {
		t.Errorf("Resolve: want not executed, got %s, %v", verdict, err)
	}
	if !op.New.IsZero() || p.Issues() != 0 {
		t.Error("Resolve: there is no new token")
	}
}

func testForeign(t *testing.T, p Provider) {
	op := issue(t, p)
	op.New = keywright.NewSecret("neverissuedneverissuedneverissued00")
	err := p.Strategy.Verify(t.Context(), op)
	if adopted := err == nil && has(p, op.New); !adopted && !errors.Is(err, rotation.ErrNotAccepted) {
		t.Errorf("Verify: want ErrNotAccepted, or another token adopted; got %v", err)
	}
}

func testRetire(t *testing.T, p Provider) {
	op := issue(t, p)
	for range 2 {
		if err := p.Strategy.Retire(t.Context(), op); err != nil {
			t.Fatalf("Retire: %v", err)
		}
	}
	if p.Strategy.Traits().Retire != "" && has(p, op.Old) {
		t.Error("Retire: the old token is accepted")
	}
	if !has(p, op.New) {
		t.Error("Retire: the new token is not accepted")
	}
	if x, ok := p.Strategy.(rotation.Sweeper); ok {
		if err := x.Sweep(t.Context(), op); err != nil {
			t.Errorf("Sweep: %v", err)
		}
		if !has(p, op.New) {
			t.Error("Sweep: the new token is not accepted")
		}
	}
}

func testUndo(t *testing.T, p Provider) {
	x, ok := p.Strategy.(rotation.Undoer)
	if !ok {
		return
	}
	op := issue(t, p)
	if err := x.VerifyOld(t.Context(), op); err != nil {
		t.Errorf("VerifyOld: %v", err)
	}
	dead := *op
	dead.Old = keywright.NewSecret("neverissuedneverissuedneverissued00")
	if err := x.VerifyOld(t.Context(), &dead); !errors.Is(err, rotation.ErrNotAccepted) {
		t.Errorf("VerifyOld: want ErrNotAccepted for a token that is not accepted, got %v", err)
	}
	for range 2 {
		if err := x.Undo(t.Context(), op); err != nil {
			t.Fatalf("Undo: %v", err)
		}
	}
	if !has(p, op.Old) || has(p, op.New) {
		t.Error("Undo: want the old token accepted and the new one refused")
	}
}

// place is a job whose only sink is a file.
func place(t *testing.T, p Provider) (rotation.Job, string, string) {
	t.Helper()
	dir := t.TempDir()
	path := filepath.Join(dir, "token")
	if err := os.WriteFile(path, []byte(p.Token+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return rotation.Job{
		Name: "test", Strategy: p.Strategy, Sinks: []sink.Sink{sink.File(path, sink.WithLag(0))},
		Policy: rotation.Policy{SettleTime: max(p.Settle, time.Millisecond)},
	}, filepath.Join(dir, "state"), path
}

func testWhole(t *testing.T, p Provider, trouble func()) {
	job, dir, path := place(t, p)
	e, err := rotation.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	trouble()
	r, err := e.Rotate(t.Context(), job)
	if err != nil || r.State != rotation.StateDone {
		t.Fatalf("Rotate: %+v, %v", r, err)
	}
	finished(t, p, path)
	if p.Issues() != 1 {
		t.Errorf("Rotate: %d tokens were issued", p.Issues())
	}
}

// finished checks that the file holds a token that is not the old one and is
// accepted, and that the old one is not, where a strategy retires it.
func finished(t *testing.T, p Provider, path string) {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	token := strings.TrimSpace(string(b))
	if token == p.Token || !slices.Contains(p.Accepted(), token) {
		t.Error("the file does not hold an accepted new token")
	}
	if p.Strategy.Traits().Retire != "" && slices.Contains(p.Accepted(), p.Token) {
		t.Error("the retired token is accepted")
	}
}

// testStopped ends the run's context at every event in turn, and resumes it.
func testStopped(t *testing.T, p Provider) {
	job, dir, path := place(t, p)
	for stopAt := 1; ; stopAt++ {
		ctx, cancel := context.WithCancel(t.Context())
		seen := 0
		e, err := rotation.Open(dir, rotation.WithObserver(func(rotation.Event) {
			if seen++; seen == stopAt {
				cancel()
			}
		}))
		if err != nil {
			t.Fatal(err)
		}
		r, err := e.Rotate(ctx, job)
		cancel()
		if err == nil {
			if r.State != rotation.StateDone {
				t.Errorf("Rotate: %+v", r)
			}
			break
		}
		if !errors.Is(err, rotation.ErrUnfinished) && !errors.Is(err, rotation.ErrNotIssued) {
			t.Fatalf("Rotate, stopped at event %d: %v", stopAt, err)
		}
		if stopAt > 100 {
			t.Fatal("Rotate: does not end")
		}
	}
	finished(t, p, path)
}
