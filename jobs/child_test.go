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
	URL         string // of the provider
	Dir         string // of the sink and the sealing key
	Worker      string
	Strategy    string // "paired", "overlap"
	Owner       string
	Trigger     bool
	StopAt      string // a state that is durable, or "before …" or "after …" a request's method and path: it stays there
	Step        time.Duration
	Rescue      time.Duration
	Lease       time.Duration
}

func (c childSettings) token() string { return filepath.Join(c.Dir, "token") }

// childJob is the name of the children's job.
const childJob = "billing"

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
	if err := c.work(context.Background()); err != nil {
		say("failed", err)
		return 1
	}
	return 0
}

// gates let a child that stays at a point go on.
type gates struct {
	at   string
	mu   sync.Mutex
	done bool
	goOn chan struct{}
}

// point says where the child is, and stays there if that is the point.
func (g *gates) point(name string) {
	say("at", name)
	g.mu.Lock()
	stay := name == g.at && !g.done
	g.done = g.done || stay
	g.mu.Unlock()
	if stay {
		say("staying", name)
		<-g.goOn
	}
}

func (c childSettings) work(ctx context.Context) error {
	g := &gates{at: c.StopAt, goOn: make(chan struct{})}
	st, err := openAt(ctx, database{kind: c.Kind, where: c.Where}, store.WithLease(c.Lease))
	if err != nil {
		return err
	}
	defer st.Close()
	client, err := keywright.NewRicloud(
		keywright.WithoutEnvironment(), keywright.WithBaseURL(c.URL), keywright.WithTokenSource(keywright.FileToken(c.token())),
		keywright.WithTimeout(5*time.Second), keywright.WithRetry(keywright.RetryPolicy{MaxAttempts: 1}),
		keywright.WithMiddleware(func(next http.RoundTripper) http.RoundTripper {
			return transport(func(r *http.Request) (*http.Response, error) {
				g.point("before " + r.Method + " " + r.URL.Path)
				r = r.Clone(r.Context())
				r.Header.Set("X-Worker", c.Worker)
				resp, err := next.RoundTrip(r)
				if errors.Is(err, ErrLate) {
					say("late", r.Method, r.URL.Path)
				}
				g.point("after " + r.Method + " " + r.URL.Path)
				return resp, err
			})
		}),
		keywright.WithMiddleware(Guard),
	)
	if err != nil {
		return err
	}
	job := Job{Owner: c.Owner, Job: rotation.Job{
		Name: childJob, Strategy: rotation.RicloudPaired{Client: client, Keys: [2]keywright.KeyID{1, 2}},
		Sinks:  []sink.Sink{sink.File(c.token(), sink.WithLag(0))},
		Policy: rotation.Policy{Probes: 2, SettleTime: 300 * time.Millisecond, VerifyFor: 10 * time.Second, ResolveFor: 10 * time.Second},
	}}
	if c.Strategy == "overlap" {
		job.Strategy = rotation.RicloudOverlap{Client: client, Key: 1}
	}
	log := slog.New(slog.DiscardHandler)
	if os.Getenv("KEYWRIGHT_LOG") != "" {
		log = slog.New(slog.NewTextHandler(os.Stderr, nil)).With("worker", c.Worker)
	}
	r, err := New(st,
		WithSealer(rotation.SealKeyFile(filepath.Join(c.Dir, "seal.key"))), WithWorkerID(c.Worker), WithLogger(log),
		WithStep(c.Step, min(c.Step/4, 5*time.Second)), WithRescue(c.Rescue), WithSweep(time.Second), quickly(),
		WithEngineOptions(rotation.WithObserver(func(e rotation.Event) {
			if s, ok := e.(rotation.StateChanged); ok {
				g.point(string(s.To))
			}
		})),
		WithResults(func(v Result) { say("result", v.State, v.Over, v.Err) }),
		func(o *options) error { o.starting = func(job string) { say("starting", job) }; return nil },
	)
	if err != nil {
		return err
	}
	if err := r.Register(ctx, job); err != nil {
		return err
	}
	if err := r.Start(ctx); err != nil {
		return err
	}
	say("started")
	if c.Trigger {
		if err := r.Trigger(ctx, childJob); err != nil {
			return err
		}
	}
	in := bufio.NewScanner(os.Stdin)
	for in.Scan() {
		close(g.goOn) // once
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
	p := &child{t: t, cmd: exec.Command(self), lines: make(chan string, 10000)}
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

// until reads lines up to one that begins so.
func (p *child) until(prefixes ...string) string {
	p.t.Helper()
	timeout := time.After(90 * time.Second)
	var last string
	for {
		select {
		case line, ok := <-p.lines:
			require.True(p.t, ok, "the child has ended; it waited for %q, and its last line was %q", prefixes, last)
			for _, prefix := range prefixes {
				if strings.HasPrefix(line, prefix) {
					return line
				}
			}
			require.False(p.t, strings.HasPrefix(line, "failed"), line)
			last = line
		case <-timeout:
			require.Fail(p.t, "the child does not say it", "%q; the last line was %q", prefixes, last)
			return ""
		}
	}
}

// scene is a provider, a database and a sink.
type scene struct {
	childSettings
	fake  *keywrighttest.Ricloud
	d     database
	first string // the token in use at the start
}

func newScene(t *testing.T, d database, strategy string) *scene {
	t.Helper()
	fake := keywrighttest.StartRicloud(t)
	fake.AddKeys(1)
	dir := t.TempDir()
	require.NoError(t, os.Chmod(dir, 0o700))
	s := &scene{fake: fake, d: d, first: fake.Token(), childSettings: childSettings{
		Kind: d.kind, Where: d.where, URL: fake.URL(), Dir: dir, Worker: "w1", Strategy: strategy,
		Step: 2 * time.Second, Rescue: 3 * time.Second, Lease: 2 * time.Second,
	}}
	if d.kind == "sqlite" {
		s.Step, s.Rescue = time.Minute, 2*time.Minute // whatever the disk does
	}
	if strategy == "overlap" {
		s.Owner = "w1"
	}
	require.NoError(t, os.WriteFile(s.token(), []byte(fake.Token()+"\n"), 0o600))
	return s
}

// issued counts the calls that have issued a token, other than to throw it away.
func (s *scene) issued() int {
	n := 0
	for _, r := range s.fake.Requests() {
		if r.Op == "key.rotate" && r.Auth && !strings.Contains(string(r.Body), `"force":true`) {
			n++
		}
	}
	return n
}

// by counts the requests of a worker.
func (s *scene) by(worker string) int {
	n := 0
	for _, r := range s.fake.Requests() {
		if r.Header.Get("X-Worker") == worker {
			n++
		}
	}
	return n
}

// over looks at a world in which the rotation is over.
func (s *scene) over(t *testing.T) {
	t.Helper()
	require.Equal(t, 1, s.issued(), "calls that issued a token")
	b, err := os.ReadFile(s.token())
	require.NoError(t, err)
	token := strings.TrimSpace(string(b))
	key := int64(1)
	if s.Strategy == "paired" {
		key = 2
	}
	require.Equal(t, s.fake.TokenOf(key), token)
	if s.Strategy == "paired" {
		require.NotContains(t, s.fake.AcceptedTokens(1), s.first, "the token from before was burnt")
	}
	st := s.d.open(t)
	engine, err := rotation.Open("", rotation.WithJournal(st.Journal("test")), rotation.WithSealer(rotation.SealKeyFile(filepath.Join(s.Dir, "seal.key"))))
	require.NoError(t, err)
	status, err := engine.Status(t.Context(), childJob)
	require.NoError(t, err)
	require.Equal(t, rotation.StateDone, status.State)
	require.Equal(t, 1, status.Generation)
	pipe, w := io.Pipe()
	go func() { w.CloseWithError(st.AuditTrail(context.WithoutCancel(t.Context()), childJob, w)) }()
	entries, err := rotation.CheckAudit(pipe)
	require.NoError(t, err)
	require.NotZero(t, entries)
	row, err := st.Get(t.Context(), childJob)
	require.NoError(t, err)
	require.Equal(t, "DONE", row.LastState)
	if s.Kind == "sqlite" {
		for _, suffix := range []string{"", "-wal"} {
			b, err := os.ReadFile(s.Where + suffix)
			if errors.Is(err, os.ErrNotExist) {
				continue
			}
			require.NoError(t, err)
			require.NotContains(t, string(b), token)
		}
	}
}

// points are where a worker is killed.
func points(strategy string) []string {
	issue := "keys/1/rotate"
	all := []string{"PLANNED", "INTENT", "ISSUED", "VERIFIED", "DISTRIBUTING", "CONVERGING", "DONE"}
	if strategy == "paired" {
		issue = "keys/2/rotate"
		all = append(all, "RETIRING", "before POST /keys/1/rotate", "after POST /keys/1/rotate")
	}
	return append(all, "before POST /"+issue, "after POST /"+issue)
}

// A worker on SQLite that is killed, wherever it is, is followed by one that
// takes over in less than a second, and ends what was begun, once.
func TestKilledSQLite(t *testing.T) {
	t.Parallel()
	for _, strategy := range []string{"paired", "overlap"} {
		for _, point := range points(strategy) {
			t.Run(strategy+" "+strings.ReplaceAll(point, "/", " "), func(t *testing.T) {
				t.Parallel()
				s := newScene(t, sqliteAt(t), strategy)
				first := s.childSettings
				first.Trigger, first.StopAt = true, point
				p := first.spawn(t)
				p.until("staying " + point)
				p.kill()
				dead := time.Now()
				p = s.spawn(t)
				p.until("started")
				started := time.Since(dead)
				line := p.until("starting", "result DONE")
				taken := time.Since(dead)
				if !strings.HasPrefix(line, "result") {
					p.until("result DONE")
				}
				t.Logf("killed at %s: taken over after %s, of which %s for the process to start; over after %s", point,
					taken.Round(time.Millisecond), started.Round(time.Millisecond), time.Since(dead).Round(time.Millisecond))
				require.Less(t, taken, takeover)
				p.stop()
				s.over(t)
			})
		}
	}
}

// A worker that is killed at every state in turn ends all the same.
func TestKilledEverywhere(t *testing.T) {
	t.Parallel()
	s := newScene(t, sqliteAt(t), "paired")
	for i, point := range []string{
		"PLANNED", "INTENT", "RESOLVING", "INTENT", "after POST /keys/2/rotate", "ISSUED", "VERIFIED", "DISTRIBUTING", "CONVERGING", "RETIRING",
		"before POST /keys/1/rotate", "after POST /keys/1/rotate", "DONE",
	} {
		life := s.childSettings
		life.Trigger, life.StopAt = i == 0, point
		p := life.spawn(t)
		p.until("staying " + point)
		p.kill()
	}
	p := s.spawn(t)
	p.until("result DONE")
	p.stop()
	s.over(t)
}

// Of two workers on PostgreSQL one is killed: the other takes over.
func TestKilledPostgres(t *testing.T) {
	t.Parallel()
	for _, point := range []string{"INTENT", "after POST /keys/2/rotate", "DISTRIBUTING", "RETIRING", "DONE"} {
		t.Run(strings.ReplaceAll(point, "/", " "), func(t *testing.T) {
			t.Parallel()
			s := newScene(t, postgresAt(t), "paired")
			first, second := s.childSettings, s.childSettings
			first.Trigger, first.StopAt, second.Worker = true, point, "w2"
			p := first.spawn(t)
			p.until("staying " + point)
			q := second.spawn(t)
			q.until("started")
			p.kill()
			dead := time.Now()
			line := q.until("starting", "result DONE")
			taken := time.Since(dead)
			if !strings.HasPrefix(line, "result") {
				q.until("result DONE")
			}
			t.Logf("killed at %s: taken over after %s, with a rescue after %s; over after %s", point,
				taken.Round(time.Millisecond), s.Rescue, time.Since(dead).Round(time.Millisecond))
			q.stop()
			s.over(t)
		})
	}
}
