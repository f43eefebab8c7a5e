package schedule

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"strings"
)

// Spec is when a job's key is to be rotated. The zero Spec is not valid: one of
// Every, Cron and BeforeExpiry is needed.
//
// Its fields are what the text says, and are not to be changed after [Spec.Validate]
// unless that is called again. After it, a Spec is safe for concurrent use.
type Spec struct {
	// Every is the time from the end of a rotation to the next one, such as
	// "30d": at least 1 second. It excludes Cron.
	Every string `yaml:"every,omitempty" json:"every,omitempty"`
	// Cron is a cron expression with five fields, such as "0 4 1 * *", or one
	// of @yearly, @monthly, @weekly, @daily and @hourly. If it names both days of
	// the month and weekdays, a day that is either is met.
	Cron string `yaml:"cron,omitempty" json:"cron,omitempty"`
	// BeforeExpiry is how long before its expiry a key is rotated, at least 1
	// minute. With Every or Cron, the earlier one wins. A key that was rotated
	// stays for a quarter of its life, and 1 minute, even if that is later.
	BeforeExpiry string `yaml:"before_expiry,omitempty" json:"before_expiry,omitempty"`
	// Timezone is the IANA name of the time zone of Cron and Freeze; empty: UTC.
	Timezone string `yaml:"timezone,omitempty" json:"timezone,omitempty"`
	// Jitter is by how much a rotation may be earlier. How much it is depends
	// on the job's name; for a canary, it is all of it. At most half of Every,
	// and 366 days; empty: none.
	Jitter string `yaml:"jitter,omitempty" json:"jitter,omitempty"`
	// Freeze are windows in which no rotation begins.
	Freeze []Window `yaml:"freeze,omitempty" json:"freeze,omitempty"`
	// Canary says that the key is rotated before the others of its group; see
	// [Order].
	Canary bool `yaml:"canary,omitempty" json:"canary,omitempty"`
	// Group is the name of the job's group; empty: that of all jobs that name
	// none.
	Group string `yaml:"group,omitempty" json:"group,omitempty"`

	plan *plan // of Validate
}

// Window is a time in which no rotation begins: From and To, or Weekdays, or
// Daily, or the last two together.
type Window struct {
	// From is when it begins: "12-20" every year, or once "2027-03-01" or
	// "2027-03-01T18:00".
	From string `yaml:"from,omitempty" json:"from,omitempty"`
	// To is when it ends, written as From is. A date is included, a time is not.
	To string `yaml:"to,omitempty" json:"to,omitempty"`
	// Weekdays are whole days of every week: mon, tue, wed, thu, fri, sat, sun.
	// With Daily, they are the days on which that begins.
	Weekdays []string `yaml:"weekdays,omitempty" json:"weekdays,omitempty"`
	// Daily is a time of every day, "18:00-08:00"; the end is not included.
	Daily string `yaml:"daily,omitempty" json:"daily,omitempty"`
}

// Problem is one thing that is wrong with a [Spec].
type Problem struct {
	Where  string // the field, such as "freeze[0].from"; empty: all of it
	Reason string // what is wrong; it repeats no values
}

// Error is all that is wrong with a [Spec].
type Error struct {
	Problems []Problem // in the order of the fields, at least one
}

// Error returns a line for each problem: "schedule: every: want at least 1s".
func (e *Error) Error() string {
	var b strings.Builder
	for i, p := range e.Problems {
		if i > 0 {
			b.WriteByte('\n')
		}
		b.WriteString("schedule: ")
		if p.Where != "" {
			b.WriteString(p.Where + ": ")
		}
		b.WriteString(p.Reason)
	}
	return b.String()
}

// Parse reads and checks a [Spec] that is JSON text. What is wrong with it is an
// [*Error]. For YAML, decode into a Spec with unknown fields refused, and call
// [Spec.Validate].
func Parse(text []byte) (*Spec, error) {
	dec := json.NewDecoder(bytes.NewReader(text))
	dec.DisallowUnknownFields()
	s := new(Spec)
	if err := dec.Decode(s); err != nil {
		return nil, &Error{Problems: []Problem{unreadable(err)}}
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return nil, &Error{Problems: []Problem{{Reason: "has more text after its end"}}}
	}
	if err := s.Validate(); err != nil {
		return nil, err
	}
	return s, nil
}

// unreadable says why text is no Spec. It does not repeat the text.
func unreadable(err error) Problem {
	var typ *json.UnmarshalTypeError
	if errors.As(err, &typ) {
		switch typ.Type.Kind().String() {
		case "string":
			return Problem{typ.Field, "want text, in quotes"}
		case "bool":
			return Problem{typ.Field, "want true or false"}
		case "slice":
			return Problem{typ.Field, "want a list"}
		}
		return Problem{typ.Field, "want fields with values"}
	}
	if name, ok := strings.CutPrefix(err.Error(), "json: unknown field "); ok {
		name = strings.Trim(name, `"`)
		if len(name) > 20 || strings.Trim(name, "abcdefghijklmnopqrstuvwxyz_") != "" {
			name = "?" // may be anything
		}
		return Problem{name, "unknown field"}
	}
	return Problem{"", "is not JSON"}
}

// Validate checks the fields, and finds the time zone. Its error is an [*Error]
// that has all problems. A Spec that was not validated works too, slowly.
func (s *Spec) Validate() error {
	p, err := s.compile()
	s.plan = p
	return err
}
