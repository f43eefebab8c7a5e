package keywright

import (
	"context"
	"errors"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// Outcome says what became of a call at the provider.
type Outcome int

// The outcomes of a call.
const (
	// Applied: the provider answered 2xx and the answer was read.
	Applied Outcome = iota + 1
	// NotSent: no byte left the process. The call may be made again.
	NotSent
	// Rejected: the provider refused and changed nothing. A failed read is
	// NotSent or Rejected, because a read changes nothing.
	Rejected
	// ResultLost: the provider did it, but its answer is unreadable or lacks
	// the secret. Do not repeat the call; read the result back.
	ResultLost
	// Ambiguous: nobody can tell. Do not repeat the call; read back.
	Ambiguous
	// NotApplied is the verdict of a [Recovery] alone: the change is not there
	// and will not come any more.
	NotApplied
)

// String returns the outcome in words.
func (o Outcome) String() string {
	switch o {
	case Applied:
		return "applied"
	case NotSent:
		return "not sent"
	case Rejected:
		return "rejected"
	case ResultLost:
		return "result lost"
	case Ambiguous:
		return "ambiguous"
	case NotApplied:
		return "not applied"
	}
	return "Outcome(" + strconv.Itoa(int(o)) + ")"
}

// OutcomeOf returns what became of the call that returned err: [Applied] for
// nil, what the error says for an error of this package, and [Ambiguous], the
// only safe answer, for any other.
func OutcomeOf(err error) Outcome {
	if err == nil {
		return Applied
	}
	var o interface{ Outcome() Outcome }
	switch {
	case errors.As(err, &o):
		return o.Outcome()
	case errors.Is(err, ErrNotInitialized), errors.Is(err, ErrNoToken), errors.Is(err, ErrNoReadBack):
		return NotSent
	}
	return Ambiguous
}

// Classes of errors, for errors.Is.
var (
	// ErrUnauthorized: the provider does not accept the token.
	ErrUnauthorized = errors.New("keywright: unauthorized")
	// ErrForbidden: the token is good, but may not do this.
	ErrForbidden = errors.New("keywright: forbidden")
	// ErrNotFound: there is no such resource.
	ErrNotFound = errors.New("keywright: not found")
	// ErrInvalid: the provider refused a parameter or the body.
	ErrInvalid = errors.New("keywright: invalid request")
	// ErrDuplicate: the resource exists already.
	ErrDuplicate = errors.New("keywright: duplicate")
	// ErrConflict: the resource is in a state that forbids this.
	ErrConflict = errors.New("keywright: conflict")
	// ErrRateLimited: too many requests; see [APIError.RetryAfter].
	ErrRateLimited = errors.New("keywright: rate limited")
	// ErrServer: the provider failed.
	ErrServer = errors.New("keywright: server error")

	// ErrOutcomeUnknown matches every error whose outcome is [ResultLost] or
	// [Ambiguous].
	ErrOutcomeUnknown = errors.New("keywright: outcome unknown")
	// ErrNoReadBack is returned by Recover where no read-back exists.
	ErrNoReadBack = errors.New("keywright: this error has no read-back")

	// ErrNoToken: no token was given, and none was found where one may be.
	ErrNoToken = errors.New("keywright: no token")
	// ErrNotInitialized: a zero client or service was used; call NewRicloud
	// or NewAceData.
	ErrNotInitialized = errors.New("keywright: client not initialized")
	// ErrInvalidID: an id that no provider can have issued.
	ErrInvalidID = errors.New("keywright: invalid id")
	// ErrInvalidURL: a base URL or webhook URL that must not be used.
	ErrInvalidURL = errors.New("keywright: invalid URL")
	// ErrInvalidToken: text that cannot be a token.
	ErrInvalidToken = errors.New("keywright: invalid token")

	// ErrPaginationLoop: a list came back to where it had been.
	ErrPaginationLoop = errors.New("keywright: paging does not advance")
	// ErrTooLarge: an answer beyond the limits (32 MiB of body, 64 KiB of
	// headers).
	ErrTooLarge = errors.New("keywright: answer too large")
	// ErrTokenUnchanged: a rotation was answered with the token as it was.
	ErrTokenUnchanged = errors.New("keywright: token did not change")
	// ErrWrongResource: the answer is about another resource than was asked for.
	ErrWrongResource = errors.New("keywright: answer is for another resource")
)

// fate is what every error of a call carries: its outcome, and the read-back
// that finds out more.
type fate struct {
	outcome Outcome
	recover func(context.Context) (*Recovery, error)
}

func (f *fate) unknown() bool { return f.outcome == ResultLost || f.outcome == Ambiguous }

func (f *fate) readBack(ctx context.Context) (*Recovery, error) {
	if f.recover == nil || !f.unknown() {
		return nil, ErrNoReadBack
	}
	return f.recover(ctx)
}

// APIError is any answer with a status of 400 or more, whatever its body.
type APIError struct {
	Provider   string              // "ricloud" or "acedata"
	Op         string              // "key.rotate"
	StatusCode int                 // HTTP status
	Code       string              // the provider's own code, "missing-scope"; may be empty
	Message    string              // the provider's text, tokens removed; may be empty
	Fields     map[string][]string // messages by parameter, for a refused request
	RequestID  string              // trace_id or X-Request-Id; may be empty
	RetryAfter time.Duration       // how long the provider asked to wait; 0 if it did not
	Attempts   int                 // requests made, this answer's included
	Header     http.Header         // the harmless headers of the answer, tokens removed

	fate fate
	body Secret
}

// Error returns one line without URL, body or secret.
func (e *APIError) Error() string {
	var b strings.Builder
	b.WriteString(prefix(e.Provider, e.Op))
	b.WriteString(strconv.Itoa(e.StatusCode))
	if e.Code != "" {
		b.WriteString(" " + e.Code)
	} else if text := http.StatusText(e.StatusCode); text != "" {
		b.WriteString(" " + strings.ToLower(text))
	}
	if e.Message != "" {
		b.WriteString(": " + strconv.QuoteToASCII(shorten(e.Message, maxMessage)))
	}
	if e.fate.unknown() {
		b.WriteString(" (outcome unknown)")
	}
	if e.RequestID != "" {
		b.WriteString(" (request " + e.RequestID + ")")
	}
	return b.String()
}

// Outcome returns what became of the call.
func (e *APIError) Outcome() Outcome { return e.fate.outcome }

// Recover reads back what a call with an unknown outcome did; see [Recovery].
func (e *APIError) Recover(ctx context.Context) (*Recovery, error) { return e.fate.readBack(ctx) }

// Body returns up to 1 MiB of the answer's body as it arrived. It may hold
// whatever the server echoed: do not log it.
func (e *APIError) Body() []byte { return []byte(e.body.Reveal()) }

// Is matches the Err… classes: below 500 by the provider's code first, and then
// by status.
func (e *APIError) Is(target error) bool {
	if target == ErrOutcomeUnknown {
		return e.fate.unknown()
	}
	return target == e.class() || target == ErrConflict && e.StatusCode == http.StatusConflict
}

func (e *APIError) class() error {
	code := e.Code
	if e.StatusCode >= 500 {
		code = "" // whoever fails does not know what it says
	}
	switch code {
	case "duplication":
		return ErrDuplicate
	case "not_authenticated", "authentication_failed", "unauthorized", "invalid_token", "token_expired":
		return ErrUnauthorized
	case "permission_denied", "need_verify", "missing-scope", "limit-exceeded":
		return ErrForbidden
	case "not_found", "not-found":
		return ErrNotFound
	case "throttled", "rate-limited", "rate_limited", "too_many_requests", "usage_query_in_progress":
		return ErrRateLimited
	case "invalid", "parse_error", "invalid-body", "invalid-parameter":
		return ErrInvalid
	}
	switch s := e.StatusCode; {
	case s == http.StatusUnauthorized:
		return ErrUnauthorized
	case s == http.StatusForbidden:
		return ErrForbidden
	case s == http.StatusNotFound:
		return ErrNotFound
	case s == http.StatusConflict:
		return ErrConflict
	case s == http.StatusTooManyRequests:
		return ErrRateLimited
	case s == http.StatusBadRequest, s == http.StatusRequestEntityTooLarge,
		s == http.StatusUnsupportedMediaType, s == http.StatusUnprocessableEntity:
		return ErrInvalid
	case s >= 500:
		return ErrServer
	}
	return nil
}

// TransportError is a call that got no usable answer: the connection could not
// be made or broke, or the context ended.
type TransportError struct {
	Provider string // "ricloud" or "acedata"
	Op       string // "key.rotate"
	Attempts int    // requests made; 0 if the call ended before the first

	fate  fate
	cause error // sanitised: its text names the kind of failure, not the peer's words
	ctx   []error
	last  error // the last answer before a context ended
}

// Error returns one line without URL, address or secret.
func (e *TransportError) Error() string {
	text := prefix(e.Provider, e.Op)
	if e.fate.unknown() {
		text += "outcome unknown: "
	}
	text += e.cause.Error()
	if e.Attempts > 1 {
		text += " (after " + strconv.Itoa(e.Attempts) + " attempts)"
	}
	return text
}

// Outcome returns what became of the call.
func (e *TransportError) Outcome() Outcome { return e.fate.outcome }

// Recover reads back what a call with an unknown outcome did; see [Recovery].
func (e *TransportError) Recover(ctx context.Context) (*Recovery, error) {
	return e.fate.readBack(ctx)
}

// Is matches [ErrOutcomeUnknown].
func (e *TransportError) Is(target error) bool {
	return target == ErrOutcomeUnknown && e.fate.unknown()
}

// Unwrap returns the sanitised cause, what ended the context, and the last
// answer before it ended, so that errors.Is(err, context.Canceled) and
// errors.As(err, &apiError) both hold for a call cancelled between attempts.
func (e *TransportError) Unwrap() []error {
	out := append([]error{e.cause}, e.ctx...)
	if e.last != nil {
		out = append(out, e.last)
	}
	return out
}

// DecodeError is a 2xx answer that is not what it should be. For a create or
// a rotate its outcome is [ResultLost], and what arrived is kept.
type DecodeError struct {
	Provider   string // "ricloud" or "acedata"
	Op         string // "key.rotate"
	StatusCode int    // HTTP status
	Path       string // where in the body, "data[3].token"; empty for the whole
	Want       string // what should be there, "a whole number"
	Got        string // what is there instead; never a value
	Orphan     Secret // a usable new secret found in an answer that had to be refused
	Err        error  // ErrTooLarge, ErrTokenUnchanged, ErrWrongResource, ErrPaginationLoop, or nil

	fate fate
	body Secret
}

// Error returns one line without any value from the body.
func (e *DecodeError) Error() string {
	text := prefix(e.Provider, e.Op)
	if e.Path != "" {
		text += e.Path + ": "
	}
	text += "want " + e.Want + ", got " + e.Got
	if e.fate.outcome == ResultLost {
		text += "; the change took effect, its result is lost"
	}
	return text
}

// Outcome returns what became of the call.
func (e *DecodeError) Outcome() Outcome { return e.fate.outcome }

// Recover reads back what a call with an unknown outcome did; see [Recovery].
func (e *DecodeError) Recover(ctx context.Context) (*Recovery, error) { return e.fate.readBack(ctx) }

// Body returns what arrived, up to the limit of 32 MiB.
func (e *DecodeError) Body() Secret { return e.body }

// Is matches [ErrOutcomeUnknown].
func (e *DecodeError) Is(target error) bool {
	return target == ErrOutcomeUnknown && e.fate.unknown()
}

// Unwrap returns Err.
func (e *DecodeError) Unwrap() error { return e.Err }

// RedirectError is a 3xx answer. Redirects are never followed: they would
// carry the token elsewhere, or turn a POST into a GET. Its outcome is
// [Rejected].
type RedirectError struct {
	Provider   string // "ricloud" or "acedata"
	Op         string // "key.rotate"
	StatusCode int    // HTTP status
	SameOrigin bool   // the target has the base URL's scheme, host and port
	Attempts   int    // requests made
}

// Error returns one line; the target is not shown.
func (e *RedirectError) Error() string {
	where := "to another origin"
	if e.SameOrigin {
		where = "within the origin"
	}
	return prefix(e.Provider, e.Op) + "answered with a redirect (" + strconv.Itoa(e.StatusCode) + ") " + where + "; not followed"
}

// Outcome returns [Rejected].
func (e *RedirectError) Outcome() Outcome { return Rejected }

// ParamError is a call that was refused before any I/O.
type ParamError struct {
	Op     string // "key.update"; "client" for an option
	Field  string // the parameter, as the provider names it: "allowed_api_ids[1]"
	Reason string // the rule it breaks; never its value
	Err    error  // ErrInvalidID, ErrInvalidURL, ErrInvalidToken, or nil
}

// Error returns one line.
func (e *ParamError) Error() string {
	return "keywright: " + e.Op + ": " + e.Field + ": " + e.Reason
}

// Outcome returns [NotSent].
func (e *ParamError) Outcome() Outcome { return NotSent }

// Unwrap returns Err.
func (e *ParamError) Unwrap() error { return e.Err }

// ConfigError is a setting, from a file or the environment, that cannot be
// used.
type ConfigError struct {
	Source string // the variable, or the file
	Line   int    // line in the file, from 1; 0 if it is not about one
	Reason string // what is wrong; never the value of a secret
	Err    error  // ErrNoToken, ErrInvalidToken, ErrInvalidURL, an error of package io/fs, or nil
}

// Error returns one line.
func (e *ConfigError) Error() string {
	at := e.Source
	if e.Line > 0 {
		at += ":" + strconv.Itoa(e.Line)
	}
	return "keywright: " + at + ": " + e.Reason
}

// Outcome returns [NotSent].
func (e *ConfigError) Outcome() Outcome { return NotSent }

// Unwrap returns Err.
func (e *ConfigError) Unwrap() error { return e.Err }

func prefix(provider, op string) string { return "keywright: " + provider + " " + op + ": " }
