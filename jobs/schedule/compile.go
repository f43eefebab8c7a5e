package schedule

import (
	"strconv"
	"strings"
	"time"

	"github.com/robfig/cron/v3"
)

// Bounds of a Spec.
const (
	shortest   = time.Minute
	mostOften  = time.Second
	longest    = 36500 * 24 * time.Hour // 100 years
	maxJitter  = 366 * 24 * time.Hour
	maxOnce    = 366 * 24 * 3600 // seconds
	maxClosed  = 400             // days in a row without an open minute
	maxWindows = 100
)

// plan is a Spec that was understood. Times are in seconds.
type plan struct {
	loc     *time.Location
	every   time.Duration // 0: none
	cron    *cron.SpecSchedule
	before  time.Duration // 0: none
	jitter  int64
	canary  bool
	rules   []rule
	sayRaw  string // "every 30d"
	sayLife string // "14d before the expiry"
}

// problems collects what is wrong.
type problems []Problem

func (p *problems) add(where, reason string) { *p = append(*p, Problem{where, reason}) }

func (s *Spec) compile() (*plan, error) {
	var bad problems
	p := &plan{loc: time.UTC, canary: s.Canary}
	if s.Timezone != "" {
		// "Local" would be another zone on another machine.
		loc, err := time.LoadLocation(s.Timezone)
		if err != nil || s.Timezone == "Local" {
			bad.add("timezone", `is not known here; want a name such as "Europe/Berlin"`)
		} else {
			p.loc = loc
		}
	}
	switch {
	case s.Every != "" && s.Cron != "":
		bad.add("cron", "does not go with every; want one of the two")
	case s.Every == "" && s.Cron == "" && s.BeforeExpiry == "":
		bad.add("", "want every, cron or before_expiry")
	}
	p.every = interval("every", s.Every, mostOften, longest, &bad)
	p.before = interval("before_expiry", s.BeforeExpiry, shortest, longest, &bad)
	jitter := interval("jitter", s.Jitter, 0, maxJitter, &bad)
	if p.every > 0 && jitter > p.every/2 {
		bad.add("jitter", "want at most half of every")
	}
	p.jitter = int64(jitter / time.Second)
	if s.Cron != "" {
		p.cron = expression(s.Cron, &bad)
	}
	if len(s.Freeze) > maxWindows {
		bad.add("freeze", "want at most 100 windows")
	} else {
		for i, w := range s.Freeze {
			p.window(w, "freeze["+strconv.Itoa(i)+"]", &bad)
		}
		if len(bad) == 0 && !p.leavesTime() {
			bad.add("freeze", "leaves no time for a rotation for more than a year")
		}
	}
	if s.Group != "" && !name(s.Group) {
		bad.add("group", "want a name of 1 to 100 letters, digits, hyphens, underscores and dots, no dot first")
	}
	if len(bad) > 0 {
		return nil, &Error{Problems: bad}
	}
	if p.cron != nil {
		p.sayRaw = "cron " + strings.Join(strings.Fields(s.Cron), " ") + " (" + p.loc.String() + ")"
	} else {
		p.sayRaw = "every " + say(p.every)
	}
	p.sayLife = say(p.before) + " before the expiry"
	return p, nil
}

// interval reads a duration; empty is 0.
func interval(where, text string, least, most time.Duration, bad *problems) time.Duration {
	if text == "" {
		return 0
	}
	d, ok := duration(text)
	switch {
	case !ok:
		bad.add(where, `want a duration such as "90s", "6h" or "30d"`)
	case d < least:
		bad.add(where, "want at least "+say(least))
	case d > most:
		bad.add(where, "want at most "+say(most))
	default:
		return d
	}
	return 0
}

// duration reads what is a duration of Go or whole days.
func duration(text string) (time.Duration, bool) {
	if days, ok := strings.CutSuffix(text, "d"); ok {
		n, err := strconv.ParseUint(days, 10, 32)
		if err != nil || n > 99999 {
			return 0, false
		}
		return time.Duration(n) * 24 * time.Hour, true
	}
	d, err := time.ParseDuration(text)
	return d, err == nil && d >= 0
}

// say writes a duration shortly, in at most two units: "30d", "1d12h", "2h13m".
func say(d time.Duration) string {
	if d < time.Second {
		return d.String()
	}
	var b strings.Builder
	told := 0
	for _, u := range []struct {
		d    time.Duration
		name string
	}{{24 * time.Hour, "d"}, {time.Hour, "h"}, {time.Minute, "m"}, {time.Second, "s"}} {
		if n := d / u.d; n > 0 && told < 2 {
			b.WriteString(strconv.FormatInt(int64(n), 10) + u.name)
		} else if told == 0 {
			continue
		}
		d %= u.d
		told++
	}
	return b.String()
}

// name reports whether s may be the name of a job or a group.
func name(s string) bool {
	if s == "" || len(s) > 100 || s[0] == '.' {
		return false
	}
	for _, c := range []byte(s) {
		if !(c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '-' || c == '_' || c == '.') {
			return false
		}
	}
	return true
}

var cronFields = [...]string{"minute", "hour", "day of the month", "month", "weekday"}

// expression reads a cron expression.
func expression(text string, bad *problems) *cron.SpecSchedule {
	const want = `want a cron expression of five fields, such as "0 4 1 * *"`
	// A time zone in the expression would go past ours, and "@every" is an
	// interval from now on.
	if strings.Contains(text, "=") || strings.HasPrefix(text, "@every") || len(text) > 1000 {
		bad.add("cron", want)
		return nil
	}
	fields := strings.Fields(text)
	if len(fields) == 5 {
		for i, f := range fields {
			alone := []string{"*", "*", "*", "*", "*"}
			alone[i] = f
			if _, err := cron.ParseStandard(strings.Join(alone, " ")); err != nil || strings.Trim(f, ",") == "" {
				bad.add("cron", "its "+cronFields[i]+" is not understood; "+want)
				return nil
			}
		}
	}
	schedule, err := cron.ParseStandard(text)
	if err != nil {
		bad.add("cron", want)
		return nil
	}
	c, ok := schedule.(*cron.SpecSchedule)
	if !ok || c.Minute == 0 || c.Hour == 0 || c.Dom == 0 || c.Month == 0 || c.Dow == 0 {
		bad.add("cron", want)
		return nil
	}
	c.Location = time.UTC // it is asked for what clocks show, as if that were UTC
	if nextShown(c, 0) == never {
		bad.add("cron", "names a day that never comes")
		return nil
	}
	return c
}

// window reads a freeze window.
func (p *plan) window(w Window, where string, bad *problems) {
	span, weekly := w.From != "" || w.To != "", len(w.Weekdays) > 0 || w.Daily != ""
	if span == weekly {
		bad.add(where, "want from and to, or weekdays, or daily, or the last two")
		return
	}
	if weekly {
		p.weekly(w, where, bad)
		return
	}
	if w.From == "" || w.To == "" {
		bad.add(where, "want both from and to")
		return
	}
	from, fromKind := date(w.From)
	to, toKind := date(w.To)
	const want = `want "12-20" for every year, or once "2027-03-01" or "2027-03-01T18:00"`
	if fromKind == 0 {
		bad.add(where+".from", want)
	}
	if toKind == 0 {
		bad.add(where+".to", want)
	}
	if fromKind == 0 || toKind == 0 {
		return
	}
	if (fromKind == yearly) != (toKind == yearly) {
		bad.add(where, "want from and to both with a year or both without")
		return
	}
	if fromKind == yearly {
		p.rules = append(p.rules, rule{
			label: w.From + " to " + w.To, yearly: true,
			month: from.Month(), day: from.Day(), toMonth: to.Month(), toDay: to.Day(),
		})
		return
	}
	end := to.Unix()
	if toKind == onDay {
		end += day
	}
	var c clock
	c.loc = p.loc
	r := rule{label: w.From + " to " + w.To, once: true}
	r.start, r.end = c.first(from.Unix()), c.last(end)
	switch {
	case end <= from.Unix():
		bad.add(where+".to", "want a time after from")
	case r.end-r.start > maxOnce+2*day:
		bad.add(where, "want at most 366 days")
	default:
		p.rules = append(p.rules, r)
	}
}

// Kinds of dates.
const (
	yearly = 1 + iota
	onDay
	atMinute
)

// date reads what begins or ends a window; kind is 0 if it cannot.
func date(text string) (t time.Time, kind int) {
	if t, err := time.Parse("2006-01-02", "2000-"+text); err == nil { // has a 29 February
		return t, yearly
	}
	kind = onDay
	t, err := time.Parse("2006-01-02", text)
	if err != nil {
		kind = atMinute
		t, err = time.Parse("2006-01-02T15:04", text)
	}
	if err != nil || t.Year() < 1 {
		return t, 0
	}
	return t, kind
}

var weekdays = [...]string{"sun", "mon", "tue", "wed", "thu", "fri", "sat"}

// weekly reads a window of days of the week, of times of the day, or of both.
func (p *plan) weekly(w Window, where string, bad *problems) {
	r := rule{days: 1<<7 - 1, to: day}
	if len(w.Weekdays) > 0 {
		r.days = 0
	}
days:
	for i, text := range w.Weekdays {
		for n, d := range weekdays {
			if strings.EqualFold(text, d) {
				r.days |= 1 << n
				continue days
			}
		}
		bad.add(where+".weekdays["+strconv.Itoa(i)+"]", "want mon, tue, wed, thu, fri, sat or sun")
		return
	}
	var label []string
	for i := range weekdays {
		if n := (i + 1) % 7; len(w.Weekdays) > 0 && r.days&(1<<n) != 0 { // monday first
			label = append(label, weekdays[n])
		}
	}
	r.label = strings.Join(label, ", ")
	if w.Daily != "" {
		a, b, ok := strings.Cut(w.Daily, "-")
		from, okFrom := timeOfDay(a)
		to, okTo := timeOfDay(b)
		if !ok || !okFrom || !okTo || from == to || from == day {
			bad.add(where+".daily", `want two times such as "18:00-08:00"`)
			return
		}
		if to < from {
			to += day
		}
		r.from, r.to = from, to
		r.label = strings.TrimSpace(r.label + " " + w.Daily)
	}
	p.rules = append(p.rules, r)
}

// timeOfDay reads "18:00" as seconds since midnight; "24:00" is one too.
func timeOfDay(text string) (int64, bool) {
	if text == "24:00" {
		return day, true
	}
	t, err := time.Parse("15:04", text)
	if err != nil || len(text) != 5 {
		return 0, false
	}
	return int64(t.Hour())*3600 + int64(t.Minute())*60, true
}

// leavesTime reports whether the windows that come again leave time often
// enough. It looks at what clocks show.
func (p *plan) leavesTime() bool {
	open := p.openDays()
	if open == 0 {
		return false
	}
	const days = 366 * 28 // in which each date has been each weekday
	var frozen [days]bool
	again := false
	for i := range p.rules {
		r := &p.rules[i]
		if !r.yearly {
			continue
		}
		again = true
		for y := 1969; y <= 1970+days/365; y++ {
			from, to := r.year(y)
			for d := max(from/day, 0); d < min(to/day, days); d++ {
				frozen[d] = true
			}
		}
	}
	closed := 0
	for d := range frozen {
		if closed++; !frozen[d] && open&(1<<weekday(int64(d))) != 0 {
			closed = 0
		}
		if closed > maxClosed {
			return false
		}
		if !again && d == 7 {
			break
		}
	}
	return true
}

// openDays returns the days of the week with an open minute, a bit for each.
func (p *plan) openDays() (open uint8) {
	var frozen [7*1440/64 + 1]uint64
	for i := range p.rules {
		r := &p.rules[i]
		if r.yearly || r.once {
			continue
		}
		for d := range int64(7) {
			if r.days&(1<<d) == 0 {
				continue
			}
			for m := d*1440 + r.from/60; m < d*1440+r.to/60; m++ {
				at := m % (7 * 1440)
				frozen[at/64] |= 1 << (at % 64)
			}
		}
	}
	for d := range 7 {
		for m := d * 1440; m < (d+1)*1440; m++ {
			if frozen[m/64]&(1<<(m%64)) == 0 {
				open |= 1 << d
				break
			}
		}
	}
	return open
}
