package jobs

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/keywright/keywright"
	"github.com/keywright/keywright/jobs/store"
	"github.com/keywright/keywright/keywrighttest"
	"github.com/keywright/keywright/rotation"
	"github.com/keywright/keywright/rotation/sink"
)

// childSettings is what a child is told. It holds no token.
type childSettings struct {
	Kind, Where string // of the database
	Seal        string // file of the sealing key
	Worker      string
	Concurrency int
	Step        time.Duration // 0: the default, as for those that follow
	Rescue      time.Duration
	Lease       time.Duration
	Jobs        []childJob
	Hold        bool // nothing else: keep the SQLite database locked
}

// childJob is a job that a child knows.
type childJob struct {
	Name       string
	Strategy   string // "paired", "overlap", "swap", "in-place"
	URL        string // of the provider
	Dir        string // of the sink
	Credential string // of Ace Data
	Owner      string
	Trigger    bool
	StopAt     string // a state that is durable, or "before …" or "after …" a request: it stays there
}

func (c childJob) token() string    { return filepath.Join(c.Dir, "token") }
func (c childJob) platform() string { return filepath.Join(c.Dir, "platform") }
func (c childJob) ricloud() bool    { return c.Strategy == "paired" || c.Strategy == "overlap" }

// say prints a line for the parent, whole.
var sayMu sync.Mutex

func say(words ...any) {
	sayMu.Lock()
	defer sayMu.Unlock()
	fmt.Println(words...)
}

// workAsChild is a worker that is a process of its own. It ends when its
// standard input does.
func workAsChild(text string) int {
	var c childSettings
	if err := json.Unmarshal([]byte(text), &c); err != nil {
		say("failed", err)
		return 2
	}
	work := c.work
	if c.Hold {
		work = c.hold
	}
	if err := work(context.Background()); err != nil {
		say("failed", err)
		return 1
	}
	return 0
}

// hold keeps the database locked until the standard input ends.
func (c childSettings) hold(ctx context.Context) error {
	st, err := store.OpenSQLite(ctx, c.Where)
	if err != nil {
		return err
	}
	defer st.Close()
	tx, err := st.SQL().BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	say("holding")
	_, _ = io.Copy(io.Discard, os.Stdin)
	return tx.Rollback()
}

// gate lets a job that stays at a point go on.
type gate struct {
	job  childJob
	goOn <-chan struct{}

	mu   sync.Mutex
	seen map[string]int // requests, by name
	done bool
}

// point says where the job is, and stays there if that is the point.
func (g *gate) point(name string) {
	say("at", g.job.Name, name)
	g.mu.Lock()
	stay := name == g.job.StopAt && !g.done
	g.done = g.done || stay
	g.mu.Unlock()
	if stay {
		say("staying", g.job.Name, name)
		<-g.goOn
	}
}

// request names a request: which of several, and without ids that nobody knows
// before.
func (g *gate) request(r *http.Request) string {
	path := strings.TrimPrefix(r.URL.Path, "/api/v1")
	if id, ok := strings.CutPrefix(path, "/credentials/"); ok && id != "" {
		id, rest, _ := strings.Cut(id, "/")
		path = "new"
		if id == g.job.Credential {
			path = "old"
		}
		if rest != "" {
			path += "/" + rest
		}
	}
	name := r.Method + " " + path
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.seen[name]++; g.seen[name] > 1 && r.Method != http.MethodGet {
		return fmt.Sprintf("%s #%d", name, g.seen[name])
	}
	return name
}

type transport func(*http.Request) (*http.Response, error)

func (f transport) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// make makes the rotation job.
func (c childJob) make(worker string, g *gate) (Job, error) {
	options := []keywright.Option{
		keywright.WithoutEnvironment(), keywright.WithBaseURL(c.URL),
		keywright.WithTimeout(5 * time.Second), keywright.WithRetry(keywright.RetryPolicy{MaxAttempts: 1}),
		keywright.WithMiddleware(func(next http.RoundTripper) http.RoundTripper {
			return transport(func(r *http.Request) (*http.Response, error) {
				name := g.request(r)
				g.point("before " + name)
				r = r.Clone(r.Context())
				r.Header.Set("X-Worker", worker)
				resp, err := next.RoundTrip(r)
				if errors.Is(err, ErrLate) {
					say("late", c.Name, name)
				}
				g.point("after " + name)
				return resp, err
			})
		}),
		keywright.WithMiddleware(Guard),
	}
	job := Job{Owner: c.Owner, Job: rotation.Job{
		Name: c.Name, Sinks: []sink.Sink{sink.File(c.token(), sink.WithLag(0))},
		Policy: rotation.Policy{Probes: 2, SettleTime: 300 * time.Millisecond, VerifyFor: 10 * time.Second, ResolveFor: 10 * time.Second},
	}}
	if c.ricloud() {
		client, err := keywright.NewRicloud(append(options, keywright.WithTokenSource(keywright.FileToken(c.token())))...)
		if err != nil {
			return job, err
		}
		job.Strategy = rotation.RicloudPaired{Client: client, Keys: [2]keywright.KeyID{1, 2}}
		if c.Strategy == "overlap" {
			job.Strategy = rotation.RicloudOverlap{Client: client, Key: 1}
		}
		return job, nil
	}
	client, err := keywright.NewAceData(append(options, keywright.WithTokenSource(keywright.FileToken(c.platform())))...)
	if err != nil {
		return job, err
	}
	job.Strategy = rotation.AceDataSwap{Client: client, Credential: keywright.CredentialID(c.Credential), IdleFor: 200 * time.Millisecond}
	if c.Strategy == "in-place" {
		job.Strategy = rotation.AceDataInPlace{Client: client, Credential: keywright.CredentialID(c.Credential), AcceptOutage: true}
	}
	job.Verify = func(ctx context.Context, token keywright.Secret) error {
		if !probe(ctx, c.URL, token.Reveal()) {
			return rotation.ErrNotAccepted
		}
		return nil
	}
	return job, nil
}

// probe asks Ace Data's fake whether a token is accepted where tokens are used.
func probe(ctx context.Context, url, token string) bool {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, url+keywrighttest.ProbePath, nil)
	if err != nil {
		return false
	}
	r.Header.Set("Authorization", "Bearer "+token)
	r.Close = true
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		return false
	}
	_ = resp.Body.Close()
	return resp.StatusCode == http.StatusOK
}

func (c childSettings) work(ctx context.Context) error {
	var storeOptions []store.Option
	if c.Lease > 0 {
		storeOptions = append(storeOptions, store.WithLease(c.Lease))
	}
	st, err := openAt(ctx, database{kind: c.Kind, where: c.Where}, storeOptions...)
	if err != nil {
		return err
	}
	defer st.Close()
	goOn := make(chan struct{})
	gates := make(map[string]*gate)
	var jobs []Job
	for _, j := range c.Jobs {
		gates[j.Name] = &gate{job: j, goOn: goOn, seen: make(map[string]int)}
		job, err := j.make(c.Worker, gates[j.Name])
		if err != nil {
			return err
		}
		jobs = append(jobs, job)
	}
	log := slog.New(slog.DiscardHandler)
	if os.Getenv("KEYWRIGHT_LOG") != "" {
		log = slog.New(slog.NewTextHandler(os.Stderr, nil)).With("worker", c.Worker)
	}
	options := []Option{
		WithSealer(rotation.SealKeyFile(c.Seal)), WithWorkerID(c.Worker), WithLogger(log), WithSweep(time.Second), quickly(),
		WithEngineOptions(rotation.WithObserver(func(e rotation.Event) {
			if s, ok := e.(rotation.StateChanged); ok {
				gates[s.About()].point(string(s.To))
			}
		})),
		WithResults(func(v Result) { say("result", v.Job, v.State, v.Over, v.Err) }),
		func(o *options) error { o.starting = func(job string) { say("starting", job) }; return nil },
	}
	if c.Concurrency > 0 {
		options = append(options, WithConcurrency(c.Concurrency), WithLimit("ricloud", Limit{}), WithLimit("acedata", Limit{}))
	}
	if c.Step > 0 {
		options = append(options, WithStep(c.Step, min(c.Step/4, 5*time.Second)), WithRescue(c.Rescue))
	}
	r, err := New(st, options...)
	if err != nil {
		return err
	}
	if err := r.Register(ctx, jobs...); err != nil {
		return err
	}
	if err := r.Start(ctx); err != nil {
		return err
	}
	say("started")
	for _, j := range c.Jobs {
		if !j.Trigger {
			continue
		}
		if err := r.Trigger(ctx, j.Name); err != nil {
			return err
		}
	}
	say("begun")
	in := bufio.NewScanner(os.Stdin)
	for in.Scan() {
		close(goOn) // once
	}
	return r.Stop(ctx)
}

// child is a worker in a process of its own.
type child struct {
	t     *testing.T
	cmd   *exec.Cmd
	in    io.WriteCloser
	lines chan string // closed when it has ended
}

func (c childSettings) spawn(t *testing.T) *child {
	t.Helper()
	self, err := os.Executable()
	require.NoError(t, err)
	text, err := json.Marshal(c)
	require.NoError(t, err)
	p := &child{t: t, cmd: exec.Command(self), lines: make(chan string, 100_000)}
	p.cmd.Env = append(os.Environ(), childVariable+"="+string(text), "GORACE=atexit_sleep_ms=0")
	p.cmd.Stderr = os.Stderr
	p.in, err = p.cmd.StdinPipe()
	require.NoError(t, err)
	out, err := p.cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, p.cmd.Start())
	go func() {
		s := bufio.NewScanner(out)
		for s.Scan() {
			p.lines <- s.Text()
		}
		close(p.lines)
	}()
	t.Cleanup(p.kill)
	return p
}

// kill ends the child at once, and waits for it.
func (p *child) kill() {
	_ = p.cmd.Process.Kill()
	for range p.lines {
	}
	_ = p.cmd.Wait()
}

// stop lets the child end by itself.
func (p *child) stop() {
	p.t.Helper()
	require.NoError(p.t, p.in.Close())
	for range p.lines {
	}
	require.NoError(p.t, p.cmd.Wait())
}

// goOn lets go on what stays at a point.
func (p *child) goOn() {
	p.t.Helper()
	_, err := io.WriteString(p.in, "go on\n")
	require.NoError(p.t, err)
}

// together is what several children say.
func together(t *testing.T, children ...*child) *child {
	all := &child{t: t, lines: make(chan string, 100_000)}
	var group sync.WaitGroup
	for _, p := range children {
		group.Go(func() {
			for line := range p.lines {
				all.lines <- line
			}
		})
	}
	go func() { group.Wait(); close(all.lines) }()
	return all
}

// patience is how long a test waits for what must come.
const patience = 90 * time.Second

// until reads lines up to one that begins so.
func (p *child) until(prefixes ...string) string {
	p.t.Helper()
	var found string
	p.read(patience, prefixes, func(line string) bool {
		for _, prefix := range prefixes {
			if strings.HasPrefix(line, prefix) {
				found = line
				return true
			}
		}
		return false
	})
	return found
}

// each reads lines until all jobs had one that begins so, with the job's name in
// it. It returns when each came.
func (p *child) each(wait time.Duration, jobs []*scene, format string) map[string]time.Time {
	p.t.Helper()
	missing, seen := make(map[string]string), make(map[string]time.Time)
	for _, s := range jobs {
		missing[s.Name] = strings.NewReplacer("JOB", s.Name, "POINT", s.StopAt).Replace(format)
	}
	p.read(wait, missing, func(line string) bool {
		for name, prefix := range missing {
			if strings.HasPrefix(line, prefix) {
				seen[name] = time.Now()
				delete(missing, name)
			}
		}
		return len(missing) == 0
	})
	return seen
}

// read reads lines until f is true of one.
func (p *child) read(wait time.Duration, what any, f func(line string) bool) {
	p.t.Helper()
	timeout := time.After(wait)
	var last string
	for {
		select {
		case line, ok := <-p.lines:
			require.True(p.t, ok, "the child has ended; it waited for %q, and its last line was %q", what, last)
			if f(line) {
				return
			}
			require.False(p.t, strings.HasPrefix(line, "failed"), line)
			last = line
		case <-timeout:
			require.Fail(p.t, "the child does not say it", "%q; the last line was %q", what, last)
		}
	}
}

// scene is a provider and a sink, of one job.
type scene struct {
	childJob
	t     *testing.T
	seal  string
	file  string // of the sink
	rc    *keywrighttest.Ricloud
	ace   *keywrighttest.AceData
	first string // the token in use at the start
	idle  string // that of the key of a pair that is not in use

	mu    sync.Mutex
	worst string // what should not have been
}

func newScene(t *testing.T, name, strategy, seal string) *scene {
	t.Helper()
	dir := t.TempDir()
	require.NoError(t, os.Chmod(dir, 0o700))
	s := &scene{t: t, seal: seal, file: filepath.Join(dir, "token"), childJob: childJob{Name: name, Strategy: strategy, Dir: dir}}
	watch := keywrighttest.WithObserver(func(r keywrighttest.Request, _ int) { s.watch(r) })
	if s.ricloud() {
		s.rc = keywrighttest.StartRicloud(t, watch)
		s.rc.AddKeys(1)
		s.URL, s.first, s.idle = s.rc.URL(), s.rc.Token(), s.rc.TokenOf(2)
	} else {
		s.ace = keywrighttest.StartAceData(t, watch)
		s.URL = s.ace.URL()
		require.NoError(t, os.WriteFile(s.platform(), []byte(s.ace.Token()+"\n"), 0o600))
		c, err := s.client().Credential.Create(t.Context(), keywright.CredentialCreateParams{
			ApplicationID: keywright.ApplicationID(s.ace.ApplicationID()), LimitedAmount: keywright.Set(100.0),
		})
		require.NoError(t, err)
		s.Credential, s.first = string(c.ID), c.Token.Reveal()
	}
	require.NoError(t, os.WriteFile(s.token(), []byte(s.first+"\n"), 0o600))
	return s
}

func (s *scene) client() *keywright.AceData {
	client, err := keywright.NewAceData(keywright.WithoutEnvironment(), keywright.WithBaseURL(s.URL), keywright.WithTokenSource(keywright.FileToken(s.platform())))
	require.NoError(s.t, err)
	return client
}

// held is the token that the sink has.
func (s *scene) held() string {
	b, _ := os.ReadFile(s.file) // empty before there is one
	return strings.TrimSpace(string(b))
}

// accepts reports whether the provider takes a token right now.
func (s *scene) accepts(token string) bool {
	if s.rc == nil {
		return probe(context.Background(), s.URL, token)
	}
	for _, key := range []int64{1, 2} {
		for _, accepted := range s.rc.AcceptedTokens(key) {
			if accepted == token {
				return true
			}
		}
	}
	return false
}

// watch looks after each answer whether the sink's token is accepted, but where
// an outage was consented to.
func (s *scene) watch(r keywrighttest.Request) {
	if r.Op == "probe" || s.Strategy == "in-place" {
		return
	}
	token := s.held()
	for token != "" && !s.accepts(token) {
		again := s.held()
		if again == token {
			s.mu.Lock()
			s.worst = "the sink's token was not accepted after " + r.Method + " " + r.Path
			s.mu.Unlock()
			return
		}
		token = again // it was written meanwhile
	}
}

func (s *scene) requests() []keywrighttest.Request {
	if s.rc != nil {
		return s.rc.Requests()
	}
	return s.ace.Requests()
}

// issued counts the calls that have issued a token, other than to throw it away.
func (s *scene) issued() int {
	n := 0
	for _, r := range s.requests() {
		switch {
		case r.Header.Get("X-Worker") == "" || !r.Auth:
		case r.Op == "key.rotate" && !strings.Contains(string(r.Body), `"force":true`), r.Op == "credential.create", r.Op == "credential.rotate":
			n++
		}
	}
	return n
}

// by counts the requests of a worker.
func (s *scene) by(worker string) int {
	n := 0
	for _, r := range s.requests() {
		if r.Header.Get("X-Worker") == worker {
			n++
		}
	}
	return n
}

// over looks at a world in which the rotation is over.
func (s *scene) over(t *testing.T, st *store.Store) {
	t.Helper()
	s.mu.Lock()
	require.Empty(t, s.worst, s.Name)
	s.mu.Unlock()
	require.Equal(t, 1, s.issued(), "calls of %s that issued a token", s.Name)
	token := s.held()
	require.NotEqual(t, s.first, token, s.Name)
	require.True(t, s.accepts(token), s.Name)
	switch s.Strategy {
	case "paired":
		require.ElementsMatch(t, []string{token, s.idle}, s.rc.AcceptedTokens(2), "that which nobody had lapses by itself")
		require.NotContains(t, s.rc.AcceptedTokens(1), s.first, "the token from before was burnt")
	case "overlap":
		require.ElementsMatch(t, []string{token, s.first}, s.rc.AcceptedTokens(1), "the one from before lapses by itself")
	default:
		var accepted []string
		for c, err := range s.client().Credential.All(t.Context(), keywright.CredentialListParams{}) {
			require.NoError(t, err)
			accepted = append(accepted, s.ace.AcceptedTokens(string(c.ID))...)
		}
		require.Equal(t, []string{token}, accepted, "what %s has left behind", s.Name)
	}
	engine, err := rotation.Open("", rotation.WithJournal(st.Journal("test")), rotation.WithSealer(rotation.SealKeyFile(s.seal)))
	require.NoError(t, err)
	status, err := engine.Status(t.Context(), s.Name)
	require.NoError(t, err)
	require.Equal(t, rotation.StateDone, status.State, s.Name)
	require.Equal(t, 1, status.Generation, s.Name)
	pipe, w := io.Pipe()
	go func() { w.CloseWithError(st.AuditTrail(context.WithoutCancel(t.Context()), s.Name, w)) }()
	entries, err := rotation.CheckAudit(pipe)
	require.NoError(t, err)
	require.NotZero(t, entries)
	row, err := st.Get(t.Context(), s.Name)
	require.NoError(t, err)
	require.Equal(t, "DONE", row.LastState, s.Name)
}

// points are where a worker is killed: all states, and around all requests that
// change something.
func points(strategy string) []string {
	states, requests := []string{"PLANNED", "INTENT", "ISSUED", "VERIFIED", "DISTRIBUTING", "CONVERGING", "DONE"}, []string(nil)
	switch strategy {
	case "paired":
		states, requests = append(states, "RETIRING"), []string{"POST /keys/2/rotate", "POST /keys/1/rotate"}
	case "overlap":
		requests = []string{"POST /keys/1/rotate"}
	case "swap":
		states = append(states, "RETIRING")
		requests = []string{"POST /credentials/", "PATCH new", "PATCH old", "PATCH new #2", "DELETE old"}
	case "in-place":
		requests = []string{"POST old/rotate/"}
	}
	for _, r := range requests {
		states = append(states, "before "+r, "after "+r)
	}
	return states
}

var strategies = []string{"paired", "overlap", "swap", "in-place"}

// troupe is workers on one database, with jobs.
type troupe struct {
	childSettings
	d      database
	scenes []*scene
}

func newTroupe(t *testing.T, d database) *troupe {
	t.Helper()
	require.NoError(t, os.MkdirAll(d.dir, 0o700))
	c := &troupe{d: d, childSettings: childSettings{
		Kind: d.kind, Where: d.where, Seal: filepath.Join(d.dir, "seal.key"), Worker: "w1",
		Step: 2 * time.Second, Rescue: 3 * time.Second, Lease: 2 * time.Second, Concurrency: 100,
	}}
	if d.kind == "sqlite" {
		c.Step, c.Rescue = time.Minute, 2*time.Minute // whatever the disk does
	}
	return c
}

// add adds a job. Where it needs an owner, that is owner.
func (c *troupe) add(t *testing.T, strategy, owner string) *scene {
	t.Helper()
	s := newScene(t, fmt.Sprintf("%s-%d", strategy, len(c.scenes)), strategy, c.Seal)
	if strategy == "overlap" || strategy == "in-place" {
		s.Owner = owner
	}
	c.scenes = append(c.scenes, s)
	return s
}

// first starts a worker that begins the rotations, and stays at the points.
func (c *troupe) first(t *testing.T) *child {
	t.Helper()
	return c.start(t, "w1", func(j *childJob) { j.Trigger = true })
}

// next starts a worker that goes on.
func (c *troupe) next(t *testing.T, worker string) *child {
	t.Helper()
	return c.start(t, worker, func(j *childJob) { j.StopAt = "" })
}

func (c *troupe) start(t *testing.T, worker string, change func(*childJob)) *child {
	t.Helper()
	settings := c.childSettings
	settings.Worker = worker
	for _, s := range c.scenes {
		job := s.childJob
		change(&job)
		settings.Jobs = append(settings.Jobs, job)
	}
	return settings.spawn(t)
}

// over looks at a world in which all rotations are over.
func (c *troupe) over(t *testing.T) {
	t.Helper()
	st := c.d.open(t)
	for _, s := range c.scenes {
		s.over(t, st)
	}
	if c.Kind != "sqlite" {
		return
	}
	for _, suffix := range []string{"", "-wal"} {
		b, err := os.ReadFile(c.Where + suffix)
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		require.NoError(t, err)
		for _, s := range c.scenes {
			require.NotContains(t, string(b), s.held())
		}
	}
}
