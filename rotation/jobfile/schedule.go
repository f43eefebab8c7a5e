package jobfile

import (
	"encoding/json"
	"errors"
	"strconv"
	"strings"
)

// Schedule is when keywright-rotator rotates a job by itself. The schema checks
// the form of its fields, and [WithScheduleCheck] what they mean. What is empty,
// nil for Freeze, is as the file says for all jobs.
type Schedule struct {
	// Never says that the job is not rotated by itself, whatever the file says
	// for all jobs: it is written "never", in place of the fields.
	Never bool `yaml:"-" json:"-"`
	// Every is the time from the end of a rotation to the next one. It is in
	// place of the file's Cron.
	Every string `yaml:"every" json:"every,omitempty"`
	// Cron is a cron expression with five fields, or one such as @monthly. It is
	// in place of the file's Every.
	Cron string `yaml:"cron" json:"cron,omitempty"`
	// BeforeExpiry is how long before its expiry a key is rotated.
	BeforeExpiry string `yaml:"before_expiry" json:"before_expiry,omitempty"`
	// Timezone is the name of the time zone of Cron and Freeze.
	Timezone string `yaml:"timezone" json:"timezone,omitempty"`
	// Jitter is by how much a rotation may be earlier.
	Jitter string `yaml:"jitter" json:"jitter,omitempty"`
	// Freeze are windows in which no rotation begins.
	Freeze []Freeze `yaml:"freeze" json:"freeze,omitempty"`
	// Canary says that the key is rotated before the others of its group. It is
	// of a job only.
	Canary bool `yaml:"canary" json:"canary,omitempty"`
	// Group is the name of the job's group.
	Group string `yaml:"group" json:"group,omitempty"`
}

// Freeze is a window in which no rotation begins: From and To, or Weekdays, or
// Daily, or the last two together.
type Freeze struct {
	// From is when it begins, every year or once.
	From string `yaml:"from" json:"from,omitempty"`
	// To is when it ends.
	To string `yaml:"to" json:"to,omitempty"`
	// Weekdays are days of every week.
	Weekdays []string `yaml:"weekdays" json:"weekdays,omitempty"`
	// Daily is a time of every day.
	Daily string `yaml:"daily" json:"daily,omitempty"`
}

// UnmarshalText reads the word "never".
func (s *Schedule) UnmarshalText(text []byte) error {
	if string(text) != "never" {
		return errSchedule
	}
	*s = Schedule{Never: true}
	return nil
}

var errSchedule = errors.New("jobfile: not a schedule")

// over returns the schedule of a job in a file with the schedule all, nil if it
// has none.
func (s *Schedule) over(all *Schedule) *Schedule {
	switch {
	case s == nil:
		return all
	case s.Never:
		return nil
	case all == nil:
		return s
	}
	merged := *s
	if s.Every == "" && s.Cron == "" {
		merged.Every, merged.Cron = all.Every, all.Cron
	}
	for _, field := range []struct{ own, all *string }{
		{&merged.BeforeExpiry, &all.BeforeExpiry},
		{&merged.Timezone, &all.Timezone},
		{&merged.Jitter, &all.Jitter},
		{&merged.Group, &all.Group},
	} {
		if *field.own == "" {
			*field.own = *field.all
		}
	}
	if s.Freeze == nil { // an empty list is none
		merged.Freeze = all.Freeze
	}
	return &merged
}

// text returns a schedule as JSON, nil for none.
func (s *Schedule) text() []byte {
	if s == nil {
		return nil
	}
	b, err := json.Marshal(s)
	if err != nil {
		panic("jobfile: schedule: " + err.Error()) // it is text, truths and lists
	}
	return b
}

// Schedule returns the schedule of the job of that name, as JSON: what the job
// says, and where it says nothing, what the file says for all jobs. It is nil if
// the job has none, or is not there.
func (f *File) Schedule(job string) []byte {
	i, ok := f.index[job]
	if !ok {
		return nil
	}
	return f.Jobs[i].Schedule.over(f.DefaultSchedule).text()
}

// WithScheduleCheck has [Load] and [Parse] call check with the schedule of each
// job that has one, as [File.Schedule] returns it; jobs that have none but the
// file's share one call. Each line of an error is a problem of the file, without
// "schedule: " at its beginning. It must repeat no values.
func WithScheduleCheck(check func(schedule []byte) error) Option {
	return option(func(f *File) { f.scheduleCheck = check })
}

// checkSchedules notes what is wrong with the schedules of jobs: with the job's
// own, or once with that of the file.
func (f *File) checkSchedules() {
	if f.doc.bad["schedule"] { // nobody knows what they would be
		return
	}
	shared := false // the file's was looked at
	for i := range f.Jobs {
		j := &f.Jobs[i]
		at, others := []string{"jobs", strconv.Itoa(i), "schedule"}, ", here or in the schedule of the file"
		switch {
		case j.Name == "": // it has other problems
			continue
		case j.Schedule == nil && shared:
			continue
		case j.Schedule == nil:
			at, others, shared = []string{"schedule"}, "; jobs["+strconv.Itoa(i)+"] has no schedule of its own", true
		}
		merged := j.Schedule.over(f.DefaultSchedule)
		switch {
		case merged == nil:
		case merged.Every == "" && merged.Cron == "" && merged.BeforeExpiry == "":
			f.problem("want every, cron or before_expiry"+others, at...)
		case f.scheduleCheck != nil:
			f.problemsOf(f.scheduleCheck(merged.text()), at)
		}
	}
}

// problemsOf notes the lines of an error, each as a problem at a place.
func (f *File) problemsOf(err error, at []string) {
	if err == nil {
		return
	}
	where, _, n := f.doc.locate(at)
	var reasons []string
	for line := range strings.Lines(err.Error()) {
		if reason := strings.TrimPrefix(strings.TrimSpace(line), "schedule: "); reason != "" {
			reasons = append(reasons, reason)
		}
	}
	if reasons == nil {
		reasons = []string{"is not accepted"}
	}
	for _, reason := range reasons {
		f.doc.problems = append(f.doc.problems, Problem{Line: n.Line, Column: n.Column, Where: where, Reason: reason, Err: err})
	}
}
