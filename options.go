package keywright

import (
	"context"
	"log/slog"
	"maps"
	"net/http"
	"reflect"
	"strings"
	"time"
	"unicode"
)

// Option configures a client; pass it to [NewRicloud] or [NewAceData].
type Option interface{ applyClient(*config) error }

// CallOption configures one call.
type CallOption interface{ applyCall(*callConfig) error }

// SharedOption suits a client, as the default of its calls, and a single call.
type SharedOption interface {
	Option
	CallOption
}

// config is what the options of a client say.
type config struct {
	source        TokenSource
	baseURL       string
	httpClient    *http.Client
	logger        *slog.Logger
	middleware    []func(http.RoundTripper) http.RoundTripper
	userAgent     string
	configFile    string
	noEnvironment bool
	call          callConfig // defaults of every call
}

// callConfig is what the options of a call say.
type callConfig struct {
	retry     RetryPolicy
	retrySet  bool
	timeout   time.Duration // of an attempt
	total     time.Duration // of the call
	settle    time.Duration // 0: derived from the time-out
	await     time.Duration
	awaitSet  bool
	meta      *Meta
	header    http.Header
	prefetch  bool
	parallel  int
	anyHolder bool
	fresh     bool
	existing  map[madeID]struct{}
}

type (
	clientOption func(*config) error
	callOption   func(*callConfig) error
)

func (f clientOption) applyClient(c *config) error   { return f(c) }
func (f callOption) applyCall(c *callConfig) error   { return f(c) }
func (f sharedOption) applyClient(c *config) error   { return f(&c.call) }
func (f sharedOption) applyCall(c *callConfig) error { return f(c) }

type sharedOption func(*callConfig) error

func optionError(field, reason string) error {
	return &ParamError{Op: "client", Field: field, Reason: reason}
}

// WithToken sets the token. It goes before the environment and files.
func WithToken(token string) Option {
	return clientOption(func(c *config) error {
		if reason := tokenProblem(token); reason != "" {
			return &ParamError{Op: "client", Field: "token", Reason: reason, Err: ErrInvalidToken}
		}
		return WithTokenSource(StaticToken(NewSecret(token))).applyClient(c)
	})
}

// WithTokenSource sets where the token of each attempt comes from.
func WithTokenSource(s TokenSource) Option {
	return clientOption(func(c *config) error {
		if isNil(s) {
			return optionError("token source", "must not be nil")
		}
		if c.source != nil {
			return optionError("token", "given twice")
		}
		c.source = s
		return nil
	})
}

// WithBaseURL sets the API's base URL: absolute https, or http to a loopback
// host. A path prefix and a trailing slash are allowed; user info, query and
// fragment are not.
func WithBaseURL(raw string) Option {
	return clientOption(func(c *config) error {
		if raw == "" {
			return &ParamError{Op: "client", Field: "base URL", Reason: "must not be empty", Err: ErrInvalidURL}
		}
		c.baseURL = raw
		return nil
	})
}

// WithHTTPClient sends through the transport of hc, which is copied and never
// changed; hc.Timeout bounds each attempt. Its cookie jar and redirect policy
// are not used. Calls that change something are safe on any transport of
// net/http, HTTP/2 included, but only the SDK's own gives each of them a fresh
// connection.
func WithHTTPClient(hc *http.Client) Option {
	return clientOption(func(c *config) error {
		if hc == nil {
			return optionError("HTTP client", "must not be nil")
		}
		own := *hc
		c.httpClient = &own
		return nil
	})
}

// WithLogger logs one line per attempt at Debug, one per call that gave up at
// Warn. The attributes are provider, op, method, status, attempt, attempts,
// duration, outcome and request_id; never a URL, a body or a token.
func WithLogger(l *slog.Logger) Option {
	return clientOption(func(c *config) error {
		if l == nil {
			return optionError("logger", "must not be nil")
		}
		c.logger = l
		return nil
	})
}

// WithMiddleware wraps the transport, inside the retry loop: it sees every
// attempt, Authorization header included. The first one given is outermost.
func WithMiddleware(m func(http.RoundTripper) http.RoundTripper) Option {
	return clientOption(func(c *config) error {
		if m == nil {
			return optionError("middleware", "must not be nil")
		}
		c.middleware = append(c.middleware, m)
		return nil
	})
}

// WithUserAgent appends product, such as "rotator/1.2", to the SDK's own
// User-Agent.
func WithUserAgent(product string) Option {
	return clientOption(func(c *config) error {
		for _, r := range product {
			if r > unicode.MaxASCII || !unicode.IsPrint(r) {
				return optionError("user agent", "must be printable ASCII")
			}
		}
		c.userAgent = strings.TrimSpace(product)
		return nil
	})
}

// WithConfigFile reads the file at path in place of the one that RICLOUD_CONF
// names and of ~/.ricloud.ini. It must exist. For ricloud only.
func WithConfigFile(path string) Option {
	return clientOption(func(c *config) error {
		if path == "" {
			return optionError("config file", "must not be empty")
		}
		c.configFile = path
		return nil
	})
}

// WithoutEnvironment ignores the environment variables of the providers and
// ~/.ricloud.ini: only options, and a file given by [WithConfigFile], count.
func WithoutEnvironment() Option {
	return clientOption(func(c *config) error {
		c.noEnvironment = true
		return nil
	})
}

// WithRetry sets when and how often a call is sent again.
func WithRetry(p RetryPolicy) SharedOption {
	return sharedOption(func(c *callConfig) error {
		c.retry, c.retrySet = p.withDefaults(), true
		return p.validate()
	})
}

// WithTimeout bounds each attempt, its answer's body included; the default is
// 30 seconds.
func WithTimeout(d time.Duration) SharedOption {
	return sharedOption(func(c *callConfig) error {
		if d <= 0 {
			return optionError("timeout", "must be greater than 0")
		}
		c.timeout = d
		return nil
	})
}

// WithSettleTime sets how long a change whose answer was lost may still take
// effect at the provider: until then, its absence proves nothing. The default is
// 60 seconds, or twice the time-out if that is longer. A shorter time is for
// tests against a provider that is known to be quick.
func WithSettleTime(d time.Duration) SharedOption {
	return sharedOption(func(c *callConfig) error {
		if d <= 0 {
			return optionError("settle time", "must be greater than 0")
		}
		c.settle = d
		return nil
	})
}

// WithCallTimeout bounds the whole call: all attempts and the waits between
// them. There is no bound by default but the context's. It bounds each page of
// an iteration and each look of a Wait, not the whole; give those a context.
func WithCallTimeout(d time.Duration) SharedOption {
	return sharedOption(func(c *callConfig) error {
		if d <= 0 {
			return optionError("call timeout", "must be greater than 0")
		}
		c.total = d
		return nil
	})
}

const maxAwaitSeconds = 10

// WithAwait asks ricloud to hold the answer of a config test until the task is
// done, for at most d: whole seconds, 1 to 10, sent as Ricloud-Await. Calls
// that ricloud does not hold refuse it.
func WithAwait(d time.Duration) CallOption {
	return callOption(func(c *callConfig) error {
		switch {
		case d < time.Second || d > maxAwaitSeconds*time.Second:
			return &ParamError{Op: "call", Field: "await", Reason: "must be between 1s and 10s"}
		case d%time.Second != 0:
			return &ParamError{Op: "call", Field: "await", Reason: "must be whole seconds"}
		}
		c.await, c.awaitSet = d, true
		return nil
	})
}

// WithMeta fills m when the call ends, whether it succeeds or fails. For a
// list it describes the latest page.
func WithMeta(m *Meta) CallOption {
	return callOption(func(c *callConfig) error {
		if m == nil {
			return &ParamError{Op: "call", Field: "meta", Reason: "must not be nil"}
		}
		c.meta = m
		return nil
	})
}

// WithHeader adds a header to the request. Headers that the SDK sets, that
// frame the message, or that make net/http send a request again are refused.
func WithHeader(name, value string) SharedOption {
	return sharedOption(func(c *callConfig) error {
		name := http.CanonicalHeaderKey(name)
		switch name {
		case "Authorization", "Proxy-Authorization", "Cookie", "Host", "Content-Length", "Content-Type",
			"Content-Encoding", "Transfer-Encoding", "Connection", "Te", "Trailer", "Upgrade", "Expect", "Accept-Encoding",
			"User-Agent", "Ricloud-Await", "Idempotency-Key", "X-Idempotency-Key":
			return &ParamError{Op: "call", Field: "header", Reason: name + " cannot be set"}
		}
		for i := range len(name) {
			if c := name[i]; c <= ' ' || c > '~' || strings.IndexByte(`"(),/:;<=>?@[\]{}`, c) >= 0 {
				return &ParamError{Op: "call", Field: "header", Reason: "name is not a token"}
			}
		}
		if name == "" {
			return &ParamError{Op: "call", Field: "header", Reason: "name must not be empty"}
		}
		for i := range len(value) {
			if b := value[i]; b < ' ' && b != '\t' || b == 0x7f {
				return &ParamError{Op: "call", Field: "header", Reason: "value contains control byte 0x" + hexByte(b)}
			}
		}
		c.header = c.header.Clone()
		if c.header == nil {
			c.header = make(http.Header)
		}
		c.header.Set(name, value)
		return nil
	})
}

// WithPrefetch makes All ask for the next page before the current one is
// decoded and yielded. One page is held beside the current one.
func WithPrefetch() CallOption {
	return callOption(func(c *callConfig) error {
		c.prefetch = true
		return nil
	})
}

// WithParallel makes All keep n pages in flight, in order, where pages are
// asked for by offset: the lists of Ace Data Cloud. Lists by cursor refuse it.
func WithParallel(n int) CallOption {
	return callOption(func(c *callConfig) error {
		if n < 1 || n > 32 {
			return &ParamError{Op: "call", Field: "parallel", Reason: "must be between 1 and 32"}
		}
		c.parallel = n
		return nil
	})
}

// WithAnyHolder keeps a list of Ace Data Cloud from being narrowed to the
// caller's own user_id. For superusers: to anybody else one row of another
// user fails the whole list with 403.
func WithAnyHolder() CallOption {
	return callOption(func(c *callConfig) error {
		c.anyHolder = true
		return nil
	})
}

// WithFreshConnection makes a read use a connection of its own, as calls that
// change something always do: it may meet another of the provider's frontends.
// With [WithHTTPClient] the caller's transport decides.
func WithFreshConnection() CallOption {
	return callOption(func(c *callConfig) error {
		c.fresh = true
		return nil
	})
}

// WithExisting tells a create which resources were there before it, such as the
// items of a page: Recover then takes none of them for what the create has made.
// A client knows without it what its own creates have made, and nothing of what
// was made by other programs, or by an earlier run of this one. The resources are
// pointers that calls have returned, such as *Key.
func WithExisting[T any](resources ...*T) CallOption {
	return callOption(func(c *callConfig) error {
		known := maps.Clone(c.existing)
		if known == nil {
			known = make(map[madeID]struct{}, len(resources))
		}
		for _, r := range resources {
			v, ok := any(r).(interface {
				ident() ident
				kind() string
			})
			if !ok {
				return &ParamError{Op: "call", Field: "existing", Reason: "must be resources, such as *Key"}
			}
			if r == nil {
				return &ParamError{Op: "call", Field: "existing", Reason: "must not be nil"}
			}
			known[madeID{v.kind(), v.ident()}] = struct{}{}
		}
		c.existing = known
		return nil
	})
}

// Meta describes the answer to a call.
type Meta struct {
	StatusCode int           // HTTP status of the last answer; 0 without one
	Header     http.Header   // its harmless headers, tokens removed
	RequestID  string        // X-Request-Id, or the trace_id of an error
	Attempts   int           // attempts made
	Writes     int           // requests written to a connection, counted for calls that change something
	Duration   time.Duration // of the whole call, waits included
}

// isNil reports whether an interface holds nothing or a nil pointer.
func isNil(v any) bool {
	if v == nil {
		return true
	}
	switch r := reflect.ValueOf(v); r.Kind() {
	case reflect.Pointer, reflect.Func, reflect.Map, reflect.Chan, reflect.Interface, reflect.Slice:
		return r.IsNil()
	}
	return false
}

// callOptions resolves the options of a call over the client's defaults.
func (c *client) callOptions(ctx context.Context, op *operation, opts []CallOption) (callConfig, error) {
	if ctx == nil {
		return callConfig{}, &ParamError{Op: op.name, Field: "context", Reason: "must not be nil"}
	}
	if len(opts) == 0 {
		return c.defaults, nil
	}
	cfg := c.defaults
	for i, o := range opts {
		if isNil(o) {
			return cfg, &ParamError{Op: op.name, Field: "option " + itoa(i+1), Reason: "is nil"}
		}
		if err := o.applyCall(&cfg); err != nil {
			return cfg, err
		}
	}
	if cfg.awaitSet && !op.await {
		return cfg, &ParamError{Op: op.name, Field: "await", Reason: "only config tests are held"}
	}
	return cfg, nil
}
