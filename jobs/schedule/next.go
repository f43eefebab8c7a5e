package schedule

import (
	"errors"
	"fmt"
	"math/bits"
	"time"
)

const (
	// Lead is how long before a freeze window a rotation is due that would be
	// inside; half of the open time before the window if that is less. With
	// jitter it is up to a day.
	Lead = time.Hour
	// Margin is how long before its expiry a key is rotated at the latest,
	// inside a freeze window if need be. It is half of BeforeExpiry if that is
	// less, and a quarter of the key's life if that is less still.
	Margin = 24 * time.Hour
)

// ErrInput is matched by the errors for an [Input] that says too little.
var ErrInput = errors.New("schedule: input")

// ErrNoTime is matched by the error for too many freeze windows, thousands, that
// touch. Most are refused by [Spec.Validate].
var ErrNoTime = errors.New("schedule: too many freeze windows touch")

// Input is what is known about a job. Times after the year 9999 are refused, but
// for Expires.
type Input struct {
	// Job is the job's name. Jitter depends on it.
	Job string
	// Last is when the last rotation was finished; zero: never.
	Last time.Time
	// FirstSeen is when the job was first known. Required if Last is zero.
	FirstSeen time.Time
	// Expires is when the key expires; zero: never, or it is not known. It is
	// that of the key that Last put in use: one before Last says nothing.
	Expires time.Time
	// Now is the time. Required.
	Now time.Time
}

// Due is when a job's key is to be rotated. Its times are in UTC.
type Due struct {
	// At is when the rotation may begin: Now if it could have begun before.
	// Zero: never, as things are; Reason says why.
	At time.Time
	// Planned is what At was before it was missed. It stays the same while
	// nothing but Now changes, unless a freeze window began. Jobs that are due
	// take turns by it, the oldest first.
	Planned time.Time
	// Frozen says that At is inside a freeze window, because the key would be
	// too close to its expiry after it.
	Frozen bool
	// Reason says in words why it is then: "every 30d, 2h of jitter, moved
	// before the freeze of 12-20 to 01-05".
	Reason string
}

// Next returns when a job's key is to be rotated next. It depends on nothing but
// the Spec and in. The error is an [*Error] if the Spec is not valid, and matches
// [ErrInput] or [ErrNoTime] else.
func (s *Spec) Next(in Input) (Due, error) {
	p := s.plan
	if p == nil {
		var err error
		if p, err = s.compile(); err != nil {
			return Due{}, err
		}
	}
	n := next{plan: p, clock: clock{loc: p.loc}, rotated: !in.Last.IsZero()}
	var err error
	if n.now, err = instant(in.Now, "Now"); err != nil {
		return Due{}, err
	}
	start, which := in.Last, "Last"
	if !n.rotated {
		start, which = in.FirstSeen, "FirstSeen"
	}
	if n.start, err = instant(start, which); err != nil {
		return Due{}, err
	}
	if n.life(in.Expires) {
		return Due{Reason: "the expiry is not known"}, nil
	}
	n.hash = hash(in.Job)
	return n.due()
}

// FrozenAt reports whether t is in a freeze window, and when that ends; windows
// that touch are one. The error is that of [Spec.Next].
func (s *Spec) FrozenAt(t time.Time) (until time.Time, frozen bool, err error) {
	p := s.plan
	if p == nil {
		if p, err = s.compile(); err != nil {
			return time.Time{}, false, err
		}
	}
	t, err = instant(t, "the time")
	if err != nil {
		return time.Time{}, false, err
	}
	n := next{plan: p, clock: clock{loc: p.loc}}
	f, err := n.frozen(t.Unix())
	if err != nil || f.label == "" {
		return time.Time{}, false, err
	}
	return time.Unix(f.end, 0).UTC(), true, nil
}

// instant checks a time, and takes the monotonic clock away.
func instant(t time.Time, which string) (time.Time, error) {
	t = t.Round(0).UTC()
	if t.IsZero() {
		return t, fmt.Errorf("%w: %s is not set", ErrInput, which)
	}
	if y := t.Year(); y < 1 || y > 9999 {
		return t, fmt.Errorf("%w: %s is not in the years 1 to 9999", ErrInput, which)
	}
	return t, nil
}

// next is one call of Next.
type next struct {
	*plan
	clock
	hash       uint64
	now, start time.Time
	rotated    bool      // start is the end of a rotation
	expires    time.Time // zero: it says nothing
	latest     time.Time // by when to rotate, freeze or not; zero: whenever
}

// life takes the expiry in, and reports whether there is nothing to go by
// without it.
func (n *next) life(expires time.Time) (unknown bool) {
	expires, err := instant(expires, "Expires")
	if err != nil || n.rotated && !expires.After(n.start) {
		return n.every == 0 && n.cron == nil
	}
	n.expires = expires
	before := margin(expires, n.start)
	if n.before > 0 {
		before = min(before, n.before/2)
	}
	n.latest = expires.Add(-before)
	return false
}

// margin is [Margin] for a key that is in use since start.
func margin(expires, start time.Time) time.Duration {
	if expires.After(start) {
		return min(Margin, expires.Sub(start)/4)
	}
	return Margin
}

// place is when something is due, and why then.
type place struct {
	at, planned time.Time
	frozen      bool
	jitter      time.Duration
	why         string // of a freeze: ", moved before the freeze of "
	label       string // of the freeze
	life        bool   // because of the expiry
	late        bool
}

// due returns the earlier of what the interval or the cron expression says, and
// what the expiry does.
func (n *next) due() (Due, error) {
	var best place
	if n.every > 0 {
		if err := n.consider(&best, n.start.Add(n.every), false); err != nil {
			return Due{}, err
		}
	}
	if n.cron != nil {
		pl, err := n.occurrence()
		if err == nil {
			err = n.catchUp(&best, pl)
		}
		if err != nil {
			return Due{}, err
		}
	}
	if n.before > 0 && !n.expires.IsZero() {
		at := n.expires.Add(-n.before)
		floor := n.start
		if n.rotated {
			// A life shorter than BeforeExpiry would be one rotation after the
			// other.
			floor = floor.Add(max(n.expires.Sub(n.start)/4, shortest))
		}
		if at.Before(floor) {
			at = floor
		}
		if err := n.consider(&best, at, true); err != nil {
			return Due{}, err
		}
	}
	if best.at.IsZero() || best.at.Year() > 9999 {
		return Due{Reason: "not before the year 10000"}, nil
	}
	return Due{At: best.at, Planned: best.planned, Frozen: best.frozen, Reason: n.reason(&best)}, nil
}

// consider looks at a time, with jitter and freeze windows.
func (n *next) consider(best *place, at time.Time, life bool) error {
	room := max(at.Unix()-n.start.Unix(), 0)
	j := n.share(min(n.jitter, room/2))
	pl := place{jitter: time.Duration(j) * time.Second, life: life}
	if err := n.settle(&pl, at.Add(-pl.jitter)); err != nil {
		return err
	}
	if j > 0 && len(n.rules) > 0 { // a freeze may move it by more than jitter does
		plain := place{jitter: pl.jitter, life: life}
		if err := n.settle(&plain, at); err != nil {
			return err
		}
		if plain.planned.Before(pl.planned) {
			pl = plain
		}
	}
	return n.catchUp(best, pl)
}

// share returns the job's share of a number of seconds: less than all of them,
// but for a canary, which is before all others.
func (n *next) share(seconds int64) int64 {
	if n.canary {
		return seconds
	}
	hi, _ := bits.Mul64(n.hash, uint64(seconds))
	return int64(hi)
}

// settle plans a place at a time, or around the freeze window that it is in.
func (n *next) settle(pl *place, at time.Time) error {
	pl.planned = at
	f, err := n.frozen(at.Unix())
	if err != nil || f.label == "" {
		return err
	}
	pl.label = f.label
	least, most := n.lead(f)
	start := n.start.Unix()
	if n.start.Nanosecond() > 0 {
		start++
	}
	switch {
	case most > start:
		// Never before the start, and no later than without jitter.
		pl.planned = time.Unix(max(least, start+(most-start+1)/2), 0).UTC()
		if n.now.Unix() < f.start {
			pl.why = ", moved before the freeze of "
			return nil
		}
		// That has passed. What is left is the end, or inside.
		pl.planned = at
		fallthrough
	default:
		if n.urgent(f) {
			return nil // see catchUp
		}
		pl.planned, pl.why = time.Unix(f.end, 0).UTC(), ", moved to the end of the freeze of "
		return nil
	}
}

// urgent reports whether the key is too close to its expiry at the end of f.
func (n *next) urgent(f freeze) bool {
	return !n.latest.IsZero() && f.end > n.latest.Unix()
}

// catchUp takes pl for best if it is earlier. What was missed is due now.
func (n *next) catchUp(best *place, pl place) error {
	if pl.planned.IsZero() {
		return nil
	}
	pl.at = pl.planned
	if n.start.After(pl.at) {
		pl.at = n.start
	}
	if n.now.After(pl.at) {
		pl.at, pl.late = n.now, true
	}
	f, err := n.frozen(pl.at.Unix())
	if err != nil {
		return err
	}
	if f.label != "" {
		pl.label = f.label
		if n.urgent(f) {
			pl.frozen, pl.why = true, ", inside the freeze of "
		} else {
			pl.at, pl.late, pl.why = time.Unix(f.end, 0).UTC(), false, ", moved to the end of the freeze of "
		}
	}
	if best.at.IsZero() || pl.at.Before(best.at) || pl.at.Equal(best.at) && pl.planned.Before(best.planned) {
		*best = pl
	}
	return nil
}

// occurrence returns the first occurrence of the cron expression that no
// rotation was made for.
func (n *next) occurrence() (place, error) {
	j := n.share(n.jitter)
	pl := place{jitter: time.Duration(j) * time.Second}
	start := n.start.Unix()
	if !n.rotated {
		// Nothing was made for any; one whose time with jitter has passed is due.
		at := n.nextOccurrence(n.cron, start)
		if at == never {
			return place{}, nil
		}
		when := time.Unix(at-j, 0).UTC()
		if when.Before(n.start) {
			when = n.start
			pl.jitter = time.Unix(at, 0).Sub(n.start)
		}
		return pl, n.settle(&pl, when)
	}
	after := start + j
	for range maxSteps {
		at := n.nextOccurrence(n.cron, after)
		if at == never {
			return place{}, nil
		}
		when := at - j
		f, err := n.frozen(when)
		if err != nil {
			return place{}, err
		}
		inside := f.label != ""
		if !inside && j > 0 {
			if f, err = n.frozen(at); err != nil { // it may move it by more than jitter does
				return place{}, err
			}
		}
		if f.label == "" {
			pl.planned = time.Unix(when, 0).UTC()
			return pl, nil
		}
		least, _ := n.lead(f)
		if !inside && when <= least {
			pl.planned = time.Unix(when, 0).UTC()
			return pl, nil
		}
		if before := time.Unix(least, 0).UTC(); before.After(n.start) {
			pl.label = f.label
			switch {
			case n.now.Unix() < f.start:
				pl.planned, pl.why = before, ", moved before the freeze of "
			case n.urgent(f) || !inside:
				pl.planned = time.Unix(when, 0).UTC()
			default:
				pl.planned, pl.why = time.Unix(f.end, 0).UTC(), ", moved to the end of the freeze of "
			}
			return pl, nil
		}
		if n.urgent(f) { // that one is not enough
			pl.planned = n.latest
			if at := time.Unix(when, 0).UTC(); at.After(pl.planned) {
				pl.planned = at
			}
			return pl, nil
		}
		after = f.end - 1 // one rotation was for all of them
		if inside {
			after += j
		}
	}
	return place{}, ErrNoTime
}

// maxSteps bounds how many windows are put together. A year of nights and
// weekends has less.
const maxSteps = 2000

// freeze is a stretch in which no rotation begins; without a label it is none.
type freeze struct {
	start, end int64
	label      string
}

// touching returns the windows that t is in, put together.
func (n *next) touching(t int64) (f freeze) {
	for i := range n.rules {
		r := &n.rules[i]
		r.windows(&n.clock, t, t, func(start, end int64) {
			switch {
			case t < start || t >= end:
			case f.label == "":
				f = freeze{start, end, r.label}
			default:
				f.start, f.end = min(f.start, start), max(f.end, end)
			}
		})
	}
	return f
}

// frozen returns the stretch that t is in, of windows that touch.
func (n *next) frozen(t int64) (freeze, error) {
	if len(n.rules) == 0 {
		return freeze{}, nil
	}
	f := n.touching(t)
	if f.label == "" {
		return f, nil
	}
	for range maxSteps {
		more := n.touching(f.end)
		if more.label == "" {
			for range maxSteps {
				if more = n.touching(f.start - 1); more.label == "" {
					return f, nil
				}
				f.start = more.start
			}
			break
		}
		f.end = more.end
	}
	return freeze{}, ErrNoTime
}

// lead returns when before f a rotation is due that would be inside: least with
// the job's jitter, most without.
func (n *next) lead(f freeze) (least, most int64) {
	const lead = int64(Lead / time.Second)
	long := lead + min(n.jitter, day-lead)
	open := 2 * long // that it has been so far; no more is needed
	for i := range n.rules {
		n.rules[i].windows(&n.clock, f.start-open, f.start, func(_, end int64) {
			if end <= f.start {
				open = min(open, f.start-end)
			}
		})
	}
	short := max(min(open/2, lead), 1)
	long = max(min(open/2, long), short)
	return f.start - short - n.share(long-short), f.start - short
}

// hash mixes a name so that similar ones are far apart.
func hash(name string) uint64 {
	h := uint64(14695981039346656037) // FNV-1a
	for _, c := range []byte(name) {
		h = (h ^ uint64(c)) * 1099511628211
	}
	h = (h ^ h>>30) * 0xbf58476d1ce4e5b9
	h = (h ^ h>>27) * 0x94d049bb133111eb
	return h ^ h>>31
}

// reason says why a place is where it is.
func (n *next) reason(pl *place) string {
	s := n.sayRaw
	if pl.life {
		s = n.sayLife
	}
	if pl.jitter >= time.Second {
		s += ", " + say(pl.jitter) + " of jitter"
	}
	if pl.why != "" {
		s += pl.why + pl.label
	}
	if pl.frozen {
		s += ", since the key expires too soon after it"
	}
	if pl.late {
		s += ", overdue"
	}
	if n.now.Before(n.start) {
		s += "; the clock is behind the last rotation"
	}
	return s
}
