package keywrighttest

import (
	"sync"
	"time"
)

// Clock is the time of a fake provider. Its zero value shows the real time; a
// test moves it. It is safe for concurrent use.
type Clock struct {
	mu    sync.Mutex
	shift time.Duration
}

// Now returns the fake's time, in UTC.
func (c *Clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return time.Now().Add(c.shift).UTC()
}

// Advance moves the clock forward by d, or back if d is negative.
func (c *Clock) Advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.shift += d
}

// Set makes the clock show t now.
func (c *Clock) Set(t time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.shift = time.Until(t)
}
