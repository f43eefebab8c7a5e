package schedule_test

import (
	"fmt"
	"math"
	"math/rand/v2"
	"strings"
	"testing"
	"time"
	_ "time/tzdata" // tests need no zones of the machine

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/keywright/keywright/jobs/schedule"
)

// at reads a time; without an offset it is UTC.
func at(text string) time.Time {
	for _, layout := range []string{time.RFC3339, "2006-01-02T15:04:05", "2006-01-02T15:04", "2006-01-02"} {
		if t, err := time.Parse(layout, text); err == nil {
			return t.UTC()
		}
	}
	panic(text)
}

func spec(t testing.TB, text string) *schedule.Spec {
	t.Helper()
	s, err := schedule.Parse([]byte(text))
	require.NoError(t, err, text)
	return s
}

// nextOf asks for what is next after a rotation, right after it.
func nextOf(t testing.TB, s *schedule.Spec, last time.Time) schedule.Due {
	t.Helper()
	due, err := s.Next(schedule.Input{Job: "a", Last: last, Now: last})
	require.NoError(t, err)
	return due
}

func TestNext(t *testing.T) {
	t.Parallel()
	const year = `"freeze": [{"from": "12-20", "to": "01-05"}]`
	const nights = `"freeze": [{"daily": "18:00-08:00"}]`
	for name, c := range map[string]struct {
		spec                    string
		last, seen, expires, on string // on is now; empty: last, or seen
		at, planned             string // planned: at, if empty; at empty: never
		frozen                  bool
		reason                  string
	}{
		"every":                   {spec: `{"every": "30d"}`, last: "2026-01-01T10:00:07", at: "2026-01-31T10:00:07", reason: "every 30d"},
		"every, never rotated":    {spec: `{"every": "36h"}`, seen: "2026-01-01T10:00", at: "2026-01-02T22:00", reason: "every 1d12h"},
		"every, missed ten times": {spec: `{"every": "1d"}`, last: "2026-01-01", on: "2026-01-11T03:00", at: "2026-01-11T03:00", planned: "2026-01-02", reason: "every 1d, overdue"},
		"every over a change":     {spec: `{"every": "1d", "timezone": "Europe/Berlin"}`, last: "2026-03-28T04:00:00+01:00", at: "2026-03-29T05:00:00+02:00", reason: "every 1d"},
		"a leap day":              {spec: `{"every": "366d"}`, last: "2028-02-29", at: "2029-03-01", reason: "every 366d"},
		"every 100 years":         {spec: `{"every": "36500d"}`, last: "2026-01-01", at: "2125-12-08", reason: "every 36500d"},
		"past the year 9999":      {spec: `{"every": "36500d"}`, last: "9950-01-01", reason: "not before the year 10000"},
		"clock behind":            {spec: `{"every": "1d"}`, last: "2026-01-05", on: "2026-01-01", at: "2026-01-06", reason: "every 1d; the clock is behind the last rotation"},

		"cron":                              {spec: `{"cron": "0 4 1 * *"}`, last: "2026-01-01T04:00:09", at: "2026-02-01T04:00", reason: "cron 0 4 1 * * (UTC)"},
		"cron, right on the time":           {spec: `{"cron": "0 4 1 * *"}`, last: "2026-01-01T04:00:00", at: "2026-02-01T04:00", reason: "cron 0 4 1 * * (UTC)"},
		"cron, just before":                 {spec: `{"cron": "0 4 1 * *"}`, last: "2026-01-01T03:59:59", at: "2026-01-01T04:00", reason: "cron 0 4 1 * * (UTC)"},
		"cron in a zone":                    {spec: `{"cron": "0 4  1 7 *", "timezone": "Europe/Berlin"}`, last: "2026-01-01", at: "2026-07-01T02:00", reason: "cron 0 4 1 7 * (Europe/Berlin)"},
		"cron, missed":                      {spec: `{"cron": "@daily"}`, last: "2026-01-01T00:01", on: "2026-01-09T12:00", at: "2026-01-09T12:00", planned: "2026-01-02", reason: "cron @daily (UTC), overdue"},
		"cron, year's end":                  {spec: `{"cron": "59 23 31 12 *"}`, last: "2026-12-31T23:59:30", at: "2027-12-31T23:59", reason: "cron 59 23 31 12 * (UTC)"},
		"cron on a leap day":                {spec: `{"cron": "0 0 29 2 *"}`, last: "2028-02-29T00:01", at: "2032-02-29", reason: "cron 0 0 29 2 * (UTC)"},
		"cron without a leap year":          {spec: `{"cron": "0 0 29 2 *"}`, last: "2096-02-29T00:01", at: "2104-02-29", reason: "cron 0 0 29 2 * (UTC)"},
		"cron, either day":                  {spec: `{"cron": "0 4 13 * fri"}`, last: "2026-11-07", at: "2026-11-13T04:00", reason: "cron 0 4 13 * fri (UTC)"},
		"cron, the other day":               {spec: `{"cron": "0 4 12 * fri"}`, last: "2026-11-07", at: "2026-11-12T04:00", reason: "cron 0 4 12 * fri (UTC)"},
		"cron, every other day, or Fridays": {spec: `{"cron": "0 4 */2 * fri"}`, last: "2026-11-05T05:00", at: "2026-11-06T04:00", reason: "cron 0 4 */2 * fri (UTC)"},
		"cron after 9999":                   {spec: `{"cron": "0 0 29 2 *"}`, last: "9996-03-01", reason: "not before the year 10000"},

		"before expiry":          {spec: `{"before_expiry": "14d"}`, last: "2026-01-01", expires: "2026-04-01", at: "2026-03-18", reason: "14d before the expiry"},
		"no expiry":              {spec: `{"before_expiry": "14d"}`, last: "2026-01-01", reason: "the expiry is not known"},
		"every, no expiry":       {spec: `{"before_expiry": "14d", "every": "30d"}`, last: "2026-01-01", at: "2026-01-31", reason: "every 30d"},
		"every is earlier":       {spec: `{"before_expiry": "14d", "every": "30d"}`, last: "2026-01-01", expires: "2026-04-01", at: "2026-01-31", reason: "every 30d"},
		"expiry is earlier":      {spec: `{"before_expiry": "14d", "cron": "0 4 1 7 *"}`, last: "2026-01-01", expires: "2026-04-01", at: "2026-03-18", reason: "14d before the expiry"},
		"short life":             {spec: `{"before_expiry": "14d"}`, last: "2026-01-01", expires: "2026-01-09", at: "2026-01-03", reason: "14d before the expiry"},
		"seen late":              {spec: `{"before_expiry": "14d"}`, seen: "2026-01-01", expires: "2026-01-09", at: "2026-01-01", reason: "14d before the expiry"},
		"seen expired":           {spec: `{"before_expiry": "14d"}`, seen: "2026-01-01", expires: "2025-01-09", at: "2026-01-01", reason: "14d before the expiry"},
		"expiry of another key":  {spec: `{"before_expiry": "14d"}`, last: "2026-01-10", expires: "2026-01-09", reason: "the expiry is not known"},
		"expired while away":     {spec: `{"before_expiry": "14d"}`, last: "2026-01-01", expires: "2026-04-01", on: "2026-05-01", at: "2026-05-01", planned: "2026-03-18", reason: "14d before the expiry, overdue"},
		"expiry in 9999":         {spec: `{"before_expiry": "14d"}`, last: "2026-01-01", expires: "9999-12-31", at: "9999-12-17", reason: "14d before the expiry"},
		"expires in a few hours": {spec: `{"before_expiry": "1m"}`, last: "2026-01-01", expires: "2026-01-01T00:02", at: "2026-01-01T00:01", reason: "1m before the expiry"},

		"before the freeze":         {spec: `{"every": "30d", ` + year + `}`, last: "2026-12-01", at: "2026-12-19T23:00", reason: "every 30d, moved before the freeze of 12-20 to 01-05"},
		"not yet in the freeze":     {spec: `{"every": "30d", ` + year + `}`, last: "2026-12-01", on: "2026-12-19T23:30", at: "2026-12-19T23:30", planned: "2026-12-19T23:00", reason: "every 30d, moved before the freeze of 12-20 to 01-05, overdue"},
		"that was missed":           {spec: `{"every": "30d", ` + year + `}`, last: "2026-12-01", on: "2026-12-20", at: "2027-01-06", reason: "every 30d, moved to the end of the freeze of 12-20 to 01-05"},
		"missed in the freeze":      {spec: `{"every": "30d", ` + year + `}`, last: "2026-11-10", on: "2026-12-24", at: "2027-01-06", planned: "2026-12-10", reason: "every 30d, moved to the end of the freeze of 12-20 to 01-05"},
		"missed, and late":          {spec: `{"every": "30d", ` + year + `}`, last: "2026-12-01", on: "2027-01-09", at: "2027-01-09", planned: "2027-01-06", reason: "every 30d, moved to the end of the freeze of 12-20 to 01-05, overdue"},
		"not before the last":       {spec: `{"every": "1d", ` + year + `}`, last: "2026-12-19T23:10", at: "2027-01-06", reason: "every 1d, moved to the end of the freeze of 12-20 to 01-05"},
		"first day of the freeze":   {spec: `{"every": "1d", ` + year + `}`, last: "2026-12-19", at: "2026-12-19T23:00", reason: "every 1d, moved before the freeze of 12-20 to 01-05"},
		"last moment of it":         {spec: `{"every": "1d", ` + year + `}`, last: "2027-01-04T23:59:59", at: "2027-01-06", reason: "every 1d, moved to the end of the freeze of 12-20 to 01-05"},
		"first moment after":        {spec: `{"every": "1d", ` + year + `}`, last: "2027-01-05", at: "2027-01-06", reason: "every 1d"},
		"once":                      {spec: `{"every": "1d", "timezone": "Europe/Berlin", "freeze": [{"from": "2027-03-01T12:00", "to": "2027-03-03T00:00"}]}`, last: "2027-03-01", at: "2027-03-01T10:00", reason: "every 1d, moved before the freeze of 2027-03-01T12:00 to 2027-03-03T00:00"},
		"once, by days":             {spec: `{"every": "1d", "freeze": [{"from": "2027-03-01", "to": "2027-03-01"}]}`, last: "2027-02-28T23:30", at: "2027-03-02", reason: "every 1d, moved to the end of the freeze of 2027-03-01 to 2027-03-01"},
		"weekend":                   {spec: `{"cron": "0 4 * * sun", "freeze": [{"weekdays": ["sat", "sun"]}]}`, last: "2026-11-20T23:01", at: "2026-11-27T23:00", reason: "cron 0 4 * * sun (UTC), moved before the freeze of sat, sun"},
		"weekends and nights":       {spec: `{"cron": "0 4 * * sun", "freeze": [{"weekdays": ["sat", "sun"]}, {"daily": "18:00-08:00"}]}`, last: "2026-11-20T17:01", at: "2026-11-27T17:00", reason: "cron 0 4 * * sun (UTC), moved before the freeze of sat, sun"},
		"Friday afternoon":          {spec: `{"cron": "0 17 * * fri", "freeze": [{"weekdays": ["fri"], "daily": "16:00-24:00"}]}`, last: "2026-11-21", at: "2026-11-27T15:00", reason: "cron 0 17 * * fri (UTC), moved before the freeze of fri 16:00-24:00"},
		"before midnight":           {spec: `{"every": "12h", ` + nights + `}`, last: "2026-11-20T08:10", at: "2026-11-20T17:00", reason: "every 12h, moved before the freeze of 18:00-08:00"},
		"after midnight":            {spec: `{"every": "12h", ` + nights + `}`, last: "2026-11-20T17:10", at: "2026-11-21T08:00", reason: "every 12h, moved to the end of the freeze of 18:00-08:00"},
		"little time open":          {spec: `{"every": "12h", "freeze": [{"daily": "01:00-00:40"}]}`, last: "2026-11-20T00:51", at: "2026-11-21T00:40", reason: "every 12h, moved to the end of the freeze of 01:00-00:40"},
		"half of the time open":     {spec: `{"every": "12h", "freeze": [{"daily": "01:00-00:40"}]}`, last: "2026-11-20T00:30", at: "2026-11-20T00:50", reason: "every 12h, moved before the freeze of 01:00-00:40"},
		"cron at night, done":       {spec: `{"cron": "0 22,23,0,1 * * *", ` + nights + `}`, last: "2026-11-20T17:10", at: "2026-11-21T17:00", reason: "cron 0 22,23,0,1 * * * (UTC), moved before the freeze of 18:00-08:00"},
		"cron at night, new":        {spec: `{"cron": "0 22 * * *", ` + nights + `}`, seen: "2026-11-20T17:10", at: "2026-11-21T08:00", reason: "cron 0 22 * * * (UTC), moved to the end of the freeze of 18:00-08:00"},
		"cron at night, missed":     {spec: `{"cron": "0 22 * * *", ` + nights + `}`, last: "2026-11-20T10:00", on: "2026-11-20T20:00", at: "2026-11-21T08:00", reason: "cron 0 22 * * * (UTC), moved to the end of the freeze of 18:00-08:00"},
		"leap day in a freeze":      {spec: `{"cron": "0 12 28,29,1 2,3 *", "freeze": [{"from": "02-29", "to": "02-29"}]}`, last: "2028-02-28T12:01", at: "2028-02-28T23:00", reason: "cron 0 12 28,29,1 2,3 * (UTC), moved before the freeze of 02-29 to 02-29"},
		"no leap day in a freeze":   {spec: `{"cron": "0 12 28,29,1 2,3 *", "freeze": [{"from": "02-29", "to": "02-29"}]}`, last: "2027-02-28T12:01", at: "2027-03-01T12:00", reason: "cron 0 12 28,29,1 2,3 * (UTC)"},
		"expires in the freeze":     {spec: `{"every": "30d", ` + year + `}`, last: "2026-12-01", expires: "2027-01-03", on: "2026-12-20", at: "2026-12-31", frozen: true, reason: "every 30d, inside the freeze of 12-20 to 01-05, since the key expires too soon after it"},
		"expires right after":       {spec: `{"every": "30d", ` + year + `}`, last: "2026-12-01", expires: "2027-01-06T23:00", on: "2026-12-20", at: "2026-12-31", frozen: true, reason: "every 30d, inside the freeze of 12-20 to 01-05, since the key expires too soon after it"},
		"expires long after":        {spec: `{"every": "30d", ` + year + `}`, last: "2026-12-01", expires: "2027-01-07", on: "2026-12-20", at: "2027-01-06", reason: "every 30d, moved to the end of the freeze of 12-20 to 01-05"},
		"moved before all the same": {spec: `{"before_expiry": "14d", ` + year + `}`, last: "2026-10-01", expires: "2027-01-06", at: "2026-12-19T23:00", reason: "14d before the expiry, moved before the freeze of 12-20 to 01-05"},
		"found in the freeze":       {spec: `{"before_expiry": "14d", ` + year + `}`, seen: "2026-12-24", expires: "2027-01-04", at: "2026-12-24", frozen: true, reason: "14d before the expiry, inside the freeze of 12-20 to 01-05, since the key expires too soon after it"},
		"late in the freeze":        {spec: `{"before_expiry": "14d", ` + year + `}`, last: "2026-10-01", expires: "2027-01-04", on: "2026-12-27", at: "2026-12-27", planned: "2026-12-21", frozen: true, reason: "14d before the expiry, inside the freeze of 12-20 to 01-05, since the key expires too soon after it, overdue"},
		"cron late in the freeze":   {spec: `{"cron": "0 4 22 * *", ` + year + `}`, last: "2026-11-23", expires: "2027-01-04", on: "2026-12-27", at: "2026-12-27", planned: "2026-12-22T04:00", frozen: true, reason: "cron 0 4 22 * * (UTC), inside the freeze of 12-20 to 01-05, since the key expires too soon after it, overdue"},
		"cron, expires in the freeze it was made before": {spec: `{"cron": "0 4 22 * *", ` + year + `}`, last: "2026-12-19T23:30", expires: "2026-12-24", at: "2026-12-23", frozen: true, reason: "cron 0 4 22 * * (UTC), inside the freeze of 12-20 to 01-05, since the key expires too soon after it"},
		"short life at night":                            {spec: `{"before_expiry": "1h", ` + nights + `}`, last: "2026-11-20T17:59", expires: "2026-11-21T12:00", on: "2026-11-20T18:00", at: "2026-11-21T11:00", reason: "1h before the expiry"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			in := schedule.Input{Job: "a"}
			for _, f := range []struct {
				text string
				to   *time.Time
			}{{c.seen, &in.Now}, {c.last, &in.Now}, {c.on, &in.Now}, {c.last, &in.Last}, {c.seen, &in.FirstSeen}, {c.expires, &in.Expires}} {
				if f.text != "" {
					*f.to = at(f.text)
				}
			}
			due, err := spec(t, c.spec).Next(in)
			require.NoError(t, err)
			want := schedule.Due{Frozen: c.frozen, Reason: c.reason}
			if c.at != "" {
				want.At, want.Planned = at(c.at), at(c.at)
			}
			if c.planned != "" {
				want.Planned = at(c.planned)
			}
			assert.Equal(t, want, due)
		})
	}
}

// TestNext_clocks runs a job at its times over changes of clocks, and has those
// at which it ran, as clocks showed them.
func TestNext_clocks(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		cron, zone, from string
		want             []string
	}{
		"Berlin, left out":      {"30 2 * * *", "Europe/Berlin", "2026-03-28T00:00:00Z", []string{"28 02:30 CET", "29 03:00 CEST", "30 02:30 CEST"}},
		"Berlin, twice":         {"30 2 * * *", "Europe/Berlin", "2026-10-24T00:00:00Z", []string{"24 02:30 CEST", "25 02:30 CEST", "26 02:30 CET"}},
		"Berlin, both":          {"30 2,3 * * *", "Europe/Berlin", "2026-03-29T00:00:00Z", []string{"29 03:00 CEST", "29 03:30 CEST", "30 02:30 CEST"}},
		"Berlin, at the change": {"0 2,3 * * *", "Europe/Berlin", "2026-03-29T00:00:00Z", []string{"29 03:00 CEST", "30 02:00 CEST", "30 03:00 CEST"}},
		"Berlin, hourly":        {"0 * * * *", "Europe/Berlin", "2026-10-24T23:30:00Z", []string{"25 02:00 CEST", "25 03:00 CET", "25 04:00 CET"}},
		"Berlin, second pass":   {"15,45 * * * *", "Europe/Berlin", "2026-10-25T01:20:00Z", []string{"25 03:15 CET", "25 03:45 CET", "25 04:15 CET"}},
		"New York, left out":    {"30 2 * * *", "America/New_York", "2026-03-07T06:00:00Z", []string{"07 02:30 EST", "08 03:00 EDT", "09 02:30 EDT"}},
		"New York, twice":       {"30 1 * * *", "America/New_York", "2026-10-31T05:00:00Z", []string{"31 01:30 EDT", "01 01:30 EDT", "02 01:30 EST"}},
		"Lord Howe, left out":   {"15 2 * * *", "Australia/Lord_Howe", "2026-10-03T00:00:00Z", []string{"04 02:30 +11", "05 02:15 +11"}},
		"Lord Howe, twice":      {"45 1 * * *", "Australia/Lord_Howe", "2026-04-03T20:00:00Z", []string{"05 01:45 +11", "06 01:45 +1030"}},
		"Lord Howe, hourly":     {"0,45 * * * *", "Australia/Lord_Howe", "2026-04-04T14:00:00Z", []string{"05 01:45 +11", "05 02:00 +1030", "05 02:45 +1030"}},
		"Apia, no 30 December":  {"0 4 * * *", "Pacific/Apia", "2011-12-28T20:00:00Z", []string{"29 04:00 -10", "31 00:00 +14", "31 04:00 +14", "01 04:00 +14"}},
		"Apia, only that day":   {"0 4,8,12 30 12 *", "Pacific/Apia", "2011-01-01T00:00:00Z", []string{"31 00:00 +14", "30 04:00 +14"}},
		"Apia, that weekday":    {"0 12 * * fri", "Pacific/Apia", "2011-12-24T00:00:00Z", []string{"31 00:00 +14", "06 12:00 +14"}},
		"no midnight":           {"0 0 * * *", "America/Sao_Paulo", "2018-11-02T12:00:00Z", []string{"03 00:00 -03", "04 01:00 -02", "05 00:00 -02"}},
		"midnight twice":        {"30 23 * * *", "America/Sao_Paulo", "2018-02-16T12:00:00Z", []string{"16 23:30 -02", "17 23:30 -02", "18 23:30 -03"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := spec(t, fmt.Sprintf(`{"cron": %q, "timezone": %q}`, c.cron, c.zone))
			zone, err := time.LoadLocation(c.zone)
			require.NoError(t, err)
			last := at(c.from)
			var got []string
			for range c.want {
				last = nextOf(t, s, last).At
				got = append(got, last.In(zone).Format("02 15:04 MST"))
			}
			assert.Equal(t, c.want, got)
		})
	}
}

// TestFrozenAt has freeze windows over changes of clocks: from the first time
// that their beginning is shown to the last time that their end is.
func TestFrozenAt(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		freeze, zone, on, until string // until empty: open
	}{
		"open":            {`{"daily": "02:15-02:45"}`, "Europe/Berlin", "2026-10-25T02:14:59+02:00", ""},
		"first pass":      {`{"daily": "02:15-02:45"}`, "Europe/Berlin", "2026-10-25T02:15:00+02:00", "2026-10-25T02:45:00+01:00"},
		"between":         {`{"daily": "02:15-02:45"}`, "Europe/Berlin", "2026-10-25T02:05:00+01:00", "2026-10-25T02:45:00+01:00"},
		"second pass":     {`{"daily": "02:15-02:45"}`, "Europe/Berlin", "2026-10-25T02:44:59+01:00", "2026-10-25T02:45:00+01:00"},
		"after":           {`{"daily": "02:15-02:45"}`, "Europe/Berlin", "2026-10-25T02:45:00+01:00", ""},
		"left out":        {`{"daily": "02:15-02:45"}`, "Europe/Berlin", "2026-03-29T03:00:00+02:00", ""},
		"begins left out": {`{"daily": "02:15-03:15"}`, "Europe/Berlin", "2026-03-29T03:00:00+02:00", "2026-03-29T03:15:00+02:00"},
		"ends left out":   {`{"daily": "01:15-02:15"}`, "Europe/Berlin", "2026-03-29T01:30:00+01:00", "2026-03-29T03:00:00+02:00"},
		"day left out":    {`{"from": "12-30", "to": "12-30"}`, "Pacific/Apia", "2011-12-31T00:00:00+14:00", ""},
		"around it":       {`{"from": "12-29", "to": "12-31"}`, "Pacific/Apia", "2011-12-29T12:00:00-10:00", "2012-01-01T00:00:00+14:00"},
		"over new year":   {`{"from": "12-20", "to": "01-05"}`, "UTC", "2027-01-03", "2027-01-06"},
		"they touch":      {`{"from": "12-20", "to": "12-23"}, {"from": "12-24", "to": "12-26"}, {"weekdays": ["sun"]}`, "UTC", "2026-12-20", "2026-12-28"},
		"a weekend":       {`{"daily": "18:00-08:00"}, {"weekdays": ["SAT", "Sun"]}`, "UTC", "2026-11-27T18:00", "2026-11-30T08:00"},
		"far ahead":       {`{"daily": "18:00-08:00"}`, "Europe/Berlin", "9999-07-01T18:00:00+02:00", "9999-07-02T08:00:00+02:00"},
		"long ago":        {`{"daily": "18:00-08:00"}`, "UTC", "0001-07-01T18:00", "0001-07-02T08:00"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := spec(t, fmt.Sprintf(`{"every": "1d", "timezone": %q, "freeze": [%s]}`, c.zone, c.freeze))
			until, frozen, err := s.FrozenAt(at(c.on))
			require.NoError(t, err)
			assert.Equal(t, c.until != "", frozen)
			if c.until != "" {
				assert.Equal(t, at(c.until), until)
			}
		})
	}
}

func TestNext_input(t *testing.T) {
	t.Parallel()
	s := spec(t, `{"every": "1d", "before_expiry": "1d"}`)
	now := at("2026-01-01")
	for name, in := range map[string]schedule.Input{
		"no now":       {FirstSeen: now},
		"no start":     {Now: now},
		"year 10000":   {Now: now, Last: time.Date(10000, 1, 1, 0, 0, 0, 0, time.UTC)},
		"year 0":       {Now: now, FirstSeen: time.Date(0, 1, 1, 0, 0, 0, 0, time.UTC)},
		"far past now": {Now: time.Unix(math.MaxInt64/2, 0), Last: now},
	} {
		_, err := s.Next(in)
		require.ErrorIs(t, err, schedule.ErrInput, name)
	}
	for _, far := range []int64{math.MaxInt64, math.MaxInt64 / 2, math.MinInt64, math.MinInt64 / 2, -1 << 40} {
		due, err := s.Next(schedule.Input{Now: now, Last: now, Expires: time.Unix(far, 0)})
		require.NoError(t, err)
		assert.Equal(t, at("2026-01-02"), due.At, "an expiry that says nothing")
	}
	// The clock that does not stand still, and the zone of the caller, mean nothing.
	local := time.Now()
	a, err := s.Next(schedule.Input{Now: local, Last: local})
	require.NoError(t, err)
	b, err := s.Next(schedule.Input{Now: local.Round(0).UTC(), Last: local.In(time.FixedZone("", 3600)).Round(0)})
	require.NoError(t, err)
	assert.Equal(t, a, b)

	_, err = new(schedule.Spec).Next(schedule.Input{Now: now, Last: now})
	var bad *schedule.Error
	require.ErrorAs(t, err, &bad)
	_, _, err = new(schedule.Spec).FrozenAt(now)
	require.ErrorAs(t, err, &bad)
	_, _, err = s.FrozenAt(time.Time{})
	require.ErrorIs(t, err, schedule.ErrInput)
	due, err := (&schedule.Spec{Every: "1d"}).Next(schedule.Input{Now: now, Last: now})
	require.NoError(t, err, "without Validate")
	assert.Equal(t, at("2026-01-02"), due.At)
}

// TestNext_manyFreezes has windows that touch for ten years, and some that touch
// too often.
func TestNext_manyFreezes(t *testing.T) {
	t.Parallel()
	s := &schedule.Spec{Every: "1d", Freeze: []schedule.Window{{Daily: "01:00-24:00"}}}
	for y := 2026; y < 2036; y++ {
		s.Freeze = append(s.Freeze, schedule.Window{From: fmt.Sprint(y, "-01-01"), To: fmt.Sprint(y, "-12-31")})
	}
	require.NoError(t, s.Validate())
	due := nextOf(t, s, at("2030-01-01"))
	assert.Equal(t, at("2036-01-01"), due.At)
	assert.True(t, strings.HasPrefix(due.Reason, "every 1d, moved to the end of the freeze of "), due.Reason)

	// Every hour but the last one of Sunday, and 60 of those.
	s.Freeze = []schedule.Window{{Weekdays: []string{"mon", "tue", "wed", "thu", "fri", "sat"}, Daily: "23:00-24:00"}}
	for h := range 23 {
		s.Freeze = append(s.Freeze, schedule.Window{Daily: fmt.Sprintf("%02d:00-%02d:00", h, h+1)})
	}
	sunday := at("2026-01-04T23:00")
	for i := range 60 {
		d := sunday.AddDate(0, 0, 7*i)
		s.Freeze = append(s.Freeze, schedule.Window{From: d.Format("2006-01-02T15:04"), To: d.Add(time.Hour).Format("2006-01-02T15:04")})
	}
	require.NoError(t, s.Validate())
	for _, text := range []string{`{"every": "1d"}`, `{"cron": "0 4 * * *"}`, `{"before_expiry": "1d"}`, `{"every": "1d", "jitter": "1m"}`} {
		bad := spec(t, text)
		bad.Freeze = s.Freeze
		require.NoError(t, bad.Validate())
		now := at("2026-02-01")
		_, err := bad.Next(schedule.Input{Last: now, Expires: now.AddDate(0, 1, 0), Now: now})
		require.ErrorIs(t, err, schedule.ErrNoTime)
		_, _, err = bad.FrozenAt(now)
		require.ErrorIs(t, err, schedule.ErrNoTime)
	}
}

// TestJitter shows that jitter spreads keys that have the same schedule, and
// that it stays the same for each.
func TestJitter(t *testing.T) {
	t.Parallel()
	const n = 5_000
	now := at("2026-12-01")
	for _, c := range []struct{ spec, earliest, latest string }{
		{`{"cron": "0 4 15 * *", "jitter": "6h"}`, "2026-12-14T22:00", "2026-12-15T04:00"},
		{`{"every": "12d", "jitter": "6h"}`, "2026-12-12T18:00", "2026-12-13T00:00"},
		{`{"every": "24d", "jitter": "6h", "freeze": [{"from": "12-20", "to": "01-05"}]}`, "2026-12-19T17:00", "2026-12-19T23:00"},
	} {
		s := spec(t, c.spec)
		from, to := at(c.earliest), at(c.latest)
		var buckets [24]int
		for i := range n {
			in := schedule.Input{Job: fmt.Sprint("key-", i), Last: now, Now: now}
			due, err := s.Next(in)
			require.NoError(t, err)
			require.False(t, due.At.Before(from) || due.At.After(to), "%s: %s", in.Job, due.At)
			buckets[min(int(due.At.Sub(from)*24/to.Sub(from)), 23)]++
		}
		for i, got := range buckets {
			assert.InDelta(t, n/24, got, 70, "%s: part %d", c.spec, i)
		}
	}
}

// TestJitter_once runs a job with more jitter than time between occurrences.
func TestJitter_once(t *testing.T) {
	t.Parallel()
	s := spec(t, `{"cron": "0 * * * *", "jitter": "6h"}`)
	last := at("2026-01-01")
	for range 100 {
		due := nextOf(t, s, last)
		require.LessOrEqual(t, due.At.Sub(last), time.Hour)
		last = due.At.Add(time.Second)
	}
	assert.WithinDuration(t, at("2026-01-05T04:00"), last, time.Hour)
	// A job that is new does not wait for the next occurrence because of jitter.
	s = spec(t, `{"cron": "0 4 1 * *", "jitter": "20d"}`)
	for i := range 100 {
		in := schedule.Input{Job: fmt.Sprint(i), FirstSeen: at("2026-01-31T23:00"), Now: at("2026-02-01")}
		due, err := s.Next(in)
		require.NoError(t, err)
		require.False(t, due.At.After(at("2026-02-01T04:00")))
	}
}

var zones = []string{"UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Pacific/Apia", "America/Sao_Paulo", "Africa/Casablanca", "Asia/Kathmandu"}

// anything returns some schedule, and the same one without jitter.
func anything(r *rand.Rand) (s, plain *schedule.Spec) {
	s = &schedule.Spec{Timezone: zones[r.IntN(len(zones))], Canary: r.IntN(5) == 0}
	pick := func(of ...string) string { return of[r.IntN(len(of))] }
	switch r.IntN(3) {
	case 0:
		s.Every = pick("1m", "1h", "7h", "1d", "5d", "30d", "400d")
	case 1:
		s.Cron = pick("0 4 1 * *", "*/7 * * * *", "30 2 * * *", "15 1,2,3 * * sun", "0 0 29 2 *", "59 23 31 12 *", "0 * * * *")
	}
	if s.Every+s.Cron == "" || r.IntN(2) == 0 {
		s.BeforeExpiry = pick("1h", "1d", "14d", "200d")
	}
	s.Jitter = pick("", "30s", "6h", "3d")
	if s.Every == "1m" {
		s.Jitter = pick("", "30s")
	} else if s.Every != "" && s.Every != "30d" && s.Every != "400d" {
		s.Jitter = pick("", "7m", "30m")
	}
	for range r.IntN(4) {
		s.Freeze = append(s.Freeze, []schedule.Window{
			{From: "12-20", To: "01-05"},
			{From: "02-29", To: "03-28"},
			{From: "2027-03-01T00:00", To: "2027-03-03T00:00"},
			{From: "2026-10-20", To: "2026-10-25"},
			{Weekdays: []string{"sat", "sun"}},
			{Weekdays: []string{"mon"}},
			{Daily: "18:00-08:00"},
			{Daily: "02:30-03:30"},
			{Weekdays: []string{"fri"}, Daily: "16:00-24:00"},
		}[r.IntN(9)])
	}
	p := *s
	p.Jitter = ""
	return s, &p
}

// TestNext_properties has what holds for every schedule.
func TestNext_properties(t *testing.T) {
	t.Parallel()
	for seed := range uint64(1500) {
		r := rand.New(rand.NewPCG(seed, 7))
		s, plain := anything(r)
		require.NoError(t, s.Validate(), "%+v", s)
		require.NoError(t, plain.Validate())
		base := at("2026-01-01").Add(time.Duration(r.Int64N(int64(2 * 366 * 24 * time.Hour))))
		if r.IntN(9) == 0 {
			base = base.AddDate(-15+r.IntN(2), 0, 0)
		}
		in := schedule.Input{Job: fmt.Sprint("job-", r.IntN(1000)), Now: base.Add(time.Duration(r.Int64N(int64(100*time.Hour))) - 2*time.Hour)}
		start := &in.Last
		if r.IntN(4) == 0 {
			start = &in.FirstSeen
		}
		*start = base
		if r.IntN(2) == 0 {
			in.Expires = base.Add(time.Duration(r.Int64N(int64(100 * 24 * time.Hour))))
		}
		said := fmt.Sprintf("seed %d: %+v %+v", seed, *s, in)

		due, err := s.Next(in)
		require.NoError(t, err, said)
		again, err := s.Next(in)
		require.NoError(t, err)
		require.Equal(t, due, again, said)
		require.NotEmpty(t, due.Reason)
		if due.At.IsZero() {
			require.Contains(t, due.Reason, "expiry is not known", said)
			continue
		}
		require.False(t, due.At.Before(*start) || due.At.Before(in.Now) || due.Planned.Before(*start), "%s %+v", said, due)
		require.False(t, due.At.Before(due.Planned), said)

		_, frozen, err := s.FrozenAt(due.At)
		require.NoError(t, err)
		require.Equal(t, frozen, due.Frozen, "%s %+v", said, due)
		require.Equal(t, frozen, strings.Contains(due.Reason, "inside the freeze of"), said)
		if frozen {
			require.False(t, in.Expires.IsZero(), said)
		}

		without, err := plain.Next(in)
		require.NoError(t, err)
		switch {
		case s.Cron == "":
			require.False(t, due.At.After(without.At), "%s: later with jitter: %+v %+v", said, due, without)
		case s.Jitter != "" && start == &in.Last && in.Expires.IsZero(): // an occurrence may be done with
			jitter, err := time.ParseDuration(strings.Replace(s.Jitter, "3d", "72h", 1))
			require.NoError(t, err)
			if len(s.Freeze) == 0 {
				other, err := plain.Next(schedule.Input{Last: in.Last.Add(jitter), Now: in.Now})
				require.NoError(t, err)
				require.False(t, due.Planned.After(other.Planned), said)
			}
		}

		// As time passes, it is never earlier.
		for range 6 {
			in.Now = in.Now.Add(time.Duration(r.Int64N(int64(200 * time.Hour))))
			later, err := s.Next(in)
			require.NoError(t, err)
			require.False(t, later.At.Before(due.At), "%s: not monotone: %+v %+v", said, due, later)
			due = later
		}
	}
}

// TestTenYears runs jobs whenever they are due, for ten years.
func TestTenYears(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		spec string
		want int
	}{
		"daily":                     {`{"cron": "30 2 * * *", %s}`, 3652},
		"daily with jitter":         {`{"cron": "30 2 * * *", "jitter": "10h", %s}`, 3652},
		"monthly":                   {`{"cron": "0 4 1 * *", %s}`, 120},
		"weekly, in the weekend":    {`{"cron": "0 4 * * sun", "jitter": "1h", "freeze": [{"weekdays": ["sat", "sun"]}], %s}`, 522},
		"every day, at night":       {`{"cron": "0 2 * * *", "freeze": [{"daily": "18:00-08:00"}], %s}`, 3652},
		"monthly, not in the night": {`{"cron": "0 4 1 * *", "jitter": "3d", "freeze": [{"daily": "18:00-08:00"}, {"from": "12-20", "to": "01-05"}], %s}`, 120},
		"at 20:00, 3h of jitter":    {`{"cron": "0 20 * * *", "jitter": "3h", "freeze": [{"daily": "18:00-08:00"}], %s}`, 3652},
		"at 20:00, 5h of jitter":    {`{"cron": "0 20 * * *", "jitter": "5h", "freeze": [{"daily": "18:00-08:00"}], %s}`, 3652},
		"at 20:00, 28h of jitter":   {`{"cron": "0 20 * * *", "jitter": "28h", "freeze": [{"daily": "18:00-08:00"}], %s}`, 3652},
		"at 20:00, 50h of jitter":   {`{"cron": "0 20 * * *", "jitter": "50h", "freeze": [{"daily": "18:00-08:00"}], %s}`, 3652},
		"at 20:00, 20d of jitter":   {`{"cron": "0 20 * * *", "jitter": "20d", "freeze": [{"daily": "18:00-08:00"}], %s}`, 3652},
		"every 10 days":             {`{"every": "10d", %s}`, 365},
		"every 12 hours":            {`{"every": "12h", %s}`, 7304},
	} {
		for _, zone := range []string{"Europe/Berlin", "America/New_York", "Australia/Lord_Howe"} {
			t.Run(name+" "+zone, func(t *testing.T) {
				t.Parallel()
				s := spec(t, fmt.Sprintf(c.spec, fmt.Sprintf(`"timezone": %q`, zone)))
				// From noon to noon in the middle of a year: 3652 nights.
				now, end, n := at("2026-06-15T12:00"), at("2036-06-14T12:00"), 0
				for {
					due := nextOf(t, s, now)
					require.True(t, due.At.After(now))
					if due.At.After(end) {
						break
					}
					now = due.At
					n++
				}
				assert.InDelta(t, c.want, n, 1)
			})
		}
	}
}

func BenchmarkNext(b *testing.B) {
	for name, text := range map[string]string{
		"every":    `{"every": "30d", "jitter": "6h"}`,
		"cron":     `{"cron": "0 4 1 * *", "timezone": "Europe/Berlin", "jitter": "6h"}`,
		"freeze":   `{"every": "30d", "timezone": "Europe/Berlin", "jitter": "6h", "freeze": [{"from": "12-20", "to": "01-05"}, {"weekdays": ["sat", "sun"]}, {"daily": "18:00-08:00"}]}`,
		"leap day": `{"cron": "0 0 29 2 *", "timezone": "Europe/Berlin"}`,
	} {
		b.Run(name, func(b *testing.B) {
			s := spec(b, text)
			in := schedule.Input{Job: "billing", Last: at("2026-11-25T11:00"), Now: at("2026-11-26")}
			b.ReportAllocs()
			for b.Loop() {
				if _, err := s.Next(in); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkValidate(b *testing.B) {
	s := spec(b, `{"every": "30d", "timezone": "Europe/Berlin", "jitter": "6h", "freeze": [{"from": "12-20", "to": "01-05"}, {"weekdays": ["sat", "sun"]}, {"daily": "18:00-08:00"}]}`)
	for b.Loop() {
		if err := s.Validate(); err != nil {
			b.Fatal(err)
		}
	}
}
