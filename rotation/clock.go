package rotation

import (
	"context"
	"sync"
	"time"
)

// Clock is where an engine takes the time from and how it waits. The default
// is the system's.
type Clock interface {
	// Now returns the time. If it has a monotonic reading, that is used to
	// tell a clock that was set from time that passed.
	Now() time.Time
	// Sleep waits for d or until ctx ends, whose error it then returns.
	Sleep(ctx context.Context, d time.Duration) error
}

// systemClock is the system's time.
type systemClock struct{}

func (systemClock) Now() time.Time { return time.Now() }

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
// and what the local clock has said since. The local clock may jump, and its
// monotonic part stops while the machine is suspended.
type timeline struct {
	clock Clock

	mu     sync.Mutex
	anchor time.Time // the provider's time
	at     time.Time // the local time then
}

// newTimeline starts from what the journal knows: the provider's offset, and
// a time that has certainly passed.
func newTimeline(clock Clock, offset time.Duration, latest time.Time) *timeline {
	at := clock.Now()
	anchor := at.Round(0).Add(offset)
	if anchor.Before(latest) {
		anchor = latest
	}
	return &timeline{clock: clock, anchor: anchor, at: at}
}

// dateStep is the resolution of a Date header.
const dateStep = time.Second

// observe notes what time it is at the provider. A Date header is in whole
// seconds: one that agrees with what is known changes nothing.
func (t *timeline) observe(provider time.Time) {
	at := t.clock.Now()
	t.mu.Lock()
	defer t.mu.Unlock()
	least, most := t.elapsed(at)
	ahead := t.anchor.Add(most).Sub(provider)
	if most-least < dateStep && ahead > -dateStep && ahead < 2*dateStep {
		return
	}
	t.anchor, t.at = provider, at
}

// elapsed bounds how long ago the anchor is.
func (t *timeline) elapsed(now time.Time) (least, most time.Duration) {
	wall, mono := now.Round(0).Sub(t.at.Round(0)), now.Sub(t.at)
	return max(0, min(wall, mono)), max(0, wall, mono)
}

// now returns the latest that it can be: deadlines go by it.
func (t *timeline) now() time.Time {
	t.mu.Lock()
	defer t.mu.Unlock()
	_, most := t.elapsed(t.clock.Now())
	return t.anchor.Add(most).UTC()
}

// atLeast returns the earliest that it can be: waits go by it.
func (t *timeline) atLeast() time.Time {
	t.mu.Lock()
	defer t.mu.Unlock()
	least, _ := t.elapsed(t.clock.Now())
	return t.anchor.Add(least).UTC()
}

// offset returns how far the provider's clock is ahead of the local one.
func (t *timeline) offset() time.Duration {
	return t.now().Sub(t.clock.Now().Round(0))
}

// longestSleep bounds one sleep: a timer stands still while the machine is
// suspended, and a clock may be set.
const longestSleep = 30 * time.Second

// uncertain reports whether the local clock was set, or stood still, since the
// provider's was seen.
func (t *timeline) uncertain() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	least, most := t.elapsed(t.clock.Now())
	return most-least >= dateStep
}

// sleepUntil waits until it is until at the provider. If the local clock
// cannot be trusted, look asks the provider.
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
