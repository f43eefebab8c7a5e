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
// # Moving
//
// [Store.MoveFrom] brings what is in another database here, of either kind, and
// [Store.MoveFromDir] what is in the directory of a journal, with rotations that
// are under way. Tokens stay sealed: the same sealing key is needed afterwards.
// What was moved cannot be used any more where it was, so that nobody goes on
// there by mistake: a database is refused with [ErrMoved], and a directory gets
// another name.
//
// # What is not guaranteed
//
//   - A PostgreSQL that loses committed transactions (fsync=off, or a failover
//     to a replica that lags) loses records. The epoch may then be given twice;
//     the random name keeps the two sessions apart nevertheless.
//   - On PostgreSQL nobody can reserve space; see [Store.Journal].
//   - A lease is as good as the clock of PostgreSQL's server: one that jumps ahead
//     by more than the lease, as after a failover to another machine, lets a job
//     be taken over early. The session before can write nothing then, but
//     [Store.Held] does not know.
//   - A copy of a database, or a backup that was restored, is another journal of
//     the same keys, and nobody can see that two are worked. Restore only what
//     replaces the one before, with nobody at work. A SQLite file is restored
//     without a -wal and -shm of another; a log that does not fit is refused where
//     that can be seen.
//   - Poolers in transaction mode are refused by [OpenPostgres]; between a check
//     at the beginning and a later change of the pooler's mode nothing notices.
//   - Between the moment at which a move is durable here and the mark on the
//     other database, a crash leaves two that can be worked: finish the move first.
//   - SQLite's file must be on a local disk: its locks and shared memory do not
//     work over a network.
//   - A process that is stopped in the middle of a write to SQLite keeps every
//     other from writing, to any job, until it continues or ends.
//   - Time spent while the machine is suspended does not count for
//     [Store.Held], where the operating system's monotonic clock stands still.
package store
