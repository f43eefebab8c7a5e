// Package jobs rotates keys on schedule, as durable jobs in the team's own
// database: River's jobs, in a SQLite file or in PostgreSQL.
//
//	st, err := store.OpenSQLite(ctx, "/var/lib/rotator/keywright.db")
//	r, err := jobs.New(st, jobs.WithSealer(rotation.SealKeyFile("/mnt/keys/seal.key")))
//	err = r.Register(ctx, jobs.Job{Job: billing, Schedule: monthly})
//	err = r.Run(ctx) // until ctx ends
//
// # What is where
//
// When a key is due is in the store's schedule; package schedule computes it.
// The state of each rotation is in the store's journal, behind a fencing epoch.
// River only wakes: its job names a key, may run twice or late, and each time
// goes on with what the journal says.
//
//   - A sweep, every few seconds on one of the workers, looks at what is due and
//     makes a River job of each, the one that has been due for longest first,
//     and canaries before the others of their group. There is one live River job
//     of a key at a time, and at most a batch of those waits to begin: ten
//     thousand keys that are due at once stay rows of the schedule until it is
//     their turn. A run that was missed, however often, happens once.
//   - A worker takes a River job, and runs one step: as far as the rotation gets
//     within the step's time-out. A wait ends the step; River wakes it again.
//   - When the rotation is over, what came of it is written down, and when the
//     key is due next.
//
// A worker that dies after a rotation has ended and before that was written
// down does not rotate again: the journal's generation tells.
//
// Of the store's tables keywright_facts and keywright_rates are this package's.
// What is in them can be lost: it is read anew from the journal, and asked of
// the provider. River's tables are made by [Runner.Start].
//
// # Several workers
//
// On PostgreSQL any number of workers share the work. Each has an id of its own;
// see [WithWorkerID]. A worker that is killed leaves its River jobs to be
// rescued, after two minutes, and its leases to end. One that is only stopped,
// and continues after another has taken its job over, finds its lease gone: it
// writes nothing, and [Guard] keeps it from sending anything that it has not
// handed to the network. Guard must be in the clients; it asks right before
// sending, which leaves the time between the question and the network.
//
// Because of that gap, a strategy whose calls would do harm after a takeover
// runs only on the worker that owns the job, which has a queue of its own:
// those for which [NeedsOwner] is true. Others refuse it, and say so. No other
// worker takes such a job over: it waits until its owner is back.
//
// Workers are to be given the same jobs. Where they differ for a while, the
// schedule and the owner that were registered last count for all. A worker takes
// out of the schedule, with [Runner.Reload], what it knew itself; jobs that it
// never knew are the others'. One that no worker knows any more stays, blocked,
// until [Runner.Forget].
//
// On SQLite one process at a time works the database: [Runner.Start] returns
// [store.ErrLocked] in a second one. What the process before left running, it
// takes back when it starts, without waiting.
//
// # Limits
//
// What is bounded, and where:
//
//   - steps at a time, on each worker: [WithConcurrency], once for the jobs that
//     may run anywhere and once for those that the worker owns;
//   - steps at a time, for each provider, on all workers together: [Limit].
//     On PostgreSQL a step holds one of so many advisory locks, on a connection
//     that the worker keeps for them. If that breaks, the locks are free while
//     steps may still run: the bound is for the provider's sake, not for safety;
//   - steps begun per second, for each provider, on all workers together:
//     [Limit] too. On PostgreSQL by a row of the table keywright_rates, with the
//     database's clock. It bounds neither what one step sends nor retries within;
//   - River jobs that wait to begin: [WithBatch].
//
// # What is not guaranteed
//
//   - The time of a rotation is that of the clock, of the sweep and of River's
//     polling: it begins up to a sweep and a few seconds late.
//   - A worker's id is a promise. Two processes with the same one are kept apart
//     on PostgreSQL by an advisory lock for as long as their connections last.
//   - A River job whose worker was killed waits for River's rescue, which needs a
//     leader: two minutes, and up to half a minute and the time of an election
//     on top.
package jobs
