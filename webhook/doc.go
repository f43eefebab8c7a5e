// Package webhook receives ricloud's events and trusts them: it verifies their
// signatures, answers, and sees to it that each event has one effect.
//
//	v, err := webhook.NewVerifier([]keywright.Secret{config.Secret})
//	inbox := webhook.NewFileStore("/var/lib/app/events")
//	http.Handle("/hooks/", webhook.Handler(v, inbox.Accept, webhook.WithStore(inbox)))
//	go inbox.Process(ctx, func(ctx context.Context, e *webhook.Event) error { … })
//
// # Trust
//
// A [Verifier] takes one header, "t=<seconds>,s=<base64>", in exactly that
// shape, computes the HMAC of its timestamp and the body with every secret that
// it has, and only then looks at the time and the JSON. There are one to four
// secrets of at least sixteen bytes, which can be exchanged while it works.
//
// # One effect
//
// ricloud delivers up to five times until it is answered with 2xx; an event may
// come twice, late, or after another. A [DedupeStore] remembers what was
// accepted. What is accepted must be durable before the answer: a [FileStore]
// is an inbox that is. After a time without a receiver, [Reconcile] fetches what
// was missed.
//
// # Registration
//
// [Register] finds or makes a webhook config for a URL, puts it into effect,
// replaces its secret without a gap, and puts back what was there before.
package webhook
