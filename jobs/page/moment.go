package page

import (
	"fmt"
	"time"
)

// moment is a time as it is shown. The zero moment is none.
type moment struct {
	ISO  string // for machines
	Text string // for people, in UTC
	Rel  string // "in 3 d 4 h", "12 min ago"
	Age  string // "3 d 4 h", without a direction
}

// Known reports whether there is a time.
func (m moment) Known() bool { return m.ISO != "" }

const (
	toMinute = "2006-01-02 15:04 UTC"
	toSecond = "2006-01-02 15:04:05 UTC"
)

// at makes a moment of a time, as it is seen at now.
func at(t, now time.Time, layout string) moment {
	t = t.UTC()
	if t.IsZero() || t.Year() < 1 || t.Year() > 9999 {
		return moment{}
	}
	m := moment{ISO: t.Format("2006-01-02T15:04:05Z"), Text: t.Format(layout)}
	// In seconds: a duration ends after 292 years.
	d := t.Unix() - now.Unix()
	m.Age = span(max(d, -d))
	switch {
	case d == 0:
		m.Rel = "now"
	case d > 0:
		m.Rel = "in " + m.Age
	default:
		m.Rel = m.Age + " ago"
	}
	return m
}

// span is a number of seconds in words, in its two largest units.
func span(s int64) string {
	const minute, hour, day, year = 60, 3600, 86400, 365 * 86400
	two := func(large, small int64, largeUnit, smallUnit string) string {
		if rest := s % large / small; rest > 0 {
			return fmt.Sprintf("%d %s %d %s", s/large, largeUnit, rest, smallUnit)
		}
		return fmt.Sprintf("%d %s", s/large, largeUnit)
	}
	switch {
	case s < minute:
		return fmt.Sprintf("%d s", s)
	case s < 10*minute:
		return two(minute, 1, "min", "s")
	case s < hour:
		return fmt.Sprintf("%d min", s/minute)
	case s < day:
		return two(hour, minute, "h", "min")
	case s < 10*day:
		return two(day, hour, "d", "h")
	case s < year:
		return fmt.Sprintf("%d d", s/day)
	}
	return two(year, day, "y", "d")
}
