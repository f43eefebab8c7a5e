// Package schedule says when a key is to be rotated.
//
//	spec, err := schedule.Parse([]byte(`{"every": "30d", "jitter": "6h"}`))
//	due, err := spec.Next(schedule.Input{Job: "billing", Last: last, Now: now})
//
// It does arithmetic and nothing else: no clock, no file, no random number. The
// same [Spec] and [Input] give the same [Due] in every process, so a restart
// moves nothing, and a time that passed while nothing ran is still due: once,
// not once for each time that was missed.
//
// # The text
//
// What stands under a job's schedule in keywright.yaml:
//
//	schedule:
//	  every: 30d            # since the last rotation finished; or
//	  cron: "0 4 1 * *"     # minute, hour, day, month, weekday, in the time zone
//	  before_expiry: 14d    # alone, or with one of these: the earlier one wins
//	  timezone: Europe/Berlin
//	  jitter: 6h            # earlier by up to this, always the same for a job
//	  freeze:               # no rotation begins
//	    - {from: "12-20", to: "01-05"}       # every year, both days included
//	    - {from: "2027-03-01T00:00", to: "2027-03-03T00:00"}  # once
//	    - {weekdays: [sat, sun]}             # every week
//	    - {daily: "18:00-08:00"}             # every day, over midnight
//	    - {weekdays: [fri], daily: "16:00-24:00"}  # Friday afternoons
//	  canary: true          # goes before the others of its group
//	  group: payments
//
// Times are those of Go, such as 90s and 1h30m, or whole days, such as 30d; a
// day of an interval has 24 hours, whatever clocks do.
//
// # Earlier, never later
//
// Jitter and freeze windows make a rotation earlier. Jitter is taken from the
// name of the job, and is at most half of the time since the last rotation, but
// for cron, where it moves each occurrence by the same. A canary has all of it,
// and so comes before the others of a group that has one schedule. A time inside a freeze
// window moves to an hour ([Lead]) before it, or a little more with jitter, so
// that not all keys come at once. Only when that has passed, or is not after the
// last rotation, does it move to the end of the window, and only if the key does
// not come close to its expiry by that ([Margin]): then it is due inside, and
// [Due.Frozen] and [Due.Reason] say so.
//
// A cron occurrence belongs to the rotation that was made for it: one that came
// early, by jitter or a freeze, is not made again at the hour on the clock, and
// all occurrences in one freeze are one rotation.
//
// # Clocks that change
//
// A local time that a change of clocks leaves out happens at the change, and one
// that comes twice happens the first time. A freeze window lasts from the first
// time that clocks show its beginning to the last time that they show its end.
//
// # Time zones
//
// Time zones are found as [time.LoadLocation] finds them, by [Spec.Validate].
// This package does not embed them: a program that is to run where there are
// none, as in an empty container, imports time/tzdata. All workers should have
// the same data.
package schedule
