package jobfile_test

import (
	"encoding/json"
	"os"
	"strings"
	"testing"

	"github.com/keywright/keywright"
	"github.com/keywright/keywright/rotation/jobfile"
)

// FuzzParse looks for files that panic, whose errors repeat what could be a secret, or whose jobs
// cannot be made although the file was good.
func FuzzParse(f *testing.F) {
	good, err := os.ReadFile("testdata/good.yaml")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(string(good), uint(300))
	for _, s := range []string{
		"", "~", "- a", "a: &a [*a]", "version: 1\njobs: []", "{\"version\": 1, \"jobs\": [{}]}", "? a\n: b", "<<: {}", "a: !!binary x",
		"\ufeffversion: 0o1", "version: |\n  1\n", "jobs: [{sinks: [{type: vault}]}]", "jobs: [{name: a, name: b}]", "1: 2\n? [x]\n: y",
	} {
		f.Add(s, uint(0))
		f.Add(paired(s), uint(40))
	}
	f.Add(paired("  escrow: {type: kubernetes, name: a, key: b}\n  policy: {max_wait: never}"), uint(1000))
	f.Add(paired("  verify: {url: 'https://a/%zz'}"), uint(20))
	f.Add(paired("  schedule: never\n  owner: w\nschedule: {every: 30d, timezone: UTC, freeze: [{from: 12-20, to: 01-05}]}\njournal: database"), uint(150))
	f.Add(paired("  schedule: {cron: '@daily', jitter: 6h, canary: true, freeze: [{weekdays: [Fri], daily: 16:00-24:00}]}\nschedule: {before_expiry: 14d, group: g}"), uint(1000))
	for _, s := range []string{`"\/"`, `{"journal": "\ud83d\ude00", "jobs"` + "\n: [[], {}, null, -1.5e3, true]}", `{"version": 1, "version": 1}`, `["\ud83d"]`} {
		f.Add(s, uint(1000))
	}
	f.Fuzz(func(t *testing.T, text string, at uint) {
		if at < uint(len(text)) { // a secret, in any place
			text = text[:at] + canary + text[at:]
		}
		file, err := jobfile.Parse("k.yaml", []byte(text), jobfile.WithClientOptions(
			keywright.WithoutEnvironment(), keywright.WithUserAgent("fuzz/1")),
			jobfile.WithScheduleCheck(func(schedule []byte) error {
				if !json.Valid(schedule) {
					t.Errorf("%q", schedule)
				}
				return nil
			}))
		if err != nil {
			if s := err.Error(); strings.Contains(s, canary) || len(s) > 1<<20 {
				t.Errorf("%q", s)
			}
			return
		}
		for job, err := range file.All() {
			if err == nil && (job.Strategy == nil || len(job.Sinks) == 0) {
				t.Error("a job with nothing in it")
			}
		}
	})
}
