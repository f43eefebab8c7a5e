package schedule_test

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.yaml.in/yaml/v3"

	"github.com/keywright/keywright/jobs/schedule"
)

const all = `
every: 30d
before_expiry: 14d
timezone: Europe/Berlin
jitter: 6h
freeze:
  - {from: "12-20", to: "01-05"}
  - {from: "2027-03-01T00:00", to: "2027-03-03T00:00"}
  - {from: 2027-05-01, to: 2027-05-02}
  - {weekdays: [sat, sun]}
  - {daily: "18:00-08:00"}
  - {daily: 11:00-12:00}
  - {weekdays: [fri], daily: "16:00-24:00"}
canary: true
group: payments
`

// TestSpec_yaml reads what stands in the manual, and the same as JSON.
func TestSpec_yaml(t *testing.T) {
	t.Parallel()
	var s schedule.Spec
	dec := yaml.NewDecoder(strings.NewReader(all))
	dec.KnownFields(true)
	require.NoError(t, dec.Decode(&s))
	text, err := json.Marshal(&s)
	require.NoError(t, err)
	parsed, err := schedule.Parse(text)
	require.NoError(t, err)
	again, err := json.Marshal(parsed)
	require.NoError(t, err)
	assert.JSONEq(t, string(text), string(again))
	require.NoError(t, s.Validate())
	assert.True(t, s.Canary)
	assert.Equal(t, "payments", s.Group)
	assert.Len(t, s.Freeze, 7)
	assert.Equal(t, "2027-05-01", s.Freeze[2].From)
}

// TestParse_bad has what may be wrong, and what is said about it.
func TestParse_bad(t *testing.T) {
	t.Parallel()
	freeze := func(s string) string { return `{"every": "1d", "freeze": [` + s + `]}` }
	const (
		wantDate = `want "12-20" for every year, or once "2027-03-01" or "2027-03-01T18:00"`
		wantCron = `want a cron expression of five fields, such as "0 4 1 * *"`
		wantTime = `want a duration such as "90s", "6h" or "30d"`
		noTime   = "freeze: leaves no time for a rotation for more than a year"
		wantKind = "freeze[0]: want from and to, or weekdays, or daily, or the last two"
	)
	for name, c := range map[string]struct{ text, want string }{
		"nothing":           {``, "is not JSON"},
		"no JSON":           {`every: 30d`, "is not JSON"},
		"half":              {`{"every": "30d"`, "is not JSON"},
		"more":              {`{"every": "30d"} {}`, "has more text after its end"},
		"list":              {`[]`, "want fields with values"},
		"number":            {`{"every": 30}`, "every: want text, in quotes"},
		"word":              {`{"every": "30d", "canary": "yes"}`, "canary: want true or false"},
		"freeze text":       {`{"every": "30d", "freeze": "12-20"}`, "freeze: want a list"},
		"freeze list":       {`{"every": "30d", "freeze": ["12-20"]}`, "freeze: want fields with values"},
		"unknown":           {`{"evry": "30d"}`, "evry: unknown field"},
		"unknown, hidden":   {`{"4f9A8b7C": "30d"}`, "?: unknown field"},
		"empty":             {`{}`, "want every, cron or before_expiry"},
		"null":              {`null`, "want every, cron or before_expiry"},
		"jitter alone":      {`{"jitter": "6h"}`, "want every, cron or before_expiry"},
		"both":              {`{"every": "30d", "cron": "0 4 1 * *"}`, "cron: does not go with every; want one of the two"},
		"every":             {`{"every": "soon"}`, "every: " + wantTime},
		"every 0":           {`{"every": "0s"}`, "every: want at least 1s"},
		"every 999ms":       {`{"every": "999ms"}`, "every: want at least 1s"},
		"every -1":          {`{"every": "-1h"}`, "every: " + wantTime},
		"half a day":        {`{"every": "1.5d"}`, "every: " + wantTime},
		"too many days":     {`{"every": "36501d"}`, "every: want at most 36500d"},
		"overflowing days":  {`{"every": "99999999999999999999d"}`, "every: " + wantTime},
		"wrapping days":     {`{"every": "213504d"}`, "every: " + wantTime},
		"overflowing hours": {`{"every": "9999999999h"}`, "every: " + wantTime},
		"before":            {`{"before_expiry": "1s"}`, "before_expiry: want at least 1m"},
		"jitter":            {`{"every": "1d", "jitter": "13h"}`, "jitter: want at most half of every"},
		"long jitter":       {`{"cron": "0 4 1 * *", "jitter": "400d"}`, "jitter: want at most 366d"},
		"zone":              {`{"every": "1d", "timezone": "Europe/Bonn"}`, `timezone: is not known here; want a name such as "Europe/Berlin"`},
		"local zone":        {`{"every": "1d", "timezone": "Local"}`, `timezone: is not known here; want a name such as "Europe/Berlin"`},
		"zone elsewhere":    {`{"every": "1d", "timezone": "../../etc/passwd"}`, `timezone: is not known here; want a name such as "Europe/Berlin"`},
		"group":             {`{"every": "1d", "group": "a b"}`, "group: want a name of 1 to 100 letters, digits, hyphens, underscores and dots, no dot first"},

		"cron":              {`{"cron": "monthly"}`, "cron: " + wantCron},
		"cron of spaces":    {`{"cron": "  "}`, "cron: " + wantCron},
		"six fields":        {`{"cron": "0 0 4 1 * *"}`, "cron: " + wantCron},
		"cron's interval":   {`{"cron": "@every 1h"}`, "cron: " + wantCron},
		"cron's zone":       {`{"cron": "TZ=Asia/Tokyo 0 4 1 * *"}`, "cron: " + wantCron},
		"cron's empty zone": {`{"cron": "TZ="}`, "cron: " + wantCron},
		"minute":            {`{"cron": "60 4 1 * *"}`, "cron: its minute is not understood; " + wantCron},
		"hour":              {`{"cron": "0 4-2 1 * *"}`, "cron: its hour is not understood; " + wantCron},
		"day":               {`{"cron": "0 4 0 * *"}`, "cron: its day of the month is not understood; " + wantCron},
		"month":             {`{"cron": "0 4 1 , *"}`, "cron: its month is not understood; " + wantCron},
		"weekday":           {`{"cron": "0 4 * * 7"}`, "cron: its weekday is not understood; " + wantCron},
		"never":             {`{"cron": "0 4 30 2 *"}`, "cron: names a day that never comes"},

		"no window":        {freeze(`{}`), wantKind},
		"two windows":      {freeze(`{"from": "12-20", "daily": "18:00-08:00"}`), wantKind},
		"from alone":       {freeze(`{"from": "12-20"}`), "freeze[0]: want both from and to"},
		"from":             {freeze(`{"from": "20.12.", "to": "13-01"}`), "freeze[0].from: " + wantDate + "\nfreeze[0].to: " + wantDate},
		"no such day":      {freeze(`{"from": "02-30", "to": "03-01"}`), "freeze[0].from: " + wantDate},
		"no such year":     {freeze(`{"from": "0000-01-01", "to": "2027-01-02"}`), "freeze[0].from: " + wantDate},
		"mixed":            {freeze(`{"from": "12-20", "to": "2027-01-05"}`), "freeze[0]: want from and to both with a year or both without"},
		"backwards":        {freeze(`{"from": "2027-01-05", "to": "2027-01-04"}`), "freeze[0].to: want a time after from"},
		"no time":          {freeze(`{"from": "2027-01-05T10:00", "to": "2027-01-05T10:00"}`), "freeze[0].to: want a time after from"},
		"long":             {freeze(`{"from": "2027-01-05", "to": "2028-02-04"}`), "freeze[0]: want at most 366 days"},
		"days":             {freeze(`{"weekdays": ["sat", "sunday"]}`), "freeze[0].weekdays[1]: want mon, tue, wed, thu, fri, sat or sun"},
		"daily":            {freeze(`{"daily": "18:00"}`), `freeze[0].daily: want two times such as "18:00-08:00"`},
		"daily, hours":     {freeze(`{"daily": "6-8"}`), `freeze[0].daily: want two times such as "18:00-08:00"`},
		"daily, same":      {freeze(`{"daily": "08:00-08:00"}`), `freeze[0].daily: want two times such as "18:00-08:00"`},
		"daily, from 24":   {freeze(`{"daily": "24:00-08:00"}`), `freeze[0].daily: want two times such as "18:00-08:00"`},
		"all week":         {freeze(`{"weekdays": ["mon", "tue", "wed", "thu", "fri", "sat", "sun"]}`), noTime},
		"all day":          {freeze(`{"daily": "00:00-24:00"}`), noTime},
		"day and night":    {freeze(`{"daily": "06:00-18:00"}, {"daily": "18:00-06:00"}`), noTime},
		"all year":         {freeze(`{"from": "01-01", "to": "12-31"}`), noTime},
		"in halves":        {freeze(`{"from": "01-01", "to": "06-30"}, {"from": "07-01", "to": "12-31"}`), noTime},
		"a Monday in June": {freeze(`{"weekdays": ["tue", "wed", "thu", "fri", "sat", "sun"]}, {"from": "06-02", "to": "05-31"}`), noTime},
		"only leap days":   {freeze(`{"from": "03-01", "to": "02-28"}`), noTime},
		"too many":         {freeze(strings.TrimSuffix(strings.Repeat(`{"daily": "01:00-02:00"},`, 101), ",")), "freeze: want at most 100 windows"},
		"all at once":      {`{"every": "x", "before_expiry": "y", "group": " "}`, "every: " + wantTime + "\nbefore_expiry: " + wantTime + "\ngroup: want a name of 1 to 100 letters, digits, hyphens, underscores and dots, no dot first"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := schedule.Parse([]byte(c.text))
			var bad *schedule.Error
			require.ErrorAs(t, err, &bad)
			assert.Equal(t, "schedule: "+strings.ReplaceAll(c.want, "\n", "\nschedule: "), err.Error())
		})
	}
	for _, good := range []string{
		freeze(`{"from": "01-01", "to": "12-30"}`),
		freeze(`{"weekdays": ["mon", "tue", "wed", "thu", "fri", "sat"]}, {"daily": "00:00-23:59"}`),
		freeze(`{"from": "2027-01-05", "to": "2028-01-04"}`),
		freeze(`{"weekdays": ["sun"], "daily": "23:00-05:00"}`),
		`{"cron": "@monthly", "jitter": "0s"}`,
		`{"cron": "0 4 29 feb ?"}`,
		`{"every": "1m", "jitter": "30s"}`,
		`{"every": "1d", "freeze": [], "timezone": ""}`,
	} {
		_, err := schedule.Parse([]byte(good))
		assert.NoError(t, err, good)
	}
}

// TestParse_quiet shows that errors repeat no values, wherever they are.
func TestParse_quiet(t *testing.T) {
	t.Parallel()
	const canary = "4f9A8b7C6d5E4f3A2b1C0d"
	for _, text := range []string{
		`{"every": "#"}`, `{"cron": "#"}`, `{"cron": "# 4 1 * *"}`, `{"cron": "0 4 1 * #"}`, `{"before_expiry": "#"}`,
		`{"every": "1d", "timezone": "#"}`, `{"every": "1d", "jitter": "#"}`, `{"every": "1d", "group": "# #"}`,
		`{"every": "1d", "freeze": [{"from": "#", "to": "#"}]}`, `{"every": "1d", "freeze": [{"daily": "#-#"}]}`,
		`{"every": "1d", "freeze": [{"weekdays": ["#"]}]}`, `{"every": "1d", "freeze": [{"#": 1}]}`, `{"every": "1d", "freeze": "#"}`,
		`{"#": "1d"}`, `{#`, `{"every": #}`, `#`, `"#"`, `{"canary": "#"}`, `{"every": "1d"} #`,
	} {
		_, err := schedule.Parse([]byte(strings.ReplaceAll(text, "#", canary)))
		require.Error(t, err, text)
		assert.NotContains(t, err.Error(), canary[:4], text)
	}
}

// FuzzParse shows that errors stay short, and that what is accepted has a next
// time that keeps the promises.
func FuzzParse(f *testing.F) {
	for _, s := range []string{
		`{"every": "30d", "before_expiry": "14d", "timezone": "Europe/Berlin", "jitter": "6h", "freeze": [{"from": "12-20", "to": "01-05"}, {"from": "2027-03-01T00:00", "to": "2027-03-03"}, {"weekdays": ["sat", "sun"]}, {"daily": "18:00-08:00"}], "canary": true, "group": "a"}`,
		`{"cron": "*/5 1-3,7 29 feb mon", "timezone": "Pacific/Apia", "jitter": "300d"}`,
		`{"cron": "@yearly"}`, `{"cron": "TZ="}`, `{"every": 1e9}`, `[]`, `{"cron": "1/9223372036854775807 * * * *"}`,
	} {
		f.Add([]byte(s), "billing", int64(1_800_000_000), int64(1_790_000_000), int64(1_810_000_000))
	}
	f.Fuzz(func(t *testing.T, text []byte, job string, now, last, expires int64) {
		s, err := schedule.Parse(text)
		if err != nil {
			var bad *schedule.Error
			require.ErrorAs(t, err, &bad)
			for _, p := range bad.Problems {
				require.Less(t, len(p.Where)+len(p.Reason), 200)
			}
			return
		}
		in := schedule.Input{Job: job, Now: time.Unix(now, 0), Last: time.Unix(last, 0), Expires: time.Unix(expires, 0)}
		due, err := s.Next(in)
		if err != nil {
			if !errors.Is(err, schedule.ErrInput) && !errors.Is(err, schedule.ErrNoTime) {
				t.Fatal(err)
			}
			return
		}
		if due.At.IsZero() {
			return
		}
		if due.At.Before(in.Now) || due.At.Before(in.Last) || due.At.Before(due.Planned) {
			t.Fatalf("%+v %+v", in, due)
		}
		_, frozen, err := s.FrozenAt(due.At)
		require.NoError(t, err)
		require.Equal(t, frozen, due.Frozen)
	})
}
