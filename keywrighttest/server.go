package keywrighttest

import (
	"context"
	"crypto/rand"
	"embed"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"
)

//go:embed fixtures
var fixtures embed.FS

// Fixture returns a golden JSON document, such as "ricloud/key.json". It
// panics for one that does not exist.
func Fixture(name string) []byte {
	b, err := fixtures.ReadFile("fixtures/" + name)
	if err != nil {
		panic("keywrighttest: no fixture " + name)
	}
	return b
}

// object is a resource as the provider would send it.
type object map[string]any

// template returns a fresh object from a fixture.
func template(name string) object {
	var o object
	if err := json.Unmarshal(Fixture(name), &o); err != nil {
		panic("keywrighttest: fixture " + name + ": " + err.Error())
	}
	return o
}

func (o object) clone() object {
	c := make(object, len(o))
	maps.Copy(c, o)
	return c
}

func (o object) text(name string) string {
	s, _ := o[name].(string)
	return s
}

// TB is the part of testing.TB that the fakes need.
type TB interface {
	Helper()
	Cleanup(func())
	Fatalf(format string, args ...any)
}

// Request is a request that a fake has received.
type Request struct {
	Op     string      // operation, such as "key.rotate"; empty if there is none at this path
	Method string      // HTTP method
	Path   string      // escaped path, without the query
	Query  url.Values  // decoded query
	Header http.Header // without Authorization
	Body   []byte      // as it arrived
	Scheme string      // scheme of the Authorization header, "Token"
	Auth   bool        // the token was accepted
}

// server is what both fakes are made of.
type server struct {
	mu       sync.Mutex
	clock    *Clock
	faults   []*Fault
	requests []*Request
	applied  map[string]int
	opts     options

	listener net.Listener
	http     *http.Server
	work     sync.WaitGroup  // tasks and deliveries under way
	ctx      context.Context // ended by Close
	cancel   context.CancelFunc
	handler  func(r *Request, id, token string) (a answer, changed bool)
	route    func(method, path string) (op, id string)
}

// answer is a response to be sent.
type answer struct {
	status int
	header http.Header
	body   []byte
}

func (a *answer) head(w http.ResponseWriter) {
	maps.Copy(w.Header(), a.header)
	w.WriteHeader(a.status)
}

func (a *answer) write(w http.ResponseWriter) {
	a.head(w)
	_, _ = w.Write(a.body)
}

func reply(status int, v any) answer {
	b, err := json.Marshal(v)
	if err != nil {
		panic("keywrighttest: " + err.Error())
	}
	return answer{status: status, header: http.Header{"Content-Type": {"application/json"}}, body: b}
}

// maxBody bounds a request's body.
const maxBody = 8 << 20

// ServeHTTP answers a request as the provider would. The fake is an
// [http.Handler] so that it can also be put behind a server of one's own, for
// TLS or HTTP/2.
func (s *server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(io.LimitReader(r.Body, maxBody))
	if err != nil {
		panic(http.ErrAbortHandler) // the client went away in the middle
	}
	scheme, token, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	op, id := s.route(r.Method, r.URL.Path)
	req := &Request{
		Op: op, Method: r.Method, Path: r.URL.EscapedPath(), Query: r.URL.Query(),
		Header: r.Header.Clone(), Body: body, Scheme: scheme,
	}
	req.Header.Del("Authorization")
	w, over := s.observe(w, req)
	defer over()
	fault := s.takeFault(op)
	handle := func() answer {
		a, changed := s.handler(req, id, token)
		if changed {
			s.mu.Lock()
			s.applied[op]++
			s.mu.Unlock()
		}
		a.header.Set("Date", s.clock.Now().Format(http.TimeFormat))
		return a
	}
	s.mu.Lock()
	s.requests = append(s.requests, req)
	s.mu.Unlock()
	switch {
	case fault == nil:
		a := handle()
		a.write(w)
	case fault.Do == Twice:
		a := handle()
		handle()
		fault.perform(w, r, a)
	case fault.When == AfterApply, fault.Do == Slow && fault.When == BeforeApply:
		fault.perform(w, r, handle())
	case fault.When == LateApply:
		s.work.Go(func() {
			if wait(s.ctx, fault.Delay) {
				handle()
			}
		})
		fault.perform(w, r, reply(http.StatusOK, object{}))
	default:
		a := reply(http.StatusOK, object{})
		a.header.Set("Date", s.clock.Now().Format(http.TimeFormat))
		fault.perform(w, r, a)
	}
}

// start listens on loopback.
func (s *server) start() error {
	text := s.opts.address
	if port, ok := strings.CutPrefix(text, "localhost:"); ok {
		text = "127.0.0.1:" + port
	}
	addr, err := netip.ParseAddrPort(text)
	if err != nil || !addr.Addr().Unmap().IsLoopback() || addr.Addr().Zone() != "" {
		return fmt.Errorf("keywrighttest: address %q: want one on loopback, such as 127.0.0.1:8080", s.opts.address)
	}
	l, err := net.Listen("tcp", addr.String())
	if err != nil {
		return fmt.Errorf("keywrighttest: %w", err)
	}
	s.listener = l
	s.http = &http.Server{Handler: s, ReadHeaderTimeout: 30 * time.Second}
	go func() { _ = s.http.Serve(l) }()
	return nil
}

// URL returns the fake's base URL.
func (s *server) URL() string { return "http://" + s.listener.Addr().String() }

// Close stops the fake and breaks its connections. Events that are still to be
// delivered stay pending.
func (s *server) Close() {
	s.mu.Lock() // no delivery begins after this
	s.cancel()
	s.mu.Unlock()
	_ = s.http.Close()
	_ = s.listener.Close() // a server that has not begun to serve does not know it
	s.work.Wait()
}

// Requests returns the requests received so far, in order.
func (s *server) Requests() []Request {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := make([]Request, len(s.requests))
	for i, r := range s.requests {
		out[i] = *r
	}
	return out
}

// Count returns how many requests of an operation were received.
func (s *server) Count(op string) int {
	n := 0
	for _, r := range s.Requests() {
		if r.Op == op {
			n++
		}
	}
	return n
}

// Applied returns how often an operation changed something.
func (s *server) Applied(op string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.applied[op]
}

// Forget drops the record of requests and of applied changes.
func (s *server) Forget() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.requests, s.applied = nil, make(map[string]int)
}

// Clock returns the fake's clock.
func (s *server) Clock() *Clock { return s.clock }

// now is the fake's time as the providers write it, six digits of fraction.
func (s *server) stamp() string { return stampOf(s.clock.Now()) }

func stampOf(t time.Time) string { return t.UTC().Format("2006-01-02T15:04:05.000000Z") }

func randomHex(n int) string {
	b := make([]byte, n/2)
	_, _ = rand.Read(b) // never fails
	return hex.EncodeToString(b)
}

func newUUID() string {
	h := randomHex(32)
	return h[:8] + "-" + h[8:12] + "-4" + h[13:16] + "-8" + h[17:20] + "-" + h[20:]
}

// decodeBody reads a request's body; an empty one, null and {} are alike.
func decodeBody(b []byte) (object, bool) {
	if strings.TrimSpace(string(b)) == "" {
		return object{}, true
	}
	var o object
	if json.Unmarshal(b, &o) != nil {
		return nil, false
	}
	if o == nil {
		o = object{}
	}
	return o, true
}

// number reads a query parameter, def if it is absent or no number.
func number(q url.Values, name string, def int) int {
	n, err := strconv.Atoi(q.Get(name))
	if err != nil {
		return def
	}
	return n
}

// Option chooses how a fake behaves.
type Option func(*options)

type options struct {
	address         string
	clock           *Clock
	inclusive       bool
	deleteEmpty     bool
	manyGraced      bool
	noRotate        int
	older           bool
	nested          bool
	textIDs         bool
	masked          bool
	results         bool
	maxLimit        int
	noNulls         bool
	forbidInactive  bool
	superuser       bool
	meRefused       bool
	testResult      func(config map[string]any) string
	testDelay       time.Duration
	lag             time.Duration
	requireWebhooks bool
	deliveryDelays  []time.Duration
	observer        func(r Request, status int)
	firstToken      string
}

// WithAddress makes the fake listen on addr, such as "127.0.0.1:8080". Port 0
// is one that is free, which is the default. The host is an IP address of
// loopback, or localhost, which is 127.0.0.1; anything else is an error of
// [NewRicloud] or [NewAceData], and so is an address that is in use.
func WithAddress(addr string) Option { return func(o *options) { o.address = addr } }

// WithFirstToken sets the token that is there at the start, which else is
// random: that of ricloud's key 1, or the platform token of Ace Data's user.
func WithFirstToken(token string) Option { return func(o *options) { o.firstToken = token } }

// WithClock gives the fake a clock that the test can move.
func WithClock(c *Clock) Option { return func(o *options) { o.clock = c } }

// WithInclusiveCursor makes ricloud's after_id name the first item of a page,
// not the one before it.
func WithInclusiveCursor() Option { return func(o *options) { o.inclusive = true } }

// WithEmptyDelete makes ricloud answer a delete with 204 and no body, not with
// 200 and the resource.
func WithEmptyDelete() Option { return func(o *options) { o.deleteEmpty = true } }

// WithManyGraceTokens keeps every old token of a ricloud key for its six
// hours; else a second rotation cancels the first one's.
func WithManyGraceTokens() Option { return func(o *options) { o.manyGraced = true } }

// WithoutRotate makes Ace Data answer a rotation with status, 404 or 405.
func WithoutRotate(status int) Option { return func(o *options) { o.noRotate = status } }

// WithOlderShapes makes ricloud send what older versions of it sent: no
// config, and plain arrays for nested lists.
func WithOlderShapes() Option { return func(o *options) { o.older = true } }

// WithNestedReferences makes ricloud send whole configs where it else sends
// their ids.
func WithNestedReferences() Option { return func(o *options) { o.nested = true } }

// WithTextIDs makes ricloud send its numeric ids as strings.
func WithTextIDs() Option { return func(o *options) { o.textIDs = true } }

// WithMaskedTokens makes reads show masks in place of secrets; creates and
// rotations still show them.
func WithMaskedTokens() Option { return func(o *options) { o.masked = true } }

// WithResults makes Ace Data call the items of a list "results".
func WithResults() Option { return func(o *options) { o.results = true } }

// WithMaxLimit caps the page size below what the provider documents.
func WithMaxLimit(n int) Option { return func(o *options) { o.maxLimit = n } }

// WithNullsRefused makes Ace Data refuse null for limited_amount, expired_at
// and host in a create.
func WithNullsRefused() Option { return func(o *options) { o.noNulls = true } }

// WithInactiveForbidden makes ricloud answer 403, not 401, to keys that are
// not active.
func WithInactiveForbidden() Option { return func(o *options) { o.forbidInactive = true } }

// WithSuperuser lets Ace Data's user see everybody's objects.
func WithSuperuser() Option { return func(o *options) { o.superuser = true } }

// WithMeRefused makes Ace Data answer 400, not an empty list, to user_id=me
// where it does not know that name: on lists of credentials.
func WithMeRefused() Option { return func(o *options) { o.meRefused = true } }

// WithTestResult decides config tests: result returns "" for success, or an
// error code. By default storage tests succeed if the credentials are
// complete, and webhook tests if the target answers 2xx; a target that is not
// on loopback is not called, and passes.
func WithTestResult(result func(config map[string]any) string) Option {
	return func(o *options) { o.testResult = result }
}

// WithTestDelay makes config tests take d.
func WithTestDelay(d time.Duration) Option { return func(o *options) { o.testDelay = d } }

// WithLag makes a new token be refused where tokens are used, for d after it
// was issued.
func WithLag(d time.Duration) Option { return func(o *options) { o.lag = d } }

// WithWebhookRequired keeps a ricloud organisation unconfigured until it has a
// valid webhook config as well.
func WithWebhookRequired() Option { return func(o *options) { o.requireWebhooks = true } }

func newServer(opts []Option) *server {
	s := &server{applied: make(map[string]int), opts: options{address: "127.0.0.1:0"}}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	for _, o := range opts {
		o(&s.opts)
	}
	if s.clock = s.opts.clock; s.clock == nil {
		s.clock = new(Clock)
	}
	return s
}
