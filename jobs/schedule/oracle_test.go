package schedule_test

import (
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/keywright/keywright/jobs/schedule"
)

// seeds returns how many random schedules there is time for.
func seeds(quick int) int {
	if os.Getenv("KEYWRIGHT_SOAK") == "1" {
		return 200 * quick
	}
	return quick
}

var dayNames = []string{"sun", "mon", "tue", "wed", "thu", "fri", "sat"}

// window returns some freeze window near a day, and what local times it has: a
// function that calls f for the beginning and end of each that touches a range,
// as clocks show them.
func window(r *rand.Rand, near time.Time) (schedule.Window, func(lo, hi time.Time, f func(from, to time.Time))) {
	date := near.AddDate(0, 0, r.IntN(20)-10)
	length := r.IntN(6)
	switch r.IntN(4) {
	case 0:
		last := date.AddDate(0, 0, length)
		w := schedule.Window{From: date.Format("01-02"), To: last.Format("01-02")}
		return w, func(lo, hi time.Time, f func(from, to time.Time)) {
			for y := lo.Year() - 1; y <= hi.Year(); y++ {
				from := time.Date(y, date.Month(), date.Day(), 0, 0, 0, 0, time.UTC)
				end := time.Date(y, last.Month(), last.Day(), 0, 0, 0, 0, time.UTC)
				if last.Format("0102") < date.Format("0102") {
					end = end.AddDate(1, 0, 0)
				}
				f(from, end.AddDate(0, 0, 1))
			}
		}
	case 1:
		from := date.Add(time.Duration(r.IntN(1440)) * time.Minute)
		to := from.Add(time.Duration(1+r.IntN(5000)) * time.Minute)
		const layout = "2006-01-02T15:04"
		w := schedule.Window{From: from.Format(layout), To: to.Format(layout)}
		return w, func(_, _ time.Time, f func(from, to time.Time)) { f(from, to) }
	}
	var w schedule.Window
	days := uint8(127)
	if r.IntN(2) == 0 {
		days = uint8(1 + r.IntN(126))
		for i, name := range dayNames {
			if days&(1<<i) != 0 {
				w.Weekdays = append(w.Weekdays, name)
			}
		}
	}
	from, to := 0, 1440
	if len(w.Weekdays) == 0 || r.IntN(2) == 0 {
		if from, to = r.IntN(1440), 1+r.IntN(1439); from == to {
			to++
		}
		w.Daily = fmt.Sprintf("%02d:%02d-%02d:%02d", from/60, from%60, to/60, to%60)
		if to < from {
			to += 1440
		}
	}
	return w, func(lo, hi time.Time, f func(from, to time.Time)) {
		for d := lo.Truncate(24*time.Hour).AddDate(0, 0, -3); d.Before(hi.AddDate(0, 0, 3)); d = d.AddDate(0, 0, 1) {
			if days&(1<<d.Weekday()) != 0 {
				f(d.Add(time.Duration(from)*time.Minute), d.Add(time.Duration(to)*time.Minute))
			}
		}
	}
}

// TestFrozenAt_oracle compares freeze windows with what comes of looking at the
// clock every minute, around changes of clocks, leap days and the end of a year.
func TestFrozenAt_oracle(t *testing.T) {
	t.Parallel()
	around := []struct{ zone, at string }{
		{"Europe/Berlin", "2026-03-29T01:00:00Z"}, {"Europe/Berlin", "2026-10-25T01:00:00Z"}, {"Australia/Lord_Howe", "2026-04-04T15:00:00Z"},
		{"Pacific/Apia", "2011-12-30T10:00:00Z"}, {"America/Sao_Paulo", "2018-11-04T03:00:00Z"}, {"Africa/Casablanca", "2026-03-22T02:00:00Z"},
		{"UTC", "2028-02-29T00:00:00Z"}, {"UTC", "2027-02-28T00:00:00Z"}, {"Asia/Kathmandu", "2026-12-31T18:00:00Z"}, {"America/New_York", "2099-12-31T23:00:00Z"},
	}
	for seed := range seeds(20) {
		r := rand.New(rand.NewPCG(uint64(seed), 1))
		c := around[seed%len(around)]
		zone, err := time.LoadLocation(c.zone)
		require.NoError(t, err)
		const minutes = 16 * 24 * 60
		begin := at(c.at).Add(-minutes / 2 * time.Minute)
		shown := make([]time.Time, minutes)
		for i := range shown {
			w := begin.Add(time.Duration(i) * time.Minute).In(zone)
			shown[i] = time.Date(w.Year(), w.Month(), w.Day(), w.Hour(), w.Minute(), 0, 0, time.UTC)
		}
		s := &schedule.Spec{Every: "1d", Timezone: c.zone}
		frozen := make([]bool, minutes)
		for range 1 + r.IntN(3) {
			w, each := window(r, shown[minutes/2].Truncate(24*time.Hour))
			s.Freeze = append(s.Freeze, w)
			each(shown[0], shown[minutes-1], func(from, to time.Time) {
				first := slices.IndexFunc(shown, func(w time.Time) bool { return !w.Before(from) })
				last := minutes - 1
				for last >= 0 && !shown[last].Before(to) {
					last--
				}
				for i := max(first, 0); first >= 0 && i <= last; i++ {
					frozen[i] = true
				}
			})
		}
		if s.Validate() != nil {
			continue // no time is left
		}
		const edge = 3 * 24 * 60 // what is outside cannot be seen there
		for i := edge; i < minutes-edge; i += 3 {
			until, is, err := s.FrozenAt(begin.Add(time.Duration(i) * time.Minute))
			require.NoError(t, err)
			require.Equal(t, frozen[i], is, "seed %d: %+v at %s", seed, s.Freeze, shown[i])
			if is {
				end := i
				for end < minutes && frozen[end] {
					end++
				}
				if end < minutes-edge {
					require.Equal(t, begin.Add(time.Duration(end)*time.Minute), until, "seed %d: %+v at %s", seed, s.Freeze, shown[i])
				}
			}
		}
	}
}

// TestNext_isDue has that a job is due when its time has come, whenever it was
// asked for, that nothing moves while it is waited for, and that a freeze does
// not make it later than its key allows.
func TestNext_isDue(t *testing.T) {
	t.Parallel()
	for seed := range seeds(600) {
		r := rand.New(rand.NewPCG(uint64(seed), 3))
		s, _ := anything(r)
		s.Freeze = nil
		base := at("2026-01-01").Add(time.Duration(r.Int64N(int64(4 * 366 * 24 * time.Hour)))).Truncate(time.Duration(1 + r.IntN(3)*999_999_999))
		for range r.IntN(4) {
			w, _ := window(r, base.Truncate(24*time.Hour))
			s.Freeze = append(s.Freeze, w)
		}
		if s.Validate() != nil {
			continue
		}
		in := schedule.Input{Job: fmt.Sprint("job-", r.IntN(1000)), Last: base, Now: base}
		if r.IntN(4) == 0 {
			in.Last, in.FirstSeen = time.Time{}, base
		}
		if r.IntN(2) == 0 {
			in.Expires = base.Add(time.Duration(r.Int64N(int64(60 * 24 * time.Hour))))
		}
		said := fmt.Sprintf("seed %d: %+v %+v", seed, *s, in)
		due, err := s.Next(in)
		require.NoError(t, err, said)
		if due.At.IsZero() {
			continue
		}
		open := *s
		open.Freeze = nil
		require.NoError(t, open.Validate())
		free, err := open.Next(in)
		require.NoError(t, err)
		// A cron expression's time in a freeze may be that of the rotation before.
		until, inside, err := s.FrozenAt(free.At)
		require.NoError(t, err)
		done := s.Cron != "" && (!inside || !until.After(in.Expires.Add(-min(schedule.Margin, in.Expires.Sub(base)/4))))
		if !in.Expires.IsZero() && due.At.After(free.At) && !done {
			require.False(t, due.At.After(in.Expires), "%s: after the expiry: %+v %+v", said, due, free)
		}

		// Nothing moves until then, unless a freeze has begun meanwhile.
		began := func(from, to time.Time) bool {
			for m := from; !m.After(to); m = m.Add(time.Minute) {
				if _, frozen, _ := s.FrozenAt(m); frozen {
					return true
				}
			}
			return false
		}
		wait := due.At.Sub(in.Now)
		for range 5 {
			later := in
			later.Now = in.Now.Add(time.Duration(r.Int64N(int64(wait) + 1)))
			again, err := s.Next(later)
			require.NoError(t, err)
			require.False(t, again.At.Before(due.At), "%s: earlier: %+v %+v", said, due, again)
			if again.At.After(due.At) {
				require.True(t, wait > 40*24*time.Hour || began(in.Now, later.Now), "%s at %s: moved: %+v %+v", said, later.Now, due, again)
			}
		}
		on := in
		on.Now = due.At
		again, err := s.Next(on)
		require.NoError(t, err)
		require.Equal(t, due.At, again.At, "%s: not due at its time: %+v %+v", said, due, again)
		on.Now = due.At.Add(time.Second)
		_, frozen, err := s.FrozenAt(on.Now)
		require.NoError(t, err)
		again, err = s.Next(on)
		require.NoError(t, err)
		if !frozen || due.Frozen {
			require.Equal(t, on.Now, again.At, "%s: not due after its time: %+v %+v", said, due, again)
		}
	}
}

// TestOrder_live runs groups of anything: nobody waits for ever, and canaries are
// not rotated more often than somebody waits for them.
func TestOrder_live(t *testing.T) {
	t.Parallel()
	for seed := range seeds(6) {
		r := rand.New(rand.NewPCG(uint64(seed), 9))
		now := at("2026-01-01").Add(time.Duration(r.IntN(366*24)) * time.Hour)
		n, canaries := 2+r.IntN(8), 1+r.IntN(2)
		members, specs := make([]schedule.Member, n), make([]*schedule.Spec, n)
		var said []string
		for i := range members {
			m := &members[i]
			*m = schedule.Member{Name: fmt.Sprint("job-", i), Canary: i < canaries, FirstSeen: now}
			if r.IntN(2) == 0 {
				m.Last = now.Add(-time.Duration(r.IntN(24*40)) * time.Hour)
				m.FirstSeen = m.Last
			}
			specs[i], _ = anything(r)
			specs[i].BeforeExpiry, specs[i].Canary = "", m.Canary
			if specs[i].Every+specs[i].Cron == "" || specs[i].Every == "1m" || strings.HasPrefix(specs[i].Cron, "*/7") {
				specs[i].Every, specs[i].Cron, specs[i].Jitter = "3d", "", ""
			}
			require.NoError(t, specs[i].Validate())
			said = append(said, fmt.Sprintf("%+v %+v", *m, *specs[i]))
		}
		waiting := make(map[string]time.Time)
		turnsOf, asked := make(map[string]int), make(map[string]int)
		const step = 3 * time.Hour
		for end := now.AddDate(0, 8, 0); now.Before(end); now = now.Add(step) {
			byName := make(map[string]*schedule.Member)
			for i := range members {
				m := &members[i]
				byName[m.Name] = m
				due, err := specs[i].Next(schedule.Input{Job: m.Name, Last: m.Last, FirstSeen: m.FirstSeen, Now: now})
				require.NoError(t, err)
				m.Due, m.Planned = due.At, due.Planned
				_, m.Frozen, err = specs[i].FrozenAt(now)
				require.NoError(t, err)
			}
			turns := schedule.Order(now, members)
			for _, turn := range turns {
				m := byName[turn.Name]
				if !turn.Begin {
					if waiting[m.Name].IsZero() {
						waiting[m.Name] = now
					}
					// No freeze of these lasts longer than 30 days.
					require.Less(t, now.Sub(waiting[m.Name]), 40*24*time.Hour, "seed %d: %s waits: %s\n%s", seed, m.Name, turn.Reason, strings.Join(said, "\n"))
					continue
				}
				delete(waiting, m.Name)
				require.False(t, m.Frozen, "seed %d: %s begins in a freeze", seed, m.Name)
				if turn.Reason != "" {
					asked[m.Name]++
				} else {
					turnsOf[m.Name]++
				}
			}
			for _, turn := range turns {
				if turn.Begin {
					byName[turn.Name].Last = now.Add(time.Minute)
				}
			}
		}
		others := 0
		for i := range members {
			if !members[i].Canary {
				others += turnsOf[members[i].Name]
			}
		}
		for name, times := range asked {
			// Twice, if a freeze begins while somebody waits.
			require.LessOrEqual(t, times, 2*others+n, "seed %d: %s", seed, name)
		}
	}
}
