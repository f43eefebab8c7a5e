package jobs

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

const day = 24 * time.Hour

// A clock that jumps ahead by a year makes every key due, once; back again, none
// is rotated twice, and none waits for the year to pass.
func TestClockYearAhead(t *testing.T) {
	t.Parallel()
	both(t, func(t *testing.T, d database) {
		w, c := &world{}, &clock{}
		k, failing, asked := newKey(w, "billing"), newKey(w, "failing"), newKey(w, "asked")
		failing.issue = fakeError{"no"}
		expiring := asked.job(specOf(t, `{"every":"30d","before_expiry":"10d"}`))
		expiring.Expires = nil // the toy's provider cannot be asked
		b := newBench(t, d, c).start(k.job(specOf(t, `{"every":"30d"}`)), failing.job(specOf(t, `{"every":"30d"}`)), expiring)
		b.idle()
		c.advance(365 * day)
		for ran := make(map[string]bool); len(ran) < 3; {
			ran[b.next().Job] = true
		}
		b.idle()
		b.sweeps()
		b.sweeps()
		require.Equal(t, 1, k.count(), "it was due twelve times")

		c.advance(-365 * day)
		b.sweeps()
		b.sweeps()
		require.Equal(t, 1, k.count())
		require.LessOrEqual(t, b.status1("billing").Due.Sub(c.now()), 30*day)
		require.LessOrEqual(t, b.status1("billing").Finished.Sub(c.now()), time.Duration(0))
		require.LessOrEqual(t, b.status1("failing").Due.Sub(c.now()), 30*day)
		require.LessOrEqual(t, b.status1("asked").Due.Sub(c.now()), 30*day)
		before := b.status1("billing").Due
		b.sweeps()
		require.Equal(t, before, b.status1("billing").Due, "it does not recede")

		failing.set(func() { failing.issue = nil })
		c.advance(31 * day)
		seen := make(map[string]bool)
		for len(seen) < 3 {
			if v := b.until(done); v.Over {
				seen[v.Job] = true
			}
		}
		b.sweeps()
		require.Equal(t, 2, k.count())
		require.Equal(t, 1, failing.count())
	})
}

// A clock that jumps back by a day rotates nothing again, and puts off by a day.
func TestClockDayBack(t *testing.T) {
	t.Parallel()
	both(t, func(t *testing.T, d database) {
		w, c := &world{}, &clock{}
		k, daily := newKey(w, "billing"), newKey(w, "daily")
		b := newBench(t, d, c).start(k.job(specOf(t, `{"every":"30d"}`)), daily.job(specOf(t, `{"cron":"30 2 * * *"}`)))
		c.advance(31 * day)
		for range 2 {
			require.True(t, done(b.until(done)))
		}
		b.idle()
		due, dailyDue := b.status1("billing").Due, b.status1("daily").Due
		c.advance(-day)
		b.sweeps()
		b.sweeps()
		require.Equal(t, due, b.status1("billing").Due)
		require.Equal(t, dailyDue, b.status1("daily").Due)
		c.advance(dailyDue.Sub(c.now()) - time.Minute)
		b.sweeps()
		require.Equal(t, 1, daily.count(), "an occurrence is not rotated for twice")
		c.advance(31*day + 2*time.Minute)
		for range 2 {
			require.True(t, done(b.until(done)))
		}
		b.sweeps()
		require.Equal(t, 2, k.count())
		require.Equal(t, 2, daily.count())
	})
}

// A clock that jumps back by an hour in the middle of a rotation makes the next
// one an hour later at most.
func TestClockHourBackMeanwhile(t *testing.T) {
	t.Parallel()
	both(t, func(t *testing.T, d database) {
		k, c := newKey(&world{}, "billing"), &clock{}
		reached, let := make(chan struct{}, 10), make(chan struct{})
		k.calls = func(what string) {
			if what == "issue" {
				reached <- struct{}{}
				<-let
			}
		}
		b := newBench(t, d, c).start(k.job(specOf(t, `{"every":"2h"}`)))
		c.advance(2 * time.Hour)
		<-reached
		c.advance(-time.Hour)
		close(let)
		require.True(t, done(b.until(done)))
		b.sweeps()
		b.sweeps()
		require.Equal(t, 1, k.count())
		wait := b.status1("billing").Due.Sub(c.now())
		require.Greater(t, wait, 110*time.Minute)
		require.LessOrEqual(t, wait, 3*time.Hour)
		c.advance(wait)
		require.True(t, done(b.until(done)))
		require.Equal(t, 2, k.count())
	})
}

// A schedule at a time that clocks leave out, or show twice, rotates once a day.
func TestDaylightSaving(t *testing.T) {
	t.Parallel()
	berlin, err := time.LoadLocation("Europe/Berlin")
	require.NoError(t, err)
	for name, test := range map[string]struct {
		from time.Time
		want []string
	}{
		"spring": {time.Date(2027, 3, 27, 12, 30, 0, 0, berlin), []string{"2027-03-28T01:30Z", "2027-03-29T00:30Z"}},
		"autumn": {time.Date(2027, 10, 30, 12, 30, 0, 0, berlin), []string{"2027-10-31T00:30Z", "2027-11-01T01:30Z"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			both(t, func(t *testing.T, d database) {
				k, c := newKey(&world{}, "billing"), &clock{}
				c.advance(time.Until(test.from))
				var at []string
				k.calls = func(what string) {
					if what == "issue" {
						at = append(at, c.now().UTC().Format("2006-01-02T15:04Z"))
					}
				}
				b := newBench(t, d, c).start(k.job(specOf(t, `{"cron":"30 2 * * *","timezone":"Europe/Berlin"}`)))
				b.idle()
				for next := test.from; !next.After(test.from.Add(40 * time.Hour)); next = next.Add(time.Hour) {
					c.advance(next.Sub(c.now()))
					b.sweeps()
				}
				b.stop()
				require.Equal(t, test.want, at)
			})
		})
	}
}
