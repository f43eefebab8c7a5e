package keywright

import (
	"context"
	"math"
	"math/rand/v2"
	"net/http"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-retryablehttp"
)

// replay says when an operation may be sent again after an attempt failed.
type replay int

const (
	// replayAlways is for reads.
	replayAlways replay = iota
	// replayProven is for what changes something: it is sent again only when
	// the attempt before provably did nothing.
	replayProven
	// replayProbed is for deletes: as replayProven, and after a read-back.
	replayProbed
)

// operation is one thing that can be asked of a provider. Whether it may be
// sent again belongs to it, not to its HTTP verb.
type operation struct {
	name   string
	method string
	replay replay
	await  bool // the provider can hold the answer
}

// Every operation of both providers.
var (
	opKeyCreate   = operation{name: "key.create", method: http.MethodPost, replay: replayProven}
	opKeyRetrieve = operation{name: "key.retrieve", method: http.MethodGet}
	opKeyCurrent  = operation{name: "key.current", method: http.MethodGet}
	opKeyList     = operation{name: "key.list", method: http.MethodGet}
	opKeyUpdate   = operation{name: "key.update", method: http.MethodPost, replay: replayProven}
	opKeyRotate   = operation{name: "key.rotate", method: http.MethodPost, replay: replayProven}

	opStorageCreate   = operation{name: "storage_config.create", method: http.MethodPost, replay: replayProven}
	opStorageRetrieve = operation{name: "storage_config.retrieve", method: http.MethodGet}
	opStorageList     = operation{name: "storage_config.list", method: http.MethodGet}
	opStorageUpdate   = operation{name: "storage_config.update", method: http.MethodPost, replay: replayProven}
	opStorageDelete   = operation{name: "storage_config.delete", method: http.MethodDelete, replay: replayProbed}
	opStorageTest     = operation{name: "storage_config.test", method: http.MethodPost, replay: replayProven, await: true}

	opWebhookCreate   = operation{name: "webhook_config.create", method: http.MethodPost, replay: replayProven}
	opWebhookRetrieve = operation{name: "webhook_config.retrieve", method: http.MethodGet}
	opWebhookList     = operation{name: "webhook_config.list", method: http.MethodGet}
	opWebhookUpdate   = operation{name: "webhook_config.update", method: http.MethodPost, replay: replayProven}
	opWebhookDelete   = operation{name: "webhook_config.delete", method: http.MethodDelete, replay: replayProbed}
	opWebhookTest     = operation{name: "webhook_config.test", method: http.MethodPost, replay: replayProven, await: true}

	opOrganisationRetrieve = operation{name: "organisation.retrieve", method: http.MethodGet}
	opOrganisationUpdate   = operation{name: "organisation.update", method: http.MethodPost, replay: replayProven}
	opTaskRetrieve         = operation{name: "task.retrieve", method: http.MethodGet}
	opTaskList             = operation{name: "task.list", method: http.MethodGet}
	opEventRetrieve        = operation{name: "event.retrieve", method: http.MethodGet}
	opEventList            = operation{name: "event.list", method: http.MethodGet}

	opCredentialCreate   = operation{name: "credential.create", method: http.MethodPost, replay: replayProven}
	opCredentialRetrieve = operation{name: "credential.retrieve", method: http.MethodGet}
	opCredentialList     = operation{name: "credential.list", method: http.MethodGet}
	opCredentialUpdate   = operation{name: "credential.update", method: http.MethodPatch, replay: replayProven}
	opCredentialRotate   = operation{name: "credential.rotate", method: http.MethodPost, replay: replayProven}
	opCredentialDelete   = operation{name: "credential.delete", method: http.MethodDelete, replay: replayProbed}

	opApplicationCreate   = operation{name: "application.create", method: http.MethodPost, replay: replayProven}
	opApplicationRetrieve = operation{name: "application.retrieve", method: http.MethodGet}
	opApplicationList     = operation{name: "application.list", method: http.MethodGet}

	opPlatformTokenMe       = operation{name: "platform_token.me", method: http.MethodGet}
	opPlatformTokenCreate   = operation{name: "platform_token.create", method: http.MethodPost, replay: replayProven}
	opPlatformTokenRetrieve = operation{name: "platform_token.retrieve", method: http.MethodGet}
	opPlatformTokenList     = operation{name: "platform_token.list", method: http.MethodGet}
	opPlatformTokenDelete   = operation{name: "platform_token.delete", method: http.MethodDelete, replay: replayProbed}
)

// RetryPolicy bounds how a call is sent again. Zero fields take the defaults.
// What may be sent again at all is not a matter of policy; see the package
// documentation.
type RetryPolicy struct {
	MaxAttempts   int           // attempts, the first included; default 3, and 1 means no retries
	BaseDelay     time.Duration // window of the first random wait; default 100 ms, doubled each time
	ThrottleDelay time.Duration // the same after a 429, 425 or 421; default 1 s
	MaxDelay      time.Duration // widest window; default 20 s
	MaxHint       time.Duration // longest Retry-After that is waited for, else the error returns at once; default 60 s
}

func (p RetryPolicy) validate() error {
	switch {
	case p.MaxAttempts < 0 || p.MaxAttempts > 100:
		return optionError("retry.MaxAttempts", "must be between 0 and 100")
	case p.BaseDelay < 0, p.ThrottleDelay < 0, p.MaxDelay < 0, p.MaxHint < 0:
		return optionError("retry", "delays must not be negative")
	}
	return nil
}

func (p RetryPolicy) withDefaults() RetryPolicy {
	if p.MaxAttempts == 0 {
		p.MaxAttempts = 3
	}
	p.BaseDelay = orDefault(p.BaseDelay, 100*time.Millisecond)
	p.ThrottleDelay = orDefault(p.ThrottleDelay, time.Second)
	p.MaxDelay = orDefault(p.MaxDelay, 20*time.Second)
	p.MaxHint = orDefault(p.MaxHint, 60*time.Second)
	return p
}

func orDefault(d, standard time.Duration) time.Duration {
	if d == 0 {
		return standard
	}
	return d
}

// delay draws the wait after attempt n: full jitter over a window that
// doubles, above a floor of half the first window, so that no loop spins.
func (p RetryPolicy) delay(n int, throttled bool) time.Duration {
	window := p.BaseDelay
	if throttled {
		window = p.ThrottleDelay
	}
	floor := min(window/2, p.MaxDelay)
	for range n - 1 {
		if window >= p.MaxDelay {
			break
		}
		window *= 2
	}
	return floor + rand.N(min(window, p.MaxDelay)-floor+1)
}

// Costs of the retry budget: a client that meets an outage stops retrying
// long before it doubles the provider's load.
const (
	budgetFull      = 500
	budgetTransient = 14
	budgetThrottled = 5
)

// budget is shared by all calls of a client; its zero value is full.
type budget struct{ spent atomic.Int64 }

// take reports whether cost could be had.
func (b *budget) take(cost int64) bool {
	for {
		spent := b.spent.Load()
		if spent+cost > budgetFull {
			return false
		}
		if b.spent.CompareAndSwap(spent, spent+cost) {
			return true
		}
	}
}

// give returns cost after a success.
func (b *budget) give(cost int64) {
	for {
		spent := b.spent.Load()
		if spent == 0 || b.spent.CompareAndSwap(spent, max(0, spent-cost)) {
			return
		}
	}
}

// retryAfter reads a Retry-After header: seconds, or an HTTP date. Anything
// else, and a time past, is no hint.
func retryAfter(h http.Header, now time.Time) (time.Duration, bool) {
	v := h.Get("Retry-After")
	if v == "" {
		return 0, false
	}
	if n, err := strconv.ParseInt(v, 10, 64); err == nil {
		// A negative number, and one that no Duration holds, is a mistake.
		if n < 0 || n > int64(math.MaxInt64/time.Second) {
			return 0, false
		}
		return time.Duration(n) * time.Second, true
	}
	t, err := http.ParseTime(v)
	if err != nil || !t.After(now) {
		return 0, false
	}
	return t.Sub(now), true // saturates: a date in year 9999 is a long wait, not a negative one
}

// run drives the attempts of a call through go-retryablehttp, every default of
// which that is wrong for keys is overridden here: its logger, which prints
// URLs, is off; which attempt is repeated and when is decided by judge; an
// exhausted call keeps its last answer. What remains of the library is the
// loop and its waiting.
func (cl *call) run(ctx context.Context, req *http.Request) {
	cl.http.Transport = cl // one attempt; see call.RoundTrip
	cl.loop.HTTPClient = &cl.http
	cl.loop.RetryMax = cl.cfg.retry.MaxAttempts + 1 // judge stops earlier
	cl.loop.CheckRetry = func(ctx context.Context, _ *http.Response, _ error) (bool, error) {
		cl.again = cl.judge(ctx)
		return cl.again, nil
	}
	cl.loop.Backoff = func(_, _ time.Duration, _ int, _ *http.Response) time.Duration { return cl.wait }
	cl.loop.ErrorHandler = retryablehttp.PassthroughErrorHandler
	// The verdict is in cl. The loop's own errors show URLs, and its response is
	// a placeholder: no http.Client above an attempt ever sees a redirect.
	if resp, err := cl.loop.Do(&retryablehttp.Request{Request: req}); err == nil {
		resp.Body.Close()
	}
}

// judge decides after an attempt whether there is another, and sets how long
// to wait for it.
func (cl *call) judge(ctx context.Context) bool {
	if ctx.Err() != nil || cl.fatal || cl.cut && cl.op.replay != replayAlways {
		return false
	}
	throttled, cost := false, int64(budgetTransient)
	switch s := cl.status; {
	case cl.err != nil && s == 0:
		if permanent(cl.err) || cl.op.replay != replayAlways && !cl.unsent() {
			return false
		}
	case s >= 200 && s < 300:
		// A broken body: a read can have another, a change has happened.
		if cl.err == nil || cl.op.replay != replayAlways || cl.tooLarge {
			return false
		}
	case s == http.StatusUnauthorized:
		return cl.reload(ctx)
	case s == http.StatusTooManyRequests, s == http.StatusTooEarly, s == http.StatusMisdirectedRequest:
		throttled, cost = true, budgetThrottled
	case s == http.StatusRequestTimeout, s >= 500 && s != http.StatusNotImplemented:
		if cl.op.replay != replayAlways {
			return false
		}
	default:
		return false
	}
	n := cl.attempts - cl.reloads
	if n >= cl.cfg.retry.MaxAttempts {
		return false
	}
	wait := cl.cfg.retry.delay(n, throttled)
	if hint, ok := retryAfter(cl.header, time.Now()); ok {
		if hint > cl.cfg.retry.MaxHint {
			return false
		}
		wait = max(wait, hint)
	}
	if deadline, ok := ctx.Deadline(); ok && wait >= time.Until(deadline) {
		return false
	}
	if !cl.c.budget.take(cost) {
		return false
	}
	cl.spent += cost
	cl.wait = wait
	return true
}

// reload asks the token source, once per call, for another token than the one
// that was refused.
func (cl *call) reload(ctx context.Context) bool {
	source, ok := cl.c.source.(Reloader)
	if !ok || cl.reloads > 0 {
		return false
	}
	next, err := source.Reload(ctx, cl.token)
	cl.interrupted = ctx.Err() != nil
	if err != nil || cl.interrupted || next.IsZero() || next.Equal(cl.token) {
		return false
	}
	cl.reloads++
	cl.next = next
	cl.wait = 0
	return true
}
