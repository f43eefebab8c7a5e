// Package rotation rotates provider-issued API keys without losing one.
//
// Such a key cannot be written down before it exists: it is born at the
// provider, and between the provider's commit and the first write here it is
// only in an answer, which may be lost. An [Engine] therefore writes down that
// it is about to ask, asks once, and finds out by reading what became of a call
// whose answer it did not get. It never asks again while that is open. The new
// token is durable before anything else happens, the old one is retired only
// when the new one has been accepted and is wherever it is read.
//
//	e, err := rotation.Open("/var/lib/rotator")
//	r, err := e.Rotate(ctx, rotation.Job{
//		Name:     "billing",
//		Strategy: rotation.RicloudPaired{Client: rc, Keys: [2]keywright.KeyID{7, 8}},
//		Sinks:    []sink.Sink{sink.File("/run/secrets/ricloud")},
//	})
//
// # Jobs
//
// A [Job] is a key, a [Strategy] for it, and the places that its token is
// delivered to; see package sink. [Engine.Plan] says what a rotation would do,
// [Engine.Rotate] does it, and goes on with one that was stopped, wherever that
// was; [Engine.Resume] only goes on. [Engine.Rollback] takes back what can be
// taken back. [Engine.Status] says where a job is.
//
// # Strategies
//
// [RicloudPaired] keeps two keys of ricloud and rotates the one that nobody
// uses: no deadline, and a way back until the end. [RicloudOverlap] rotates one
// key within the six hours that ricloud gives. [AceDataSwap] replaces a
// credential of Ace Data Cloud by another with the same rights.
// [AceDataInPlace] interrupts service, and wants to be told that this is
// accepted. A strategy for another provider implements [Strategy] and is tested
// by package rotationtest.
//
// # Errors
//
// [ErrRefused]: it would be unsafe, and was not begun; [ErrBusy]: somebody else
// is at it; [ErrNotIssued]: nothing has changed; [ErrUnfinished]: run it again;
// [ErrStuck]: a person is needed, and [StuckError] says what for. No error is a
// reason to remove the old token by hand.
//
// # Journal
//
// The state of every job is in a directory, tokens sealed, with a lock that the
// kernel holds for as long as the process lives, and an audit trail of
// fingerprints. Losing it loses no key, but what was under way must then be
// looked after by a person. See [NewDirJournal], [Sealer] and [CheckAudit].
//
// docs/rotation.md has the protocol, its limits, and what to do when stuck.
package rotation
