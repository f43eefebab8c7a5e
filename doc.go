// Package keywright manages API keys at two providers: ricloud (Reincubate's
// Cloud Data API) and Ace Data Cloud (its management API). It creates,
// restricts, lists, rotates and retires them, and never loses one on the way.
//
//	rc, err := keywright.NewRicloud()  // token from RICLOUD_TOKEN or ~/.ricloud.ini
//	key, err := rc.Key.Current(ctx)
//	err = rc.Key.Rotate(ctx, key, keywright.KeyRotateParams{})
//	// key.Token is the new token; key.Token.Reveal() is its text.
//
// # Clients
//
// [NewRicloud] and [NewAceData] return clients whose fields are services, one
// for each resource, with the verbs Create, Retrieve, List, All, Update, Rotate
// and Delete. Verbs that end in WithID take an id; the same verbs without it
// take the resource, and update it in place. Parameters are structs; what is
// machinery is an [Option] of a client or a [CallOption] of a call.
//
// # Authentication
//
// A token comes from [WithToken] or [WithTokenSource], else from the
// environment, else, for ricloud, from the configuration files of ricloud-py:
// RICLOUD_TOKEN and RICLOUD_URL, then the [api] section of the file that
// RICLOUD_CONF names, then ~/.ricloud.ini; for Ace Data Cloud,
// ACEDATACLOUD_PLATFORM_TOKEN and PLATFORM_API_BASE_URL. A variable that is set
// to nothing is an error, not an empty token.
//
// A [TokenSource] is asked once per attempt, so that a token can change under a
// running client: [FileToken] follows a file, [RotatingToken] holds the current
// token and the one before. If the provider answers 401, a source that is a
// [Reloader] is asked once for another token, and the call is made once more
// with it: a 401 comes before anything is done.
//
// Tokens travel over https, or http to this machine. Redirects are never
// followed.
//
// # Errors
//
// Every error of a call says what became of the call at the provider; see
// [OutcomeOf]:
//
//   - [NotSent]: no byte left the process.
//   - [Rejected]: the provider refused, and changed nothing.
//   - [ResultLost]: it is done, but the answer cannot be read or lacks the secret.
//   - [Ambiguous]: nobody can tell.
//
// The last two match [ErrOutcomeUnknown]. Do not repeat such a call: read back
// what it did, with the Recover method that its error has; see [Recovery].
//
// [*APIError] is any answer of 400 or more, whatever its body; errors.Is tells
// its class ([ErrNotFound], [ErrRateLimited], …). [*TransportError] is a call
// without an answer, [*DecodeError] a 2xx that is not what it should be,
// [*RedirectError] a 3xx, [*ParamError] a call that was refused before any I/O,
// [*ConfigError] a setting. A create or a rotate whose answer lacks a usable
// new secret is never reported as a success.
//
// A context that ends stops a call at once; errors.Is then finds the context's
// error, and errors.As the last answer there was.
//
// # Retries
//
// Whether a call may be sent again depends on the operation and on proof, not
// on its HTTP verb.
//
//   - Reads (Retrieve, Current, List, All, Me, Wait) are sent again after
//     connection failures, 408, 421, 425, 429 and every 5xx but 501.
//   - Creates, updates, rotations and tests are sent again only when the attempt
//     before provably did nothing: no connection was had, or the answer was 429,
//     425 or 421.
//   - Deletes likewise; and if their outcome is unknown they read back, wait out
//     the settle time, and delete again what is still there. A 404 then is
//     success.
//
// Three attempts. The wait before the next is random, from 50 ms up to a window
// that begins at 100 ms (when throttled: from 500 ms, 1 s) and doubles up to
// 20 s. A Retry-After is waited for; one beyond 60 s, or beyond the context's
// deadline, returns the error at once. All calls of a client share a budget of
// retries, so that an outage is not made worse. [RetryPolicy] changes the
// numbers, not the rules.
//
// The settle time is 60 seconds, or twice the time-out of an attempt if that is
// longer: a change whose answer was lost may still arrive for that long, so that
// "it is not there" proves nothing before. Deleting with a lost answer can take
// it, and so can Recover; a context bounds both. See [WithSettleTime].
//
// # Pagination
//
// List returns one [Page], and All an iterator over all of them that asks for
// pages as they are needed, can be ranged again, and yields an error once, last.
// No item is yielded again from the page after, and a provider that goes in
// circles ends in [ErrPaginationLoop]. [WithPrefetch] and [WithParallel] trade requests for
// time. [Collect] gathers, up to a limit.
//
// Lists of Ace Data Cloud are narrowed to the caller's own user, who is looked
// up once: one row of somebody else fails a whole page there. [WithAnyHolder]
// is for superusers.
//
// # Secrets
//
// Tokens, passwords, webhook secrets and storage credentials are of type
// [Secret], which prints as a mask everywhere and refuses to be encoded. What a
// provider adds to a resource in the future is kept as a Secret too, in its
// Extra field: nobody knows what it will be. Errors and logs are cleaned of
// tokens, even when the provider repeats one.
//
// A provider may one day mask the secrets that reads return. A mask is not taken
// for a secret: the field is absent then, and Masked is set.
//
// # Concurrency
//
// Clients and token sources are safe for concurrent use and meant to be kept.
// Results and parameters are plain values that nobody else holds. No goroutine
// outlives the call or the range loop that started it.
//
// # Packages
//
// Package rotation rotates a key and delivers its token to files, secret stores
// and CI, through a journal that survives a kill at any instant; rotation/sink
// has the places, and rotation/jobfile reads jobs from a file. Package webhook
// receives ricloud's events. Package keywrighttest has both providers as servers
// on loopback. The program in cmd/keywright does all this from a shell.
//
// # Observability
//
// [WithLogger] logs one line per attempt at Debug and one per failed call at
// Warn; [WithMiddleware] wraps every attempt; [WithMeta] reports on one call.
// By default there is silence.
//
// # Stability
//
// Version 0: names may still change, each time with a note in CHANGELOG.md. The
// current and the previous release of Go are supported.
package keywright
