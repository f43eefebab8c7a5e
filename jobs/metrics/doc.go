// Package metrics tells Prometheus how rotations stand.
//
//	runs := metrics.NewRuns()
//	r, err := jobs.New(st, jobs.WithResults(runs.Observe), …)
//	registry.MustRegister(runs, metrics.NewKeys(r, keywright.Version))
//
// # Of each key
//
//	keywright_key_age_seconds{job}                    since its token was issued
//	keywright_key_due_seconds{job}                    until it is due; negative: overdue
//	keywright_key_expires_seconds{job}                until it expires, if that is known
//	keywright_rotation_state{job,state}               1 for the state that it is in
//	keywright_rotation_failures{job}                  runs in a row that failed
//	keywright_rotation_window_remaining_seconds{job}  until the old token lapses by itself, while a rotation is under way
//
// What does not apply to a key, or is not known, is left out. The state is that
// of package rotation, such as IDLE, CONVERGING, DONE and STUCK, or REFUSED or
// FAILED.
//
// # Of all keys
//
//	keywright_jobs{state}            how many are in the state
//	keywright_jobs_blocked           how many this worker does not run, or does not know
//	keywright_rotations_under_way    how many are begun and not over
//
// # Of this worker
//
//	keywright_rotation_runs_total{provider,result}    runs that ended: done, rolled_back, refused, failed, stuck
//	keywright_rotation_step_seconds{provider}         how long a step took, a histogram
//	keywright_worker_info{worker,version}             1
//	keywright_scrape_errors_total                     scrapes that could not ask the database
//
// # Several workers
//
// Each worker tells the same of all keys, because it asks the database: take
// max by (job). What is of one worker is to be summed.
//
// # How many series
//
// A key has up to five series, and one more while its rotation is under way: ten
// thousand keys make up to sixty thousand, some 4 MB of text. A label is a job's
// name, a state, a provider, or of the worker. There is no other, and no token.
package metrics
