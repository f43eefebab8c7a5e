package rotation_test

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/keywright/keywright/rotation"
	"github.com/keywright/keywright/rotation/sink"
)

// badClock is a local clock that is wrong, is set, and stands still.
type badClock struct {
	start   time.Time
	shift   time.Duration // of the time of day
	asleep  time.Duration // that the other clock has missed
	onSleep func()        // called after each sleep
}

func newBadClock() *badClock { return &badClock{start: time.Now()} }

func (c *badClock) Now() time.Time         { return time.Now().Round(0).Add(c.shift) }
func (c *badClock) Elapsed() time.Duration { return time.Since(c.start) - c.asleep }
func (c *badClock) Sleep(ctx context.Context, d time.Duration) error {
	pass(ctx, d)
	if c.onSleep != nil {
		c.onSleep()
	}
	return ctx.Err()
}

// with runs a verb by a clock.
func (w *world) with(t *testing.T, c rotation.Clock, change func(*rotation.Job)) error {
	t.Helper()
	p := w.start(t.Context(), 0)
	defer p.cancel()
	e, err := rotation.Open("/state", rotation.WithFS(p.disk), rotation.WithClock(c))
	require.NoError(t, err)
	job := p.job()
	if change != nil {
		change(&job)
	}
	_, err = e.Rotate(p.ctx, job)
	return err
}

// A clock that is set, forward or back, makes no wait shorter or longer than
// it should be.
func TestClockIsSet(t *testing.T) {
	t.Parallel()
	for name, jump := range map[string]time.Duration{"forward": 24 * time.Hour, "back": -24 * time.Hour, "a little": -5 * time.Second} {
		for _, s := range []strategyName{paired, overlap, swap} {
			t.Run(name+" "+string(s), func(t *testing.T) {
				t.Parallel()
				scene(t, s, func(t *testing.T, w *world) {
					c := newBadClock()
					slept := 0
					c.onSleep = func() {
						if slept++; slept == 3 {
							c.shift += jump
						}
					}
					start := time.Now()
					err := w.with(t, c, func(j *rotation.Job) {
						j.Sinks[1] = sink.Dotenv("/app/.env", "TOKEN", sink.WithLag(time.Hour))
					})
					require.NoError(t, err)
					took := time.Since(start)
					assert.GreaterOrEqual(t, took, time.Hour-2*time.Second)
					assert.Less(t, took, time.Hour+5*time.Minute)
				})
			})
		}
	}
}

// A machine that is suspended for longer than the overlap goes on where it was.
func TestSuspended(t *testing.T) {
	t.Parallel()
	for _, s := range []strategyName{paired, overlap, swap} {
		t.Run(string(s), func(t *testing.T) {
			t.Parallel()
			scene(t, s, func(t *testing.T, w *world) {
				c := newBadClock()
				slept := 0
				c.onSleep = func() {
					if slept++; slept == 2 {
						pass(t.Context(), 7*time.Hour)
						c.asleep += 7 * time.Hour
					}
				}
				start := time.Now()
				require.NoError(t, w.with(t, c, func(j *rotation.Job) {
					j.Sinks[1] = sink.Dotenv("/app/.env", "TOKEN", sink.WithLag(10*time.Minute))
				}))
				assert.Less(t, time.Since(start), 7*time.Hour+15*time.Minute)
			})
		})
	}
}

// The provider's clock decides, however wrong the local one is.
func TestWrongClock(t *testing.T) {
	t.Parallel()
	for name, shift := range map[string]time.Duration{"3 days ahead": 72 * time.Hour, "30 years behind": -30 * 365 * 24 * time.Hour} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			scene(t, overlap, func(t *testing.T, w *world) {
				c := newBadClock()
				c.shift = shift
				require.NoError(t, w.with(t, c, nil))
				require.True(t, refusedFor(w.with(t, c, nil), rotation.ReasonWindow))
				pass(t.Context(), 6*time.Hour-time.Minute)
				require.True(t, refusedFor(w.with(t, c, nil), rotation.ReasonWindow), "the window is open for another minute")
				pass(t.Context(), time.Minute+2*time.Second)
				require.NoError(t, w.with(t, c, nil))
			})
			scene(t, swap, func(t *testing.T, w *world) {
				c := newBadClock()
				c.shift = shift
				require.NoError(t, w.with(t, c, func(j *rotation.Job) {
					s := j.Strategy.(rotation.AceDataSwap)
					s.Lifetime = 30 * 24 * time.Hour
					j.Strategy = s
				}))
				at, err := time.Parse(time.RFC3339, *w.credentials()[0].ExpiredAt)
				require.NoError(t, err)
				assert.WithinDuration(t, time.Now().Add(30*24*time.Hour), at, time.Minute)
			})
		})
	}
}

// Six hours of window, seen on a clock of its own.
func TestWindow(t *testing.T) {
	t.Parallel()
	scene(t, overlap, func(t *testing.T, w *world) {
		var left []time.Duration
		p := w.start(t.Context(), 0)
		defer p.cancel()
		e, err := rotation.Open("/state", rotation.WithFS(p.disk), rotation.WithObserver(func(v rotation.Event) {
			if v, ok := v.(rotation.Window); ok {
				left = append(left, v.Remaining)
			}
		}))
		require.NoError(t, err)
		job := p.job()
		job.Sinks[1] = sink.Dotenv("/app/.env", "TOKEN", sink.WithLag(5*time.Hour+40*time.Minute))
		_, err = e.Rotate(p.ctx, job)
		require.NoError(t, err)
		assert.InDelta(t, 6*time.Hour, left[0], float64(2*time.Second))
		assert.InDelta(t, 20*time.Minute, left[len(left)-1], float64(2*time.Second))
	})
}
