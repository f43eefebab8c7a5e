// Package store keeps what a service that rotates keys must not forget: the
// journal of each rotation, when each key is due, and what has happened, in a
// SQLite file or in a PostgreSQL database.
//
// # The journal
//
// [Store.Journal] is a [rotation.Journal]. A session has a number, the epoch of
// its job, and a random name; every write checks both in the statement that
// writes, so that a session whose job was taken over changes nothing any more:
// its calls return [ErrFenced].
//
// How a session keeps others out differs:
//
//   - SQLite: the kernel's lock on a file beside the database. It ends with the
//     process and not before; a process that is only stopped keeps it.
//   - PostgreSQL: a lease, by the database's clock, that a session renews with
//     every write and in between. A process that is stopped, or cut off from
//     the database, for longer than the lease loses its job. When it continues
//     it can write nothing, but nothing can keep it from finishing a call to a
//     provider that it was about to send: ask [Store.Held] right before such a
//     call, which leaves the time between the question and the call.
//
// The database never sees a token in the clear, because the engine seals
// tokens before it saves them.
//
// # What is not guaranteed
//
//   - A PostgreSQL that loses committed transactions (fsync=off, or a failover
//     to a replica that lags) loses records. The epoch may then be given twice;
//     the random name keeps the two sessions apart nevertheless.
//   - On PostgreSQL nobody can reserve space; see [Store.Journal].
//   - SQLite's file must be on a local disk: its locks and shared memory do not
//     work over a network.
//   - A process that is stopped in the middle of a write to SQLite keeps every
//     other from writing, to any job, until it continues or ends.
//   - Time spent while the machine is suspended does not count for
//     [Store.Held], where the operating system's monotonic clock stands still.
package store
