package schedule_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// TestClocks compares what is said around changes of clocks with what comes of
// looking at the clock every minute.
func TestClocks(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ zone, around string }{
		{"Europe/Berlin", "2026-03-29T01:00:00Z"},
		{"Europe/Berlin", "2026-10-25T01:00:00Z"},
		{"Europe/Berlin", "2071-10-25T01:00:00Z"},
		{"America/New_York", "2026-03-08T07:00:00Z"},
		{"America/New_York", "2026-11-01T06:00:00Z"},
		{"Australia/Lord_Howe", "2026-04-04T15:00:00Z"},
		{"Australia/Lord_Howe", "2026-10-03T15:30:00Z"},
		{"Pacific/Apia", "2011-12-30T10:00:00Z"},
		{"America/Sao_Paulo", "2018-11-04T03:00:00Z"},
		{"Africa/Casablanca", "2026-02-15T02:00:00Z"},
		{"Pacific/Kwajalein", "1993-08-21T12:00:00Z"}, // a day, too
		{"America/Juneau", "1983-10-30T10:00:00Z"},    // two hours, twice
		{"UTC", "2028-02-29T00:00:00Z"},
	} {
		t.Run(c.zone+" "+c.around, func(t *testing.T) {
			t.Parallel()
			zone, err := time.LoadLocation(c.zone)
			require.NoError(t, err)
			const minutes = 6 * 24 * 60
			begin := at(c.around).Add(-minutes / 2 * time.Minute)
			shown := make([]time.Time, minutes) // as if it were UTC
			for i := range shown {
				w := begin.Add(time.Duration(i) * time.Minute).In(zone)
				shown[i] = time.Date(w.Year(), w.Month(), w.Day(), w.Hour(), w.Minute(), 0, 0, time.UTC)
			}
			for expr, met := range map[string]func(time.Time) bool{
				"30 2 * * *":        func(w time.Time) bool { return w.Hour() == 2 && w.Minute() == 30 },
				"*/20 0-3,23 * * *": func(w time.Time) bool { return (w.Hour() < 4 || w.Hour() == 23) && w.Minute()%20 == 0 },
				"15 * * * fri":      func(w time.Time) bool { return w.Weekday() == time.Friday && w.Minute() == 15 },
				"0 0 1,30 * *":      func(w time.Time) bool { return w.Hour()+w.Minute() == 0 && (w.Day() == 1 || w.Day() == 30) },
			} {
				var want, got []time.Time
				furthest := shown[0]
				for i, w := range shown {
					hit := false
					for furthest.Before(w) {
						furthest = furthest.Add(time.Minute)
						hit = hit || met(furthest)
					}
					if hit {
						want = append(want, begin.Add(time.Duration(i)*time.Minute))
					}
				}
				s := spec(t, fmt.Sprintf(`{"cron": %q, "timezone": %q}`, expr, c.zone))
				for last := begin; ; {
					last = nextOf(t, s, last).At
					if !last.Before(begin.Add(minutes * time.Minute)) {
						break
					}
					got = append(got, last)
				}
				require.Equal(t, want, got, expr)
			}
			for _, d := range []struct{ from, to time.Duration }{
				{2*time.Hour + 15*time.Minute, 2*time.Hour + 45*time.Minute},
				{time.Hour + 50*time.Minute, 2*time.Hour + 10*time.Minute},
				{22 * time.Hour, 26*time.Hour + 30*time.Minute}, // over midnight
				{0, time.Hour},
			} {
				frozen := make([]bool, minutes)
				for day := shown[0].Truncate(24*time.Hour).AddDate(0, 0, -2); day.Before(shown[minutes-1]); day = day.AddDate(0, 0, 1) {
					from, to := day.Add(d.from), day.Add(d.to)
					first := slices.IndexFunc(shown, func(w time.Time) bool { return !w.Before(from) })
					last := minutes - 1
					for last >= 0 && !shown[last].Before(to) {
						last--
					}
					if first < 0 {
						continue
					}
					for i := first; i <= last; i++ {
						frozen[i] = true
					}
				}
				clock := func(d time.Duration) string { return time.Time{}.Add(d).Format("15:04") }
				text := clock(d.from) + "-" + clock(d.to)
				s := spec(t, fmt.Sprintf(`{"every": "1d", "timezone": %q, "freeze": [{"daily": %q}]}`, c.zone, text))
				for i := 0; i < minutes; i += 5 {
					_, is, err := s.FrozenAt(begin.Add(time.Duration(i) * time.Minute))
					require.NoError(t, err)
					require.Equal(t, frozen[i], is, "%s at %s", text, begin.Add(time.Duration(i)*time.Minute).In(zone))
				}
			}
		})
	}
}
