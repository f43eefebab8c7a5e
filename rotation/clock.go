package rotation

import (
	"context"
	"sync"
	"time"
)

// Clock is where an engine takes the time from and how it waits. The default
// is the system's.
type Clock interface {
	// Now returns the time of day.
	Now() time.Time
	// Elapsed returns the time since a moment that stays the same, by a clock
	// that nobody sets. It may stand still while the machine is suspended.
	Elapsed() time.Duration
	// Sleep waits for d or until ctx ends, whose error it then returns.
	Sleep(ctx context.Context, d time.Duration) error
}

// systemClock is the system's time.
type systemClock struct{ start time.Time }

func newSystemClock() systemClock { return systemClock{time.Now()} }

func (systemClock) Now() time.Time { return time.Now().Round(0) }

func (c systemClock) Elapsed() time.Duration { return time.Since(c.start) }

func (systemClock) Sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}

// timeline is the provider's time as it is known here: when it was last seen,
// and what two local clocks have said since. The time of day may be set, and
// the other clock may stand still while the machine is suspended.
type timeline struct {
	clock Clock

	mu     sync.Mutex
	anchor time.Time     // the provider's time
	wall   time.Time     // the time of day then
	mono   time.Duration // the other clock then
	known  bool          // the anchor comes from an answer, or from the journal

	odd   time.Time     // a time that one answer has shown, which does not fit
	oddAt time.Duration // when that was, by the other clock
}

// newTimeline starts from what the journal knows: the provider's offset, and
// a time that has certainly passed.
func newTimeline(clock Clock, offset time.Duration, latest time.Time) *timeline {
	t := &timeline{clock: clock, wall: clock.Now(), mono: clock.Elapsed()}
	if t.anchor = t.wall.Add(offset); t.anchor.Before(latest) {
		t.anchor = latest
	}
	t.known = !latest.IsZero()
	return t
}

// dateStep is the resolution of a Date header.
const dateStep = time.Second

// observe notes what time it is at the provider. A Date header is in whole
// seconds: one that agrees with what is known changes nothing. One that does
// not is believed if the local clocks disagree too, or if another says the same
// a while later: a single answer may come from a machine whose clock is wrong.
func (t *timeline) observe(provider time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	least, most := t.elapsed()
	mono := t.clock.Elapsed()
	certain := most-least < dateStep
	if certain && near(t.anchor.Add(most), provider) {
		t.known, t.odd = true, time.Time{}
		return
	}
	if t.known && certain && (t.odd.IsZero() || mono-t.oddAt < dateStep || !near(t.odd.Add(mono-t.oddAt), provider)) {
		if t.odd.IsZero() || mono-t.oddAt >= dateStep {
			t.odd, t.oddAt = provider, mono
		}
		return
	}
	t.anchor, t.wall, t.mono = provider, t.clock.Now(), mono
	t.known, t.odd = true, time.Time{}
}

// near reports whether a time is what a Date header of whole seconds says.
func near(t, date time.Time) bool {
	ahead := t.Sub(date)
	return ahead > -dateStep && ahead < 2*dateStep
}

// elapsed bounds how long ago the anchor is. The caller holds mu.
func (t *timeline) elapsed() (least, most time.Duration) {
	wall, mono := t.clock.Now().Sub(t.wall), t.clock.Elapsed()-t.mono
	return max(0, min(wall, mono)), max(0, wall, mono)
}

// now returns the latest that it can be: deadlines go by it.
func (t *timeline) now() time.Time {
	t.mu.Lock()
	defer t.mu.Unlock()
	_, most := t.elapsed()
	return t.anchor.Add(most).UTC()
}

// atLeast returns the earliest that it can be: waits go by it.
func (t *timeline) atLeast() time.Time {
	t.mu.Lock()
	defer t.mu.Unlock()
	least, _ := t.elapsed()
	return t.anchor.Add(least).UTC()
}

// offset returns how far the provider's clock is ahead of the local one.
func (t *timeline) offset() time.Duration { return t.now().Sub(t.clock.Now()) }

// uncertain reports whether the local clock was set, or stood still, since the
// provider's was seen.
func (t *timeline) uncertain() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	least, most := t.elapsed()
	return most-least >= dateStep
}

// longestSleep bounds one sleep: a timer stands still while the machine is
// suspended, and a clock may be set.
const longestSleep = 30 * time.Second

// sleepUntil waits until it is until at the provider. If the local clocks
// disagree, look asks the provider.
func (t *timeline) sleepUntil(ctx context.Context, until time.Time, look func(context.Context)) error {
	for {
		left := until.Sub(t.atLeast())
		if left <= 0 {
			return ctx.Err()
		}
		if err := t.clock.Sleep(ctx, min(left, longestSleep)); err != nil {
			return err
		}
		if t.uncertain() {
			look(ctx)
		}
	}
}
