// Package keywrighttest provides fake providers: a ricloud and an Ace Data
// Cloud on loopback, as real HTTP servers with state, for testing programs
// that use keywright and for trying it without an account.
//
// In a test:
//
//	fake := keywrighttest.StartRicloud(t)
//	rc, err := keywright.NewRicloud(
//		keywright.WithBaseURL(fake.URL()), keywright.WithToken(fake.Token()))
//
// In a program, use [NewRicloud] or [NewAceData] and Close. They listen on a free
// port unless [WithAddress] names one.
//
// # What is there at the start
//
// In ricloud, an organisation that is still unconfigured, and one active key
// with the id 1, whose token [Ricloud.Token] returns. There are no configs, and
// ids of each kind count from 1.
//
// In Ace Data Cloud, a user ([AceData.UserID], always the same) with one
// platform token ([AceData.Token]) and two applications without credentials
// ([AceData.ApplicationID], [AceData.ProxyApplicationID]).
//
// Tokens, and the ids of applications, are drawn anew by each fake.
//
// # What they do
//
// The fakes keep keys, configs, credentials and tokens; check the Authorization
// header; page their lists; refuse what the providers refuse, with the
// providers' error bodies; and rotate as the providers do: ricloud's old token
// works for six more hours unless force is given, Ace Data's dies at once. Ask
// [Ricloud.AcceptedTokens] or [AceData.AcceptedTokens] what would be accepted
// right now.
//
// Every body begins as a golden JSON document from the folder fixtures, not as
// a struct of the SDK, so that a wrong name in the SDK cannot pass unseen.
//
// # Time
//
// [WithClock] gives a fake a [Clock] that a test can move: six hours pass in
// [Clock.Advance].
//
// # Faults
//
// [Ricloud.Inject] and [AceData.Inject] make the next request of an operation
// go wrong: refused, dropped or reset before or after the change is applied,
// stalled, cut in the middle of the body, answered with any status, header and
// body. Operations have the names that the SDK's errors show: "key.rotate",
// "credential.create".
//
//	fake.Inject(keywrighttest.Fault{Op: "key.rotate", When: keywrighttest.AfterApply, Do: keywrighttest.Drop})
//
// # Webhooks
//
// Once the first key or the organisation has a webhook config on loopback,
// ricloud's events are delivered there, signed as [Sign] does, with up to five attempts.
// Config tests cause events; [Ricloud.Emit] makes any other.
// [Ricloud.WaitDelivered] waits for the outcome, and [Ricloud.Attempts] tells
// what was tried. [Ricloud.Deliver] sends an event again, late, out of order,
// or forged.
//
//	id := fake.Emit("task", "succeeded", map[string]any{"resource": "task"})
//	state, err := fake.WaitDelivered(ctx, id)
//	status, err := fake.Deliver(id, keywrighttest.Delivery{Secret: "another"})
//
// # Variants
//
// Where nobody knows what a provider does, an option chooses: see the
// functions With….
//
// # Requests
//
// Requests are recorded, without their Authorization header: see
// [Ricloud.Requests]. [Ricloud.Applied] counts the changes that took effect.
package keywrighttest
