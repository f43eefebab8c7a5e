package rotation_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httptrace"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/keywright/keywright"
	"github.com/keywright/keywright/internal/durable/memfs"
	"github.com/keywright/keywright/keywrighttest"
	"github.com/keywright/keywright/rotation"
	"github.com/keywright/keywright/rotation/sink"
)

// strategyName chooses what a world rotates.
type strategyName string

const (
	paired  strategyName = "paired"
	overlap strategyName = "overlap"
	swap    strategyName = "swap"
	inPlace strategyName = "in place"
)

var strategies = []strategyName{paired, overlap, swap, inPlace}

// issues is the operation by which a strategy gets a new token.
func (s strategyName) issues() string {
	return map[strategyName]string{paired: "key.rotate", overlap: "key.rotate", swap: "credential.create", inPlace: "credential.rotate"}[s]
}

// world is a provider, a disk and a job. It survives the processes that work
// on it, and it is asked, not the engine, for what is true.
type world struct {
	strategy strategyName
	disk     *memfs.FS
	ricloud  *keywrighttest.Ricloud
	aceData  *keywrighttest.AceData
	first    keywright.CredentialID
	sinks    []string // paths

	mu      sync.Mutex
	sent    []sentCall
	held    map[string][]string // every token that a sink has held, in order
	said    bytes.Buffer        // everything that was printed
	secrets map[string]bool     // every token that the provider has issued
	used    map[string]bool     // every token that a sink has held
	checks  int
	problem error // the first broken invariant
	twice   bool  // a call has arrived twice, so that a person may be needed
	loose   bool  // what the fault breaks cannot hold meanwhile: I2
}

// sentCall is a call that changes something, as it was sent.
type sentCall struct {
	op      string
	path    string
	forced  bool
	at      time.Time
	applied int  // how many such calls had taken effect before it
	settled bool // the provider answered in full, or showed since that it took effect
}

// fixture is a provider that worlds are made of; making one costs a socket.
func newWorld(strategy strategyName, variant ...keywrighttest.Option) (*world, error) {
	w := &world{
		strategy: strategy, disk: memfs.New(), sinks: []string{"/app/token", "/app/.env"},
		held: make(map[string][]string), secrets: make(map[string]bool), used: make(map[string]bool),
	}
	var err error
	switch strategy {
	case paired, overlap:
		if w.ricloud, err = keywrighttest.NewRicloud(variant...); err != nil {
			return nil, err
		}
		w.ricloud.AddKeys(1)
	default:
		if w.aceData, err = keywrighttest.NewAceData(variant...); err != nil {
			return nil, err
		}
	}
	return w, nil
}

// seed makes what is there before the first rotation.
func (w *world) seed() error {
	w.disk.MkdirAll("/app")
	w.disk.MkdirAll("/state")
	token := ""
	switch {
	case w.ricloud != nil:
		token = w.ricloud.Token()
	default:
		application := w.aceData.ApplicationID()
		if w.strategy == inPlace {
			application = w.aceData.ProxyApplicationID()
		}
		body := fmt.Sprintf(`{"application_id":%q,"name":"app","limited_amount":100,"tags":["a"],"metadata":{"team":"x"}}`, application)
		var made struct{ ID, Token, Password string }
		if err := json.Unmarshal(w.ask("POST", "/api/v1/credentials/", body), &made); err != nil {
			return err
		}
		w.first = keywright.CredentialID(made.ID)
		w.aceData.SetUsed(made.ID, 30)
		token = made.Token + made.Password
	}
	w.disk.WriteFile(w.sinks[0], []byte(token+"\n"), 0o600)
	w.disk.WriteFile(w.sinks[1], []byte("# app\nTOKEN="+token+" # keep\nOTHER=1\n"), 0o600)
	w.note()
	return nil
}

func (w *world) close() {
	if w.ricloud != nil {
		w.ricloud.Close()
	}
	if w.aceData != nil {
		w.aceData.Close()
	}
}

func (w *world) handler() http.Handler {
	if w.ricloud != nil {
		return w.ricloud
	}
	return w.aceData
}

func (w *world) inject(f keywrighttest.Fault) {
	if w.ricloud != nil {
		w.ricloud.Inject(f)
		return
	}
	w.aceData.Inject(f)
}

// clear forgets the faults that are still to come.
func (w *world) clear() {
	if w.ricloud != nil {
		w.ricloud.ClearFaults()
		return
	}
	w.aceData.ClearFaults()
}

// ask asks the fake, past every fault and every count.
func (w *world) ask(method, path, body string) []byte {
	r := httptest.NewRequest(method, path, strings.NewReader(body))
	if w.ricloud != nil {
		r.Header.Set("Authorization", "Token "+w.ricloud.Token())
	} else {
		r.Header.Set("Authorization", "Bearer "+w.aceData.Token())
	}
	rec := httptest.NewRecorder()
	w.handler().ServeHTTP(rec, r)
	return rec.Body.Bytes()
}

// process is a run of the program that rotates.
type process struct {
	*world
	disk   *memfs.Process
	ctx    context.Context
	cancel context.CancelFunc
	steps  int // of the disk and of the wire, so far
	killAt int // the step that it is killed at; 0: none
	names  []string
	disks  func(op, name string, after bool) error // another hook of the disk
}

func (w *world) start(ctx context.Context, killAt int) *process {
	p := &process{world: w, disk: w.disk.Process(), killAt: killAt}
	p.ctx, p.cancel = context.WithCancel(ctx)
	p.disk.Hook = func(op, name string, after bool) error {
		if after && op == "rename" && slices.Contains(w.sinks, name) {
			w.note()
		}
		p.step("disk " + op + " " + filepath.Base(name) + moment(after))
		if p.disks != nil {
			return p.disks(op, name, after)
		}
		return nil
	}
	return p
}

func moment(after bool) string {
	if after {
		return " (after)"
	}
	return " (before)"
}

// step counts, and kills.
func (p *process) step(name string) {
	p.mu.Lock()
	p.steps++
	die := p.steps == p.killAt
	p.names = append(p.names, name)
	p.mu.Unlock()
	if die {
		p.disk.Kill()
		p.cancel()
	}
}

var errKilled = errors.New("the process was killed")

// RoundTrip calls the fake without a socket.
func (p *process) RoundTrip(r *http.Request) (*http.Response, error) {
	if p.ctx.Err() != nil {
		return nil, errKilled
	}
	op := r.Method + " " + r.URL.Path
	p.step("wire " + op + " (before)")
	if p.ctx.Err() != nil {
		return nil, errKilled
	}
	if err := r.Context().Err(); err != nil {
		return nil, err
	}
	if t := httptrace.ContextClientTrace(r.Context()); t != nil {
		if t.GotConn != nil {
			t.GotConn(httptrace.GotConnInfo{})
		}
		if t.WroteRequest != nil {
			t.WroteRequest(httptrace.WroteRequestInfo{})
		}
	}
	var body []byte
	if r.Body != nil {
		body, _ = io.ReadAll(r.Body)
	}
	call := p.log(r, body)
	inner := r.Clone(r.Context())
	inner.Body = io.NopCloser(bytes.NewReader(body))
	rec := httptest.NewRecorder()
	broken := serve(p.handler(), rec, inner)
	if call != nil {
		p.note()
	}
	p.step("wire " + op + " (after)")
	switch {
	case p.ctx.Err() != nil:
		return nil, errKilled
	case broken && !rec.Flushed:
		return nil, io.ErrUnexpectedEOF
	}
	resp := rec.Result()
	if broken {
		resp.Body = io.NopCloser(io.MultiReader(bytes.NewReader(rec.Body.Bytes()), failing{}))
	} else if call != nil && resp.StatusCode < 500 {
		p.mu.Lock()
		call.settled = true
		p.mu.Unlock()
	}
	if call == nil && !broken && resp.StatusCode == http.StatusOK {
		p.seen(r.URL.Path)
	}
	resp.Request = r
	return resp, nil
}

// applied returns how many calls that issue a token have taken effect.
func (w *world) applied() int {
	if w.ricloud != nil {
		return w.ricloud.Applied("key.rotate")
	}
	return w.aceData.Applied(w.strategy.issues())
}

// seen notes that the program has read what a call has changed.
func (w *world) seen(path string) {
	applied := w.applied()
	w.mu.Lock()
	defer w.mu.Unlock()
	for i := range w.sent {
		if c := &w.sent[i]; strings.HasPrefix(c.path, path) && applied > c.applied {
			c.settled = true
		}
	}
}

type failing struct{}

func (failing) Read([]byte) (int, error) { return 0, io.ErrUnexpectedEOF }

// serve reports whether the handler broke the connection.
func serve(h http.Handler, w http.ResponseWriter, r *http.Request) (broken bool) {
	defer func() {
		if v := recover(); v == http.ErrAbortHandler { //nolint:errorlint // it is that value
			broken = true
		} else if v != nil {
			panic(v)
		}
	}()
	h.ServeHTTP(w, r)
	return false
}

// log notes a call that changes something.
func (p *process) log(r *http.Request, body []byte) *sentCall {
	if r.Method == http.MethodGet {
		return nil
	}
	op := r.Method
	switch {
	case strings.HasSuffix(strings.TrimSuffix(r.URL.Path, "/"), "/rotate"):
		op = "rotate"
	case r.Method == http.MethodPost && strings.HasSuffix(r.URL.Path, "/credentials/"):
		op = "create"
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	c := sentCall{op: op, path: r.URL.Path, applied: p.applied(), forced: strings.Contains(string(body), `"force":true`), at: time.Now()}
	if (op == "rotate" || op == "create") && !c.forced {
		for _, before := range p.sent {
			if before.op == op && before.path == c.path && !before.settled && c.at.Sub(before.at) < time.Minute {
				p.broke("I3: %s %s was sent again after %s while its outcome was unknown", op, c.path, c.at.Sub(before.at))
			}
		}
	}
	if c.forced && p.strategy != paired {
		p.broke("I4: a forced rotation was sent")
	}
	p.sent = append(p.sent, c)
	return &p.sent[len(p.sent)-1]
}

// broke notes a broken invariant. The caller holds mu.
func (w *world) broke(format string, args ...any) {
	if w.problem == nil {
		w.problem = fmt.Errorf(format, args...)
	}
}

// job is the job, as the process configures it.
func (p *process) job() rotation.Job {
	job := rotation.Job{
		Name:  "app",
		Sinks: []sink.Sink{sink.File(p.sinks[0]), sink.Dotenv(p.sinks[1], "TOKEN", sink.WithLag(5*time.Second))},
	}
	opts := []keywright.Option{
		keywright.WithoutEnvironment(), keywright.WithHTTPClient(&http.Client{Transport: p}), keywright.WithBaseURL("http://127.0.0.1"),
	}
	switch p.strategy {
	case paired, overlap:
		rc, err := keywright.NewRicloud(append(opts, keywright.WithTokenSource(diskToken{p}))...)
		if err != nil {
			panic(err)
		}
		job.Strategy = rotation.RicloudOverlap{Client: rc, Key: 1}
		if p.strategy == paired {
			job.Strategy = rotation.RicloudPaired{Client: rc, Keys: [2]keywright.KeyID{1, 2}}
		}
	default:
		ac, err := keywright.NewAceData(append(opts, keywright.WithToken(p.aceData.Token()))...)
		if err != nil {
			panic(err)
		}
		job.Strategy = rotation.AceDataInPlace{Client: ac, Credential: p.first, AcceptOutage: true}
		job.Verify = func(_ context.Context, token keywright.Secret) error {
			if slices.Contains(p.accepted(), token.Reveal()) {
				return nil
			}
			return rotation.ErrNotAccepted
		}
		if p.strategy == swap {
			job.Strategy = rotation.AceDataSwap{Client: ac, Credential: p.first, IdleFor: 10 * time.Second}
		}
	}
	return job
}

// diskToken is the token in the first sink, as a program with that file has it.
type diskToken struct{ *process }

func (d diskToken) Token(context.Context) (keywright.Secret, error) {
	b, _ := d.world.disk.ReadFile(d.sinks[0])
	return keywright.NewSecret(strings.TrimSpace(string(b))), nil
}

func (p *process) engine() *rotation.Engine {
	e, err := rotation.Open("/state", rotation.WithFS(p.disk), rotation.WithObserver(func(v rotation.Event) {
		p.say("%s %v\n", v.About(), v.LogValue())
	}))
	if err != nil {
		panic(err)
	}
	return e
}

// say notes what is printed.
func (w *world) say(format string, args ...any) {
	w.mu.Lock()
	defer w.mu.Unlock()
	fmt.Fprintf(&w.said, format, args...)
}

// rotate is one run of the program, which does what cron makes it do.
func (p *process) rotate() (*rotation.Result, error) {
	defer p.cancel()
	r, err := p.engine().Rotate(p.ctx, p.job())
	if err != nil {
		p.say("%v\n%+v\n%#v\n", err, err, err)
	}
	if r != nil {
		p.say("%+v\n", *r)
	}
	return r, err
}

// accepted returns every token that the provider takes for the job's keys.
func (w *world) accepted() []string {
	if w.ricloud != nil {
		all := w.ricloud.AcceptedTokens(1)
		if w.strategy == paired {
			all = append(all, w.ricloud.AcceptedTokens(2)...)
		}
		return all
	}
	var all []string
	for _, c := range w.credentials() {
		all = append(all, w.aceData.AcceptedTokens(c.ID)...)
	}
	return all
}

// credential is what the checker reads of one.
type credential struct {
	ID            string   `json:"id"`
	Name          string   `json:"name"`
	LimitedAmount *float64 `json:"limited_amount"`
	UsedAmount    float64  `json:"used_amount"`
	Tags          []string `json:"tags"`
	ExpiredAt     *string  `json:"expired_at"`
	Metadata      map[string]any
}

func (w *world) credentials() []credential {
	application := w.aceData.ApplicationID()
	if w.strategy == inPlace {
		application = w.aceData.ProxyApplicationID()
	}
	var list struct{ Items, Results []credential }
	if err := json.Unmarshal(w.ask("GET", "/api/v1/credentials/?limit=100&application_id="+application, ""), &list); err != nil {
		panic(err)
	}
	return append(list.Items, list.Results...)
}

// inSinks returns the token that each sink holds.
func (w *world) inSinks() []string {
	var out []string
	for _, path := range w.sinks {
		b, _ := w.disk.ReadFile(path)
		token := strings.TrimSpace(string(b))
		if _, rest, ok := strings.Cut(token, "TOKEN="); ok {
			token, _, _ = strings.Cut(rest, " ")
		}
		out = append(out, token)
	}
	return out
}

// cutPower leaves of the disk what a power cut may leave.
func (w *world) cutPower(choice int) {
	worlds := slices.Collect(w.disk.CrashStates())
	w.mu.Lock()
	w.disk = worlds[choice%len(worlds)]
	w.held = make(map[string][]string) // what was not durable has gone back
	w.mu.Unlock()
	w.note()
}

// pass lets time pass.
func pass(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}

// note looks at the world after anything has happened.
func (w *world) note() {
	accepted := w.accepted()
	w.mu.Lock()
	defer w.mu.Unlock()
	w.checks++
	for _, t := range accepted {
		w.secrets[t] = true
	}
	for i, token := range w.inSinks() {
		path := w.sinks[i]
		history := w.held[path]
		if len(history) == 0 || history[len(history)-1] != token {
			if slices.Contains(history, token) {
				w.broke("I6: %s went back to a token that it had before", path)
			}
			w.held[path] = append(history, token)
			w.used[token] = true
		}
		if !slices.Contains(accepted, token) && w.strategy != inPlace && !w.loose {
			w.broke("I2: the provider refuses what %s holds", path)
		}
	}
}

// over checks what must hold when a rotation is over.
func (w *world) over(r *rotation.Result) error {
	w.note()
	w.mu.Lock()
	defer w.mu.Unlock()
	tokens := w.inSinks()
	for _, token := range tokens {
		if token != tokens[0] {
			w.broke("the sinks hold different tokens")
		}
	}
	var accepted []string
	switch w.strategy {
	case paired:
		accepted = append(w.ricloud.AcceptedTokens(1), w.ricloud.AcceptedTokens(2)...)
	case overlap:
		accepted = w.ricloud.AcceptedTokens(1)[:1]
	default:
		for _, c := range w.credentials() {
			accepted = append(accepted, w.aceData.AcceptedTokens(c.ID)...)
			if _, marked := c.Metadata["keywright"]; marked && w.strategy == swap && !slices.Contains(w.aceData.AcceptedTokens(c.ID), tokens[0]) {
				w.broke("I7: credential %s carries a marker and nobody owns it", c.ID)
			}
			if c.LimitedAmount == nil || *c.LimitedAmount > 100 {
				w.broke("I10: credential %s may spend more than the policy says", c.ID)
			}
		}
		if w.strategy == swap && r.State == rotation.StateDone {
			c := w.credentials()
			if len(c) != 1 || *c[0].LimitedAmount != 70 || c[0].Name != "app" || c[0].ExpiredAt != nil || !slices.Equal(c[0].Tags, []string{"a"}) || c[0].Metadata["team"] != "x" {
				w.broke("I10: the credential in use is not like the one before: %+v", c)
			}
		}
	}
	if !slices.Contains(accepted, tokens[0]) {
		w.broke("the provider does not show the sinks' token as current")
	}
	if w.strategy == paired || w.strategy == swap {
		for token := range w.used {
			if token != tokens[0] && slices.Contains(accepted, token) {
				w.broke("I12: a token that was retired is accepted")
			}
		}
	}
	if r.State == rotation.StateDone && !r.Resumed && len(w.used) < 2 {
		w.broke("DONE, and the sinks hold the old token")
	}
	w.check()
	return w.problem
}

// check looks for tokens in everything that was printed.
func (w *world) check() {
	said := w.said.Bytes()
	for _, path := range []string{"/state/app/audit.jsonl", "/state/app/state", "/state/app/state.prev"} {
		b, _ := w.disk.ReadFile(path)
		said = append(said, b...)
	}
	for token := range w.secrets {
		if bytes.Contains(said, []byte(token)) {
			w.broke("I8: a token was printed")
		}
	}
}
