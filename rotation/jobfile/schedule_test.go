package jobfile_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/keywright/keywright/rotation/jobfile"
)

// TestFile_Schedule has what a job says, what the file says, and both together.
func TestFile_Schedule(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ job, file, want string }{
		"none":          {"", "", ""},
		"the job's":     {"schedule: {every: 30d}", "", `{"every":"30d"}`},
		"the file's":    {"", "schedule: {cron: 0 4 1 * *, timezone: Europe/Berlin}", `{"cron":"0 4 1 * *","timezone":"Europe/Berlin"}`},
		"never":         {"schedule: never", "schedule: {every: 30d}", ""},
		"quoted never":  {`schedule: "never"`, "", ""},
		"empty":         {"schedule: {}", "schedule: {every: 30d}", `{"every":"30d"}`},
		"both":          {"schedule: {every: 7d, canary: true}", "schedule: {every: 30d, before_expiry: 14d, timezone: UTC, jitter: 6h, group: a}", `{"every":"7d","before_expiry":"14d","timezone":"UTC","jitter":"6h","canary":true,"group":"a"}`},
		"all its own":   {"schedule: {every: 7d, before_expiry: 2d, timezone: Asia/Tokyo, jitter: 0s, group: b}", "schedule: {every: 30d, before_expiry: 14d, timezone: UTC, jitter: 6h, group: a}", `{"every":"7d","before_expiry":"2d","timezone":"Asia/Tokyo","jitter":"0s","group":"b"}`},
		"every, cron":   {"schedule: {every: 7d}", "schedule: {cron: '@daily'}", `{"every":"7d"}`},
		"cron, every":   {"schedule: {cron: '@daily'}", "schedule: {every: 7d}", `{"cron":"@daily"}`},
		"before, every": {"schedule: {before_expiry: 14d}", "schedule: {every: 7d}", `{"every":"7d","before_expiry":"14d"}`},
		"windows":       {"schedule: {freeze: [{weekdays: [Sat, sun]}]}", "schedule: {every: 7d, freeze: [{from: 12-20, to: 01-05}, {from: 2027-03-01, to: 2027-03-02T18:00}]}", `{"every":"7d","freeze":[{"weekdays":["Sat","sun"]}]}`},
		"file's windows": {"schedule: {canary: true}", "schedule: {every: 7d, freeze: [{from: 12-20, to: 01-05}, {from: 2027-03-01, to: 2027-03-02T18:00}, {daily: 18:00-08:00}]}",
			`{"every":"7d","freeze":[{"from":"12-20","to":"01-05"},{"from":"2027-03-01","to":"2027-03-02T18:00"},{"daily":"18:00-08:00"}],"canary":true}`},
		"no windows": {"schedule: {freeze: []}", "schedule: {every: 7d, freeze: [{weekdays: [fri], daily: 16:00-24:00}]}", `{"every":"7d"}`},
	} {
		var checked []string
		f, err := jobfile.Parse("k.yaml", []byte(paired("  "+c.job+"\n"+c.file)), jobfile.WithScheduleCheck(func(schedule []byte) error {
			checked = append(checked, string(schedule))
			return nil
		}))
		require.NoError(t, err, name)
		assert.Equal(t, c.want, string(f.Schedule("a")), name)
		if c.want == "" {
			assert.Nil(t, f.Schedule("a"), name)
			assert.Empty(t, checked, name)
		} else {
			assert.Equal(t, []string{c.want}, checked, name)
		}
		assert.Nil(t, f.Schedule("b"), name)
	}
}

// TestFile_Schedule_all has the schedules of a whole file, which is not changed by
// asking for them.
func TestFile_Schedule_all(t *testing.T) {
	t.Parallel()
	b, err := os.ReadFile("testdata/good.yaml")
	require.NoError(t, err)
	f, err := jobfile.Parse("k.yaml", b)
	require.NoError(t, err)
	const windows = `"freeze":[{"from":"12-20","to":"01-05"},{"from":"2027-03-01","to":"2027-03-02T18:00"},{"weekdays":["sat","sun"]},{"weekdays":["fri"],"daily":"16:00-24:00"}]`
	for range 2 {
		assert.Equal(t, `{"cron":"0 4 1 * *","before_expiry":"14d","timezone":"Europe/Berlin","jitter":"6h","canary":true,"group":"paired"}`, string(f.Schedule("paired")))
		assert.Equal(t, `{"every":"30d","before_expiry":"14d","timezone":"Europe/Berlin","jitter":"6h",`+windows+`,"group":"all"}`, string(f.Schedule("overlap")))
		assert.Equal(t, f.Schedule("overlap"), f.Schedule("swap"))
		assert.Nil(t, f.Schedule("in-place"))
	}
	assert.Equal(t, "worker-1", f.Jobs[0].Owner)
	assert.Empty(t, f.Jobs[1].Owner)
}

// TestSchema_schedule has what the package that reads schedules takes, and so has
// to be taken here.
func TestSchema_schedule(t *testing.T) {
	t.Parallel()
	for _, s := range []string{
		"every: 1m", "every: 99999d", "every: 0030d", "every: 000000030d", "every: 1h30m", "every: 1.5h", "every: 1.h", "every: .5h", "every: +90m", "every: 6000000µs", "every: 6000000μs",
		"every: 1d, jitter: '0'", "every: 1d, jitter: +0", "every: 1d, jitter: 0d",
		"cron: '@yearly'", "cron: '@annually'", "cron: '@monthly'", "cron: '@weekly'", "cron: '@daily'", "cron: '@midnight'", "cron: '@hourly'",
		"cron: 0 4 1 * *", "cron: '*/5 0-12/3 ? JAN,feb mon-FRI'", `cron: "  0\t4 1\n* * "`, "cron: +5 4 1 * 0",
		"before_expiry: 1m", "every: 1d, timezone: UTC", "every: 1d, timezone: America/Argentina/Buenos_Aires", "every: 1d, timezone: Etc/GMT+1", "every: 1d, timezone: GMT-0",
		"every: 1d, group: -_.a", "every: 1d, group: '0x'", "every: 1d, canary: false", "every: 1d, group: " + strings.Repeat("a", 100),
		"every: 1d, freeze: [{from: 02-29, to: 02-29}, {from: 0001-01-01, to: 0001-12-31T23:59}, {from: 2027-03-01T8:00, to: 2027-03-01T09:00}]",
		"every: 1d, freeze: [{weekdays: [MON, Tue, wEd, thu, fri, sat, sun, sun], daily: 23:59-24:00}, {daily: 00:00-24:00}]",
		"every: 1d, freeze: [" + strings.Repeat("{from: 12-20, to: 01-05}, ", 100) + "]",
	} {
		_, err := jobfile.Parse("k.yaml", []byte(paired("  schedule: {"+s+"}")))
		assert.NoError(t, err, s)
	}
}

func TestWithScheduleCheck(t *testing.T) {
	t.Parallel()
	refused := errors.New("schedule: every: want at least 1m\nschedule: freeze[0].to: want a time after from")
	check := func(schedule []byte) error {
		switch {
		case strings.Contains(string(schedule), `"every":"1s"`):
			return refused
		case strings.Contains(string(schedule), `"every":"2s"`):
			return errors.New(" \r\nschedule: is odd\r\n\nschedule: is odd\n")
		case strings.Contains(string(schedule), `"every":"3s"`):
			return errors.New("\n")
		}
		return nil
	}
	const others = "- {name: b, strategy: ricloud-overlap, key: 5, sinks: [{type: file, path: b}]}\n- {name: c, strategy: ricloud-overlap, key: 6, sinks: [{type: file, path: c}]}\n"
	for name, c := range map[string]struct{ text, want string }{
		"good":          {"  schedule: {every: 30d}\n" + others, ""},
		"the job's":     {"  schedule: {every: 1s}\n" + others, "k.yaml:7: jobs[0].schedule: every: want at least 1m\nk.yaml:7: jobs[0].schedule: freeze[0].to: want a time after from"},
		"the file's":    {others + "schedule:\n  every: 1s", "k.yaml:10: schedule: every: want at least 1m\nk.yaml:10: schedule: freeze[0].to: want a time after from"},
		"both together": {"  schedule:\n    jitter: 1h\n- {name: b, strategy: ricloud-overlap, key: 5, sinks: [{type: file, path: b}], schedule: never}\nschedule: {every: 1s}", "k.yaml:8: jobs[0].schedule: every: want at least 1m\nk.yaml:8: jobs[0].schedule: freeze[0].to: want a time after from"},
		"of each":       {"  schedule: {group: x}\n" + others + "schedule: {every: 2s}", "k.yaml:7: jobs[0].schedule: is odd\nk.yaml:10: schedule: is odd"},
		"no words":      {"  schedule: {every: 3s}", "k.yaml:7: jobs[0].schedule: is not accepted"},
		"no job's":      {"  schedule: {every: 1d}\nschedule: {every: 1s}", ""},
		"and others":    {"  schedule: {every: 1s}\n  keyz: 7", "k.yaml:8: jobs[0].keyz: unknown field; did you mean \"keys\"?"},
		"job unknown":   {"  schedule: {every: 1d}\n- {name: b, strategy: nonsense, sinks: [{type: file, path: b}], schedule: {every: 1d}}\nschedule: {jitter: 1s}", "k.yaml:8: jobs[1].strategy: is \"nonsense\"; want ricloud-paired, ricloud-overlap, acedata-swap or acedata-in-place"},
		"file unknown":  {"  schedule: {jitter: 1s}\nschedule: {evry: 1d}", "k.yaml:8: schedule.evry: unknown field; did you mean \"every\"?"},
	} {
		f, err := jobfile.Parse("k.yaml", []byte(paired(c.text)), jobfile.WithScheduleCheck(check))
		if c.want == "" {
			require.NoError(t, err, name)
			require.NotNil(t, f)
			continue
		}
		require.EqualError(t, err, c.want, name)
		assert.Nil(t, f)
		if strings.Contains(c.want, "at least 1m") {
			assert.ErrorIs(t, err, refused, name)
		}
	}

	path := filepath.Join(t.TempDir(), "keywright.yaml")
	write(t, path, paired("schedule: {every: 1s}"))
	_, err := jobfile.Load(path, jobfile.WithScheduleCheck(check))
	require.ErrorIs(t, err, refused)
	f, err := jobfile.Load(path) // nobody looks at what it means
	require.NoError(t, err)
	assert.Equal(t, `{"every":"1s"}`, string(f.Schedule("a")))
}

// TestWithScheduleCheck_fleet asks once for all jobs that have only the file's.
func TestWithScheduleCheck_fleet(t *testing.T) {
	t.Parallel()
	asked := 0
	_, err := jobfile.Parse("k.yaml", []byte(fleet(100)+"schedule: {every: 30d}\n"), jobfile.WithScheduleCheck(func([]byte) error {
		asked++
		return errors.New("no")
	}))
	require.EqualError(t, err, "k.yaml:704: schedule: no")
	assert.Equal(t, 1, asked)
}
