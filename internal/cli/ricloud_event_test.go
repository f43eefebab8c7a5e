package cli

import (
	"slices"
	"testing"
	"time"

	"github.com/keywright/keywright"
	"github.com/keywright/keywright/keywrighttest"
)

// TestListener looks at a log again and again: every event is seen once, the
// oldest first, however many there are and whatever the provider's clock says.
func TestListener(t *testing.T) {
	t.Parallel()
	clock := new(keywrighttest.Clock)
	clock.Advance(-5 * time.Hour)
	fake := keywrighttest.StartRicloud(t, keywrighttest.WithClock(clock))
	rc, err := keywright.NewRicloud(keywright.WithBaseURL(fake.URL()), keywright.WithToken(fake.Token()), keywright.WithoutEnvironment())
	if err != nil {
		t.Fatal(err)
	}
	var emitted []string
	emit := func(n int) {
		for range n {
			emitted = append(emitted, fake.Emit("task", "created", nil))
		}
	}
	newListener := func() *listener {
		return &listener{a: &app{ctx: t.Context()}, rc: rc}
	}
	look := func(l *listener, since time.Duration, want []string) {
		t.Helper()
		events, err := l.next(since)
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, e := range events {
			got = append(got, string(e.ID))
		}
		if !slices.Equal(got, want) {
			t.Fatalf("got %d events %v, want %d %v", len(got), got, len(want), want)
		}
	}

	empty := newListener()
	look(empty, 0, nil)
	emit(3)
	look(empty, 0, emitted) // also the first ones that there ever are
	look(empty, 0, nil)

	clock.Advance(time.Hour)
	emit(120)
	from := newListener()
	look(from, 30*time.Minute, emitted[3:])
	look(from, 30*time.Minute, nil)
	all := newListener()
	look(all, 2*time.Hour, emitted)

	fresh := newListener()
	look(fresh, 0, nil)
	for range 3 {
		n := len(emitted)
		emit(250) // more than a page
		look(fresh, 0, emitted[n:])
		look(fresh, 0, nil)
		clock.Advance(3 * overlap)
	}
	if n := len(fresh.seen); n > 250 {
		t.Errorf("%d events are remembered", n)
	}
}

// TestListenerFails forgets nothing of a look that fails half way.
func TestListenerFails(t *testing.T) {
	t.Parallel()
	fake := keywrighttest.StartRicloud(t)
	rc, err := keywright.NewRicloud(keywright.WithBaseURL(fake.URL()), keywright.WithToken(fake.Token()),
		keywright.WithoutEnvironment(), keywright.WithRetry(keywright.RetryPolicy{MaxAttempts: 1}))
	if err != nil {
		t.Fatal(err)
	}
	l := &listener{a: &app{ctx: t.Context()}, rc: rc}
	if _, err := l.next(0); err != nil {
		t.Fatal(err)
	}
	for range 150 {
		fake.Emit("task", "created", nil)
	}
	fake.Inject(
		keywrighttest.Fault{Op: "event.list", When: keywrighttest.BeforeApply, Do: keywrighttest.Slow}, // the first page
		keywrighttest.Fault{Op: "event.list", Do: keywrighttest.Answer, Status: 503})                   // the second
	if _, err := l.next(0); !passing(err) {
		t.Fatalf("got %v, want an error that passes", err)
	}
	events, err := l.next(0)
	if err != nil || len(events) != 150 {
		t.Fatalf("got %d events and %v, want 150", len(events), err)
	}
}
