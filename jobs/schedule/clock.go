package schedule

import (
	"math"
	"time"

	"github.com/robfig/cron/v3"
)

// Instants are seconds since 1970, and so is what clocks show, as if it were
// UTC. never is later than all of them.
const (
	day         = 24 * 3600
	never int64 = math.MaxInt64 / 4
	// around is more than any change of clocks; an offset is less, too. Samoa
	// left out a day.
	around = 2 * day
)

// clock is what clocks show in a place. It remembers where it looked last, and
// is not for concurrent use.
type clock struct {
	loc    *time.Location
	lo, hi int64 // the offset holds from lo to before hi
	off    int64
}

// look makes off the offset at t.
func (c *clock) look(t int64) {
	if c.lo <= t && t < c.hi {
		return
	}
	at := time.Unix(t, 0).In(c.loc)
	_, off := at.Zone()
	c.off, c.lo, c.hi = int64(off), -never, never
	lo, hi := at.ZoneBounds()
	if !lo.IsZero() {
		c.lo = lo.Unix()
	}
	if !hi.IsZero() {
		c.hi = hi.Unix()
	}
}

// steady reports whether clocks do not change around t. It looks there.
func (c *clock) steady(t int64) bool {
	c.look(t)
	return c.lo <= t-around && t+around < c.hi
}

// shown returns what clocks show at t.
func (c *clock) shown(t int64) int64 {
	c.look(t)
	return t + c.off
}

// furthest returns the latest that clocks have shown up to t.
func (c *clock) furthest(t int64) int64 {
	most := c.shown(t)
	for c.lo > t-around {
		most = max(most, c.shown(c.lo-1))
	}
	return most
}

// first returns when clocks first show w or later.
func (c *clock) first(w int64) int64 {
	if c.steady(w) {
		return w - c.off
	}
	for t := w - around; ; t = c.hi {
		c.look(t)
		if at := w - c.off; at < c.hi {
			return max(at, t)
		}
	}
}

// last returns when clocks show something before w for the last time: the first
// moment after that.
func (c *clock) last(w int64) int64 {
	if c.steady(w) {
		return w - c.off
	}
	var end int64
	for t := w - around; t <= w+around; t = c.hi {
		c.look(t)
		if at := w - c.off; t < at {
			end = min(at, c.hi)
		}
	}
	return end
}

// nextOccurrence returns the first instant after t at which the expression is
// met.
func (c *clock) nextOccurrence(e *cron.SpecSchedule, t int64) int64 {
	w := nextShown(e, c.furthest(t))
	if w == never {
		return never
	}
	return c.first(w)
}

// nextShown returns the first time after w that the expression names.
func nextShown(e *cron.SpecSchedule, w int64) int64 {
	at := time.Unix(w, 0).UTC()
	for range 8 { // the library gives up after five years; 29 February may take eight
		if next := e.Next(at); !next.IsZero() {
			return next.Unix()
		}
		at = time.Date(at.Year()+6, 1, 1, 0, 0, -1, 0, time.UTC)
	}
	return never
}

// weekday returns the day of the week of a day since 1970; sunday is 0.
func weekday(d int64) int64 { return ((d+4)%7 + 7) % 7 }

// dayOf returns the day since 1970 in which w lies.
func dayOf(w int64) int64 {
	d := w / day
	if w%day < 0 {
		d--
	}
	return d
}

// rule is a freeze window, or one that comes again.
type rule struct {
	label string

	once       bool
	start, end int64 // instants

	yearly         bool
	month, toMonth time.Month
	day, toDay     int // toDay is included

	days     uint8 // else, on these days of the week
	from, to int64 // seconds since midnight; to may be on the next day
}

// year returns what clocks show at the ends of the window that begins in year y.
func (r *rule) year(y int) (from, to int64) {
	from = time.Date(y, r.month, r.day, 0, 0, 0, 0, time.UTC).Unix() // no 29 February: 1 March
	if r.toMonth < r.month || r.toMonth == r.month && r.toDay < r.day {
		y++
	}
	end := time.Date(y, r.toMonth, r.toDay, 0, 0, 0, 0, time.UTC)
	if end.Month() == r.toMonth { // it is there, and included
		end = end.AddDate(0, 0, 1)
	}
	return from, end.Unix()
}

// windows calls f for all windows that touch lo to hi, which are less than a
// week apart, and maybe for others.
func (r *rule) windows(c *clock, lo, hi int64, f func(start, end int64)) {
	if r.once {
		f(r.start, r.end)
		return
	}
	slack := int64(0)
	if !c.steady(lo) || !c.steady(hi) {
		slack = 2
	}
	from, to := dayOf(c.shown(lo))-slack, dayOf(c.shown(hi))+slack
	if r.yearly {
		last := time.Unix(to*day, 0).UTC().Year()
		for y := time.Unix(from*day, 0).UTC().Year() - 1; y <= last; y++ {
			if s, e := r.year(y); s < e {
				f(c.first(s), c.last(e))
			}
		}
		return
	}
	for d := from - 1; d <= to; d++ {
		if r.days&(1<<weekday(d)) != 0 {
			f(c.first(d*day+r.from), c.last(d*day+r.to))
		}
	}
}
