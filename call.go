package keywright

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/hashicorp/go-retryablehttp"
)

// request is what a service asks of the client.
type request struct {
	op     *operation
	path   string // below the base URL, every segment checked
	query  string // encoded
	params any    // body of a POST or PATCH; nil sends {}

	hide []Secret // secrets in the body, never to be repeated in an error
	// probe looks at the provider, once, for what the call did. It is used
	// only when the answer cannot tell.
	probe func(context.Context, lostCall) (*Recovery, error)
}

// call is one call in progress: its attempts, and what the last one met. It is
// also the http.RoundTripper of its own http.Client, because an attempt is
// more than an exchange: it takes a token, has a deadline, and reads the whole
// body before anything is judged.
type call struct {
	c       *client
	op      *operation
	cfg     callConfig
	body    []byte // nil sends none
	started time.Time
	red     redactor
	loop    retryablehttp.Client
	http    http.Client

	// Over all attempts.
	attempts    int
	reloads     int
	spent       int64     // of the retry budget
	proof       *evidence // nil for reads, which need none
	token       Secret    // of the last attempt
	next        Secret    // for the next attempt, after a reload
	again       bool      // judge wanted another attempt
	interrupted bool      // the context ended between attempts
	wait        time.Duration

	// Of the last attempt.
	status   int
	header   http.Header
	buf      *bytes.Buffer // the body, from the client's pool
	err      error         // no answer, or a body that broke
	tooLarge bool
	cut      bool // the body of an error was cut off
	began    bool // the transport was called
	fatal    bool // err came before the transport and would come again
}

// send carries out r. On success the caller reads call.data and then calls
// release.
func (s *service) send(ctx context.Context, r *request, opts []CallOption) (*call, error) {
	if s == nil || s.c == nil {
		return nil, ErrNotInitialized
	}
	c := s.c
	cfg, err := c.callOptions(ctx, r.op, opts)
	if err != nil {
		return nil, err
	}
	return c.send(ctx, r, cfg)
}

func (c *client) send(ctx context.Context, r *request, cfg callConfig) (*call, error) {
	cl := &call{c: c, op: r.op, cfg: cfg, started: time.Now()}
	if r.op.replay != replayAlways {
		cl.proof = new(evidence)
	}
	cl.red.add(r.hide...)
	if r.op.method == http.MethodPost || r.op.method == http.MethodPatch {
		cl.body = []byte("{}")
		if r.params != nil {
			b, err := json.Marshal(r.params)
			if err != nil {
				return nil, &ParamError{Op: r.op.name, Field: "parameters", Reason: "cannot be sent as JSON"}
			}
			cl.body = b
		}
	}
	if cfg.total > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, cfg.total)
		defer cancel()
	}
	u := *c.base
	u.Path += r.path
	u.RawQuery = r.query
	// What http.Client would fill in at the cost of another copy: each attempt
	// has headers of its own, and Host follows from the URL.
	req := http.Request{
		Method: r.op.method, URL: &u, Header: c.noHeader,
		Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
	}
	cl.run(ctx, req.WithContext(ctx))
	if cl.succeeded() {
		cl.report(ctx, nil)
		c.budget.give(max(1, cl.spent))
		return cl, nil
	}
	defer cl.release()
	err := cl.failure(ctx, r)
	cl.report(ctx, err)
	return nil, err
}

// succeeded reports whether there is a 2xx answer with a whole body. A delete
// needs no body.
func (cl *call) succeeded() bool {
	return cl.status >= 200 && cl.status < 300 && cl.err == nil
}

// RoundTrip makes one attempt. What it returns says no more than that the
// attempt is over; the truth is in cl.
func (cl *call) RoundTrip(outer *http.Request) (*http.Response, error) {
	start := time.Now()
	cl.attempts++
	cl.again = false
	cl.status, cl.header, cl.err, cl.tooLarge, cl.cut = 0, nil, nil, false, false
	// Whatever came before provably did nothing, or this attempt would not be.
	cl.began = false
	cl.proof.reset()
	cl.attempt(outer)
	cl.log(outer.Context(), start)
	return cl.c.over, nil
}

func (cl *call) attempt(outer *http.Request) {
	ctx := outer.Context()
	if cl.err = ctx.Err(); cl.err != nil {
		cl.attempts--
		return
	}
	if err := cl.takeToken(ctx); err != nil {
		cl.attempts--
		cl.err, cl.fatal = err, true
		return
	}
	ctx, cancel := context.WithTimeout(ctx, cl.timeout())
	defer cancel()
	rt := cl.c.reads
	if cl.op.replay != replayAlways {
		ctx = cl.proof.trace(ctx)
		rt = cl.c.writes
	} else if cl.cfg.fresh {
		rt = cl.c.writes
	}
	req := outer.WithContext(ctx)
	req.Header = cl.headers()
	if cl.body != nil {
		// GetBody stays nil, so that no transport can send the body twice.
		req.Body = io.NopCloser(bytes.NewReader(cl.body))
		req.ContentLength = int64(len(cl.body))
	}
	cl.began = true
	resp, err := rt.RoundTrip(req)
	switch {
	case err != nil:
	case resp == nil:
		err = errNoResponse
	case resp.StatusCode < 200:
		err = errBadStatus
		if resp.Body != nil {
			resp.Body.Close()
		}
	}
	if err != nil {
		cl.err = err
		if outerErr := outer.Context().Err(); outerErr != nil {
			cl.err = outerErr
		}
		return
	}
	if resp.Body == nil {
		resp.Body = http.NoBody
	}
	defer resp.Body.Close()
	cl.status, cl.header = resp.StatusCode, resp.Header
	if w, ok := cl.c.source.(witness); ok && cl.status >= 200 && cl.status < 300 {
		w.accepted(cl.token)
	}
	if cl.op.replay == replayProbed && cl.status >= 200 && cl.status < 300 {
		return // the status line is all that a delete needs
	}
	cl.read(resp)
	if cl.err != nil {
		if outerErr := outer.Context().Err(); outerErr != nil {
			cl.err = outerErr
		}
	}
}

// timeout is how long an attempt may take: longer where the provider was asked
// to hold its answer.
func (cl *call) timeout() time.Duration {
	d := cl.cfg.timeout
	if cl.c.most > 0 {
		d = min(d, cl.c.most)
	}
	if cl.op.await {
		d += cl.cfg.await
	}
	return d
}

// settleTime is how long a request that was given up may still have effects.
func (cl *call) settleTime() time.Duration {
	if cl.cfg.settle > 0 {
		return cl.cfg.settle
	}
	return max(minSettleTime, 2*cl.timeout())
}

// takeToken sets the token of the attempt.
func (cl *call) takeToken(ctx context.Context) error {
	cl.token, cl.next = cl.next, Secret{}
	if cl.token.IsZero() {
		token, err := cl.c.source.Token(ctx)
		if err != nil {
			return err
		}
		cl.token = token
	}
	if cl.token.IsZero() {
		return ErrNoToken
	}
	if bad := isHeaderSafe(cl.token.Reveal()); bad != "" {
		return &ParamError{Op: "client", Field: "token", Reason: "contains " + bad, Err: ErrInvalidToken}
	}
	cl.red.add(cl.token)
	return nil
}

func (cl *call) headers() http.Header {
	h := make(http.Header, len(cl.c.header)+len(cl.cfg.header)+3)
	maps.Copy(h, cl.c.header)
	maps.Copy(h, cl.cfg.header)
	h["Authorization"] = []string{cl.c.scheme + cl.token.Reveal()}
	if cl.body != nil {
		h["Content-Type"] = cl.c.jsonType
	}
	if cl.op.await && cl.cfg.await > 0 {
		h["Ricloud-Await"] = []string{itoa(int(cl.cfg.await / time.Second))}
	}
	return h
}

// read takes the whole body, up to the limit for its kind.
func (cl *call) read(resp *http.Response) {
	if cl.buf == nil {
		cl.buf = cl.c.pool.Get().(*bytes.Buffer)
	}
	cl.buf.Reset()
	limit := int64(maxResultBody)
	if cl.status >= 300 {
		limit = maxErrorBody
	}
	if resp.ContentLength > limit {
		cl.tooLarge = true
	} else if n := resp.ContentLength; n > 0 {
		cl.buf.Grow(int(n) + bytes.MinRead) // room to see the end without growing again
	}
	if !cl.tooLarge || cl.status >= 300 {
		err := readUpTo(cl.buf, resp.Body, limit+1)
		if int64(cl.buf.Len()) > limit {
			cl.buf.Truncate(int(limit))
			cl.tooLarge = true
		} else if cl.status < 300 {
			cl.err = err
		} else {
			cl.cut = err != nil // an error all the same, but who wrote it?
		}
	}
	if cl.tooLarge && cl.status < 300 {
		cl.err = ErrTooLarge
	}
}

// readUpTo reads at most n bytes. A body that turns out to be large gets all
// the room it may need at once, because doubling would need half as much again.
func readUpTo(buf *bytes.Buffer, r io.Reader, n int64) error {
	const small = 8 << 20
	first := min(n, small)
	_, err := buf.ReadFrom(&io.LimitedReader{R: r, N: first})
	if err != nil || n == first || int64(buf.Len()) < first {
		return err
	}
	buf.Grow(int(n-first) + bytes.MinRead)
	_, err = buf.ReadFrom(&io.LimitedReader{R: r, N: n - first})
	return err
}

// data is the body of the answer. It is valid until release.
func (cl *call) data() []byte {
	if cl.buf == nil {
		return nil
	}
	return cl.buf.Bytes()
}

// keepBuffers is the largest buffer that goes back to the pool.
const keepBuffers = 1 << 20

func (cl *call) release() {
	if cl.buf != nil && cl.buf.Cap() <= keepBuffers {
		clear(cl.buf.Bytes()) // it held a token
		cl.c.pool.Put(cl.buf)
	}
	cl.buf = nil
}

// unsent reports whether no attempt can have reached the provider: the
// transport went for a connection and got none. A transport that does not
// honour httptrace proves nothing.
func (cl *call) unsent() bool {
	return !cl.began || cl.proof.unsent(cl.c.traced)
}

// outcome says what became of the call, given that it failed.
func (cl *call) outcome() Outcome {
	switch {
	case cl.op.replay == replayAlways:
		if !cl.began || cl.status == 0 && notDialed(cl.err) {
			return NotSent
		}
		return Rejected
	case cl.status >= 200 && cl.status < 300:
		return ResultLost
	case cl.status == 0:
		if cl.unsent() {
			return NotSent
		}
		return Ambiguous
	case cl.cut, cl.status == http.StatusRequestTimeout, cl.status >= 500 && cl.status != http.StatusNotImplemented:
		return Ambiguous
	case cl.again:
		return NotSent // refused for now, and stopped while waiting
	}
	return Rejected
}

// failure builds the error of a call that did not succeed.
func (cl *call) failure(ctx context.Context, r *request) error {
	f := fate{outcome: cl.outcome()}
	if f.unknown() && r.probe != nil {
		f.recover = cl.recovery(r.probe)
	}
	c := cl.c
	if stopped := ctx.Err(); stopped != nil && (cl.again || cl.interrupted || cl.cut) {
		e := &TransportError{Provider: c.provider, Op: cl.op.name, Attempts: cl.attempts, fate: f, cause: stopped}
		e.ctx = contextCause(ctx)
		if cl.status >= 400 {
			e.last = cl.apiError(fate{outcome: f.outcome})
		}
		return e
	}
	switch {
	case cl.status >= 400:
		return cl.apiError(f)
	case cl.status >= 300:
		return cl.redirectError()
	case cl.status >= 200 && (cl.tooLarge || cl.op.replay != replayAlways):
		e := cl.decodeError(f, "", "a whole body", "one that was cut off")
		e.Err = sanitise(cl.err)
		if cl.tooLarge {
			e.Want, e.Got, e.Err = "a body of at most 32 MiB", "a larger one", ErrTooLarge
		}
		return e
	}
	if errors.Is(cl.err, ErrNoToken) || cl.fatal {
		return &TransportError{Provider: c.provider, Op: cl.op.name, Attempts: cl.attempts, fate: f, cause: tokenCause(cl.err)}
	}
	e := &TransportError{Provider: c.provider, Op: cl.op.name, Attempts: cl.attempts, fate: f, cause: sanitise(cl.err)}
	if ctx.Err() != nil {
		e.cause, e.ctx = ctx.Err(), contextCause(ctx)
	}
	return e
}

// tokenCause wraps what a token source said; its text is the source's own.
func tokenCause(err error) error {
	if s := sanitise(err); errors.As(s, new(*ConfigError)) || errors.As(s, new(*ParamError)) || errors.Is(s, ErrNoToken) {
		return s
	}
	return &causeError{"token source failed", err}
}

func contextCause(ctx context.Context) []error {
	if cause := context.Cause(ctx); cause != nil && cause != ctx.Err() { //nolint:errorlint // identity is the question
		return []error{cause}
	}
	return nil
}

func (cl *call) apiError(f fate) *APIError {
	e := &APIError{
		Provider: cl.c.provider, Op: cl.op.name, StatusCode: cl.status, Attempts: cl.attempts,
		Header: cl.red.header(cl.header), RequestID: cl.red.id(cl.header.Get("X-Request-Id")),
		fate: f, body: NewSecret(string(cl.data())),
	}
	e.RetryAfter, _ = retryAfter(cl.header, time.Now())
	parseAPIError(e, cl.data(), &cl.red)
	return e
}

func (cl *call) redirectError() *RedirectError {
	e := &RedirectError{Provider: cl.c.provider, Op: cl.op.name, StatusCode: cl.status, Attempts: cl.attempts}
	if target, err := url.Parse(cl.header.Get("Location")); err == nil {
		target = cl.c.base.ResolveReference(target)
		e.SameOrigin = target.Scheme == cl.c.base.Scheme && strings.EqualFold(target.Host, cl.c.base.Host)
	}
	return e
}

func (cl *call) decodeError(f fate, path, want, got string) *DecodeError {
	e := &DecodeError{
		Provider: cl.c.provider, Op: cl.op.name, StatusCode: cl.status,
		Path: path, Want: want, Got: got, fate: f,
	}
	if cl.op.replay != replayAlways {
		kept := cl.data()
		if cl.tooLarge {
			kept = kept[:min(len(kept), maxErrorBody)]
		}
		e.body = NewSecret(string(kept))
	}
	return e
}

// report fills the caller's Meta and logs a call that gave up.
func (cl *call) report(ctx context.Context, err error) {
	writes := cl.proof.written()
	id := cl.red.id(cl.header.Get("X-Request-Id"))
	var api *APIError
	if errors.As(err, &api) {
		id = api.RequestID // Ace Data sends it in the body
	}
	if m := cl.cfg.meta; m != nil {
		*m = Meta{
			StatusCode: cl.status, Header: cl.red.header(cl.header), Attempts: cl.attempts,
			RequestID: id, Writes: writes, Duration: time.Since(cl.started),
		}
	}
	if cl.c.log == nil {
		return
	}
	if writes > cl.attempts {
		cl.c.log.LogAttrs(ctx, slog.LevelError, "request was written more often than it was attempted; this is a bug",
			slog.String("provider", cl.c.provider), slog.String("op", cl.op.name), slog.Int("attempts", cl.attempts))
	}
	if err != nil && cl.c.log.Enabled(ctx, slog.LevelWarn) {
		cl.c.log.LogAttrs(ctx, slog.LevelWarn, "call failed",
			slog.String("provider", cl.c.provider), slog.String("op", cl.op.name), slog.Int("status", cl.status),
			slog.Int("attempts", cl.attempts), slog.Duration("duration", time.Since(cl.started)),
			slog.String("outcome", cl.outcome().String()), slog.String("request_id", id))
	}
}

func (cl *call) log(ctx context.Context, start time.Time) {
	if cl.c.log == nil || !cl.c.log.Enabled(ctx, slog.LevelDebug) {
		return
	}
	cl.c.log.LogAttrs(ctx, slog.LevelDebug, "attempt",
		slog.String("provider", cl.c.provider), slog.String("op", cl.op.name), slog.String("method", cl.op.method),
		slog.Int("status", cl.status), slog.Int("attempt", cl.attempts), slog.Duration("duration", time.Since(start)),
		slog.String("request_id", cl.red.id(cl.header.Get("X-Request-Id"))))
}
