//go:build unix

package rotation_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/keywright/keywright/keywrighttest"
	"github.com/keywright/keywright/rotation"
)

func init() {
	stopSelf = func() { _ = syscall.Kill(os.Getpid(), syscall.SIGSTOP) }
}

// machine is a world whose disk and processes are real. The provider is in
// this process, so that it survives the others.
type machine struct {
	*world
	childSettings
	server *httptest.Server
	open   connections
	calls  atomic.Int64 // that have arrived
	base   int          // tokens issued before the first rotation
	kills  int
}

// faults are what may happen to the call that issues a token. None keeps it
// from taking effect, so that it takes effect once.
var faults = []trouble{
	{name: "none"},
	{name: "answer dropped after commit", fault: at(keywrighttest.AfterApply, keywrighttest.Drop, 0)},
	{name: "500 after commit", fault: at(keywrighttest.AfterApply, keywrighttest.Answer, 500)},
	{name: "commit after the answer was dropped", fault: func(op string) *keywrighttest.Fault {
		return &keywrighttest.Fault{Op: op, When: keywrighttest.LateApply, Do: keywrighttest.Drop, Delay: 150 * time.Millisecond}
	}},
}

// pingPath is a path that the provider never sees.
const pingPath = "/ping"

func newMachine(parent string, strategy strategyName, fault trouble) (*machine, error) {
	w, err := newWorld(strategy)
	if err != nil {
		return nil, err
	}
	if err := w.seed(); err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp(parent, "machine")
	if err != nil {
		return nil, err
	}
	m := &machine{world: w}
	m.childSettings = childSettings{
		Strategy: strategy, Credential: w.first, Dir: dir, Goal: 1,
		Timeout: time.Second, Settle: 500 * time.Millisecond,
	}
	m.base = m.issued()
	m.server = httptest.NewUnstartedServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if r.URL.Path == pingPath {
			return
		}
		m.calls.Add(1)
		m.handler().ServeHTTP(rw, r)
	}))
	m.server.Config.ConnState = m.open.note
	m.server.Start()
	m.URL = m.server.URL
	if fault.fault != nil {
		m.inject(*fault.fault(strategy.issues()))
	}
	if err := os.Mkdir(filepath.Join(dir, "app"), 0o700); err != nil {
		return nil, err
	}
	if m.aceData != nil {
		if err := os.WriteFile(m.platform(), []byte(m.aceData.Token()+"\n"), 0o600); err != nil {
			return nil, err
		}
	}
	for i, path := range m.paths() {
		b, _ := w.disk.ReadFile(w.sinks[i])
		if err := os.WriteFile(path, b, 0o600); err != nil {
			return nil, err
		}
	}
	return m, nil
}

func (m *machine) close() {
	m.server.Close()
	m.world.close()
	_ = os.RemoveAll(m.Dir)
}

// paths are the sinks, in the order of world.sinks.
func (m *machine) paths() []string { return []string{m.token(), m.dotenv()} }

// issued returns how many calls that issue a token, other than to throw it
// away, have taken effect.
func (m *machine) issued() int {
	if m.aceData != nil {
		return m.aceData.Applied(m.strategy.issues()) - m.base
	}
	n := 0
	for _, r := range m.ricloud.Requests() {
		if r.Op == m.strategy.issues() && r.Auth && !bytes.Contains(r.Body, []byte(`"force":true`)) {
			n++
		}
	}
	return n
}

// connections counts those that the provider has not done with.
type connections struct {
	mu   sync.Mutex
	n    int
	none chan struct{} // closed when there are none; nil: nobody waits
}

func (c *connections) note(_ net.Conn, state http.ConnState) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch state {
	case http.StateNew:
		c.n++
	case http.StateClosed:
		c.n--
	}
	if c.n == 0 && c.none != nil {
		close(c.none)
		c.none = nil
	}
}

// wait waits until there are none.
func (c *connections) wait(ctx context.Context) error {
	c.mu.Lock()
	none := make(chan struct{})
	if c.n == 0 {
		close(none)
	} else {
		c.none = none
	}
	c.mu.Unlock()
	select {
	case <-none:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// settled waits until the provider has done with whatever dead processes have
// sent.
func (m *machine) settled(ctx context.Context) error {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, m.URL+pingPath, nil)
	if err != nil {
		return err
	}
	// Its connection is accepted after theirs.
	resp, err := (&http.Transport{DisableKeepAlives: true}).RoundTrip(r)
	if err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, resp.Body)
	return errors.Join(err, resp.Body.Close(), m.open.wait(ctx))
}

// command is a child with the given changes to its settings.
func (m *machine) command(ctx context.Context, change func(*childSettings)) (*exec.Cmd, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	settings := m.childSettings
	if change != nil {
		change(&settings)
	}
	text, err := json.Marshal(settings)
	if err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, self)
	cmd.Env = append(os.Environ(), childVariable+"="+string(text), "GORACE=atexit_sleep_ms=0")
	return cmd, nil
}

// life runs a child until it ends, and looks at what it leaves.
func (m *machine) life(ctx context.Context, change func(*childSettings)) (report childReport, killed bool, err error) {
	cmd, err := m.command(ctx, change)
	if err != nil {
		return report, false, err
	}
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err = cmd.Run()
	m.say("%s%s", stdout.Bytes(), stderr.Bytes())
	if killed = wasKilled(err); killed {
		m.kills++
	} else if err == nil {
		err = json.Unmarshal(stdout.Bytes(), &report)
	}
	if err != nil && !killed {
		return report, killed, fmt.Errorf("%w: %s", err, stderr.Bytes())
	}
	return report, killed, m.inspect(ctx)
}

func wasKilled(err error) bool {
	var exit *exec.ExitError
	if !errors.As(err, &exit) {
		return false
	}
	status, ok := exit.Sys().(syscall.WaitStatus)
	return ok && status.Signaled() && status.Signal() == syscall.SIGKILL
}

// finish runs children until the rotations are done, and looks at the world.
func (m *machine) finish(ctx context.Context) error {
	var last childReport
	for range restarts {
		report, killed, err := m.life(ctx, nil)
		switch {
		case err != nil:
			return err
		case killed:
			return errors.New("somebody else has killed the child")
		case report.Error == "" && report.State == rotation.StateDone:
			return m.done()
		case report.Error != "unfinished" && report.Error != "not issued":
			return fmt.Errorf("ended with an error: %s", report.Error)
		}
		last = report
	}
	return fmt.Errorf("not done after %d restarts: %+v", restarts, last)
}

// done looks at a world in which the rotations are done.
func (m *machine) done() error {
	m.world.close() // waits for what was lost on the way; the machine has a server of its own
	if n := m.issued(); n != m.Goal {
		return fmt.Errorf("I3: %d rotations took effect %d times", m.Goal, n)
	}
	return m.over(&rotation.Result{State: rotation.StateDone})
}

// What may be in a file at any time.
var (
	tokenShape  = regexp.MustCompile(`^[0-9A-Za-z-]{20,}\n$`)
	dotenvShape = regexp.MustCompile(`^# app\nTOKEN=[0-9A-Za-z-]{20,} # keep\nOTHER=1\n$`)
	orphanName  = regexp.MustCompile(`^\.(token|\.env)\.keywright-[0-9a-f]{16}\.tmp$`)
	stateName   = regexp.MustCompile(`^(sealing\.key|sealing\.key\.lock|\.sealing\.key\.keywright-[0-9a-f]{16}\.tmp` +
		`|app/(state|state\.prev|state\.next|state\.spare|state\.reserve|lock|audit\.jsonl))$`)
)

// inspect looks at a world in which nobody is at work.
func (m *machine) inspect(ctx context.Context) error {
	if err := m.settled(ctx); err != nil {
		return err
	}
	for i, shape := range []*regexp.Regexp{tokenShape, dotenvShape} {
		b, err := os.ReadFile(m.paths()[i])
		if err != nil {
			return err
		}
		if !shape.Match(b) {
			return fmt.Errorf("%s is torn: %d bytes", m.sinks[i], len(b))
		}
		m.world.disk.WriteFile(m.sinks[i], b, 0o600)
	}
	m.note()
	m.mu.Lock()
	problem := m.problem
	m.mu.Unlock()
	return errors.Join(problem, m.inspectApp(), m.inspectJournal(ctx), m.inspectSaid())
}

// inspectApp looks at the directory of the sinks.
func (m *machine) inspectApp() error {
	entries, err := os.ReadDir(filepath.Dir(m.token()))
	if err != nil {
		return err
	}
	orphans := 0
	for _, e := range entries {
		info, err := e.Info()
		if err != nil {
			return err
		}
		if info.Mode() != 0o600 {
			return fmt.Errorf("%s has mode %s", e.Name(), info.Mode())
		}
		switch e.Name() {
		case "token", ".env", ".token.lock", "..env.lock":
		default:
			if !orphanName.MatchString(e.Name()) {
				return fmt.Errorf("%s was left behind", e.Name())
			}
			orphans++
		}
	}
	if orphans > m.kills {
		return fmt.Errorf("%d temporary files were left behind by %d kills", orphans, m.kills)
	}
	return nil
}

// inspectJournal looks at the journal, in which no token may be.
func (m *machine) inspectJournal(ctx context.Context) error {
	err := filepath.WalkDir(m.journal(), func(path string, e fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) && path == m.journal() {
			return nil // it was killed early
		}
		if err != nil {
			return err
		}
		info, err := e.Info()
		if err != nil {
			return err
		}
		name, err := filepath.Rel(m.journal(), path)
		if err != nil {
			return err
		}
		want := fs.FileMode(0o600)
		if e.IsDir() {
			want = fs.ModeDir | 0o700
		}
		if info.Mode() != want {
			return fmt.Errorf("%s has mode %s", name, info.Mode())
		}
		if e.IsDir() {
			return nil
		}
		if !stateName.MatchString(name) {
			return fmt.Errorf("%s was left behind", name)
		}
		b, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		if m.tells(b) {
			return fmt.Errorf("I8: %s has a token", name)
		}
		return nil
	})
	if err != nil {
		return err
	}
	return errors.Join(m.inspectAudit(), m.inspectStatus(ctx))
}

func (m *machine) inspectAudit() error {
	f, err := os.Open(filepath.Join(m.journal(), "app", "audit.jsonl"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = rotation.CheckAudit(f)
	return err
}

// inspectStatus compares what the journal says with what has happened.
func (m *machine) inspectStatus(ctx context.Context) error {
	engine, err := rotation.Open(m.journal())
	if err != nil {
		return err
	}
	status, err := engine.Status(ctx, "app")
	if err != nil {
		return err
	}
	least, most := status.Generation, status.Generation
	switch status.State {
	case rotation.StateIdle, rotation.StatePlanned, rotation.StateDone:
	case rotation.StateIntent, rotation.StateResolving:
		most++
	case rotation.StateIssued, rotation.StateVerified, rotation.StateDistributing, rotation.StateConverging, rotation.StateRetiring:
		least++
		most++
	default:
		return fmt.Errorf("it is %s: %s", status.State, status.Problem)
	}
	if n := m.issued(); n < least || n > most {
		return fmt.Errorf("I3: the journal says %s after %d rotations, and %d took effect", status.State, status.Generation, n)
	}
	return nil
}

// inspectSaid looks for tokens in what was printed since it looked last.
func (m *machine) inspectSaid() error {
	m.mu.Lock()
	said := bytes.Clone(m.said.Bytes())
	m.said.Reset()
	m.mu.Unlock()
	if m.tells(said) {
		return errors.New("I8: a token was printed")
	}
	return nil
}

// tells reports whether a token is in b.
func (m *machine) tells(b []byte) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	for token := range m.secrets {
		if bytes.Contains(b, []byte(token)) {
			return true
		}
	}
	return false
}

// soak says that there is time for everything.
func soak() bool { return os.Getenv("KEYWRIGHT_SOAK") == "1" }

// pick returns the greater number when there is time for it.
func pick(quick, thorough int) int {
	if soak() {
		return thorough
	}
	return quick
}

// newSeed returns a seed, which the log tells.
func newSeed(t *testing.T) uint64 {
	t.Helper()
	seed := rand.Uint64()
	if text := os.Getenv("KEYWRIGHT_SEED"); text != "" {
		var err error
		seed, err = strconv.ParseUint(text, 10, 64)
		require.NoError(t, err)
	}
	t.Logf("KEYWRIGHT_SEED=%d", seed)
	return seed
}

// inParallel runs stories, more at once than there are processors, because
// most of the time they wait.
func inParallel[S fmt.Stringer](t *testing.T, stories []S, run func(S) error) {
	t.Helper()
	const workers = 6
	work := make(chan S)
	var group sync.WaitGroup
	for range workers {
		group.Go(func() {
			for s := range work {
				if err := run(s); err != nil {
					t.Errorf("%s: %v", s, err)
				}
			}
		})
	}
	for _, s := range stories {
		work <- s
	}
	close(work)
	group.Wait()
}

// killStory is a machine whose processes are killed.
type killStory struct {
	strategy strategyName
	fault    trouble
	kills    []int  // in each life the step
	at       string // the step of the only kill
	tear     bool
}

func (s killStory) String() string {
	return fmt.Sprintf("%s, %s, killed at %v %s (torn at the end: %t)", s.strategy, s.fault.name, s.kills, s.at, s.tear)
}

// tell plays the story and returns how many kills there were.
func (s killStory) tell(ctx context.Context, dir string) (kills int, err error) {
	m, err := newMachine(dir, s.strategy, s.fault)
	if err != nil {
		return 0, err
	}
	defer m.close()
	for _, k := range s.kills {
		_, killed, err := m.life(ctx, func(c *childSettings) { c.KillAt, c.Tear = k, s.tear })
		if err != nil {
			return m.kills, err
		}
		if !killed {
			break // it was over before
		}
	}
	return m.kills, m.finish(ctx)
}

// undisturbed returns the steps of a life in which nobody is killed, for every
// strategy and fault.
func undisturbed(t *testing.T) map[string][]string {
	t.Helper()
	var stories []killStory
	for _, s := range strategies {
		for _, f := range faults {
			stories = append(stories, killStory{strategy: s, fault: f})
		}
	}
	var mu sync.Mutex
	steps, dir := make(map[string][]string), t.TempDir()
	inParallel(t, stories, func(s killStory) error {
		m, err := newMachine(dir, s.strategy, s.fault)
		if err != nil {
			return err
		}
		defer m.close()
		report, _, err := m.life(t.Context(), nil)
		if err != nil {
			return err
		}
		if report.State != rotation.StateDone || report.Error != "" {
			return fmt.Errorf("%s %s", report.State, report.Error)
		}
		mu.Lock()
		steps[s.String()] = report.Steps
		mu.Unlock()
		return m.done()
	})
	require.False(t, t.Failed())
	return steps
}

// TestKill9 kills processes with SIGKILL, before and after what they do to the
// disk and to the provider and in the middle of what they write, and starts
// them again until they are done.
func TestKill9(t *testing.T) {
	t.Parallel()
	start, steps := time.Now(), undisturbed(t)
	var stories []killStory
	for _, s := range strategies {
		for i, f := range faults {
			names := steps[killStory{strategy: s, fault: f}.String()]
			torn, issuing := 0, ""
			for k, name := range names {
				writes := strings.HasSuffix(name, "(torn)")
				if writes {
					torn++
				}
				changes := strings.HasPrefix(name, callStep) && !strings.HasPrefix(name, callStep+"GET ")
				if changes && issuing == "" {
					issuing = strings.TrimSuffix(name, moment(false)) + moment(true)
				}
				// Nobody should write to a sink itself.
				direct := name == diskStep+"write token (torn)" || name == diskStep+"write .env (torn)"
				sampled := soak() || i == 0 && (writes && torn%11 == 0 || direct)
				story := killStory{strategy: s, fault: f, kills: []int{k + 1}, at: name}
				if sampled || i == 0 && changes || name == issuing || k == (i+1)*len(names)/(len(faults)+1) {
					stories = append(stories, story)
				}
				if sampled && writes {
					story.tear = true
					stories = append(stories, story)
				}
			}
		}
	}
	var kills atomic.Int64
	dir := t.TempDir()
	inParallel(t, stories, func(s killStory) error {
		n, err := s.tell(t.Context(), dir)
		kills.Add(int64(n))
		return err
	})
	t.Logf("%d kills in %s", kills.Load(), time.Since(start).Round(time.Millisecond))
	// How often a lost call is asked after depends on the time.
	assert.Greater(t, int(kills.Load()), len(stories)*9/10)
}

// TestRandomKills kills several processes in a row.
func TestRandomKills(t *testing.T) {
	t.Parallel()
	start, seed := time.Now(), newSeed(t)
	rng := rand.New(rand.NewPCG(seed, 0))
	stories := make([]killStory, pick(15, 300))
	for i := range stories {
		s := &stories[i]
		s.strategy, s.fault = strategies[rng.IntN(len(strategies))], faults[rng.IntN(len(faults))]
		s.tear = rng.IntN(2) == 0
		for range 2 + rng.IntN(2) {
			// The process that comes next has some of the way behind it.
			s.kills = append(s.kills, 1+rng.IntN(350/(1+len(s.kills))))
		}
	}
	var kills atomic.Int64
	dir := t.TempDir()
	inParallel(t, stories, func(s killStory) error {
		n, err := s.tell(t.Context(), dir)
		kills.Add(int64(n))
		return err
	})
	t.Logf("%d kills in %d stories in %s", kills.Load(), len(stories), time.Since(start).Round(time.Millisecond))
	assert.Positive(t, kills.Load())
}

// stopped is a child that stops itself again and again.
type stopped struct {
	cmd    *exec.Cmd
	stdin  io.WriteCloser
	output []*os.File
	over   bool
}

func (m *machine) startStopped(ctx context.Context, every int) (*stopped, error) {
	cmd, err := m.command(ctx, func(c *childSettings) { c.StopEvery = every })
	if err != nil {
		return nil, err
	}
	s := &stopped{cmd: cmd}
	for range 2 {
		f, err := os.CreateTemp(m.Dir, "output")
		if err != nil {
			return nil, err
		}
		s.output = append(s.output, f)
	}
	cmd.Stdout, cmd.Stderr = s.output[0], s.output[1]
	if s.stdin, err = cmd.StdinPipe(); err != nil {
		return nil, err
	}
	return s, cmd.Start()
}

// wait waits until the child has stopped or has ended.
func (s *stopped) wait() (status syscall.WaitStatus, err error) {
	for {
		_, err = syscall.Wait4(s.cmd.Process.Pid, &status, syscall.WUNTRACED, nil)
		if !errors.Is(err, syscall.EINTR) {
			break
		}
	}
	s.over = err == nil && !status.Stopped()
	return status, err
}

// goOn lets the child go on.
func (s *stopped) goOn() error {
	_, err := s.stdin.Write([]byte{'\n'})
	return errors.Join(err, s.cmd.Process.Signal(syscall.SIGCONT))
}

// kill ends the child where it is.
func (s *stopped) kill() error {
	if err := s.cmd.Process.Kill(); err != nil {
		return err
	}
	status, err := s.wait()
	if err == nil && !(status.Signaled() && status.Signal() == syscall.SIGKILL) {
		err = fmt.Errorf("it ended otherwise: %v", status)
	}
	return err
}

// close ends the child, if it has not ended, and returns what it has printed.
func (s *stopped) close() (stdout, stderr []byte) {
	if !s.over {
		_ = s.kill()
	}
	_ = s.cmd.Wait() // it was waited for; this frees what belongs to it
	_ = s.stdin.Close()
	var out [2][]byte
	for i, f := range s.output {
		out[i], _ = os.ReadFile(f.Name())
		_ = f.Close()
		_ = os.Remove(f.Name())
	}
	return out[0], out[1]
}

// rivalStory is a machine with two engines for one job.
type rivalStory struct {
	strategy strategyName
	killAt   int // the stop at which the first engine is killed; 0: none
}

func (s rivalStory) String() string {
	return fmt.Sprintf("%s, killed at stop %d", s.strategy, s.killAt)
}

// stopsOfTheDisk is how many steps of the disk are between two stops.
const stopsOfTheDisk = 15

// tell stops the first engine again and again, and each time starts another.
func (s rivalStory) tell(ctx context.Context, dir string) (stops int, err error) {
	m, err := newMachine(dir, s.strategy, faults[0])
	if err != nil {
		return 0, err
	}
	defer m.close()
	m.Timeout = time.Minute // a call may take as long as the other engine
	first, err := m.startStopped(ctx, stopsOfTheDisk)
	if err != nil {
		return 0, err
	}
	over := sync.OnceValues(first.close)
	defer over()
	for {
		status, err := first.wait()
		if err != nil {
			return stops, err
		}
		if !status.Stopped() {
			break
		}
		stops++
		if stops == s.killAt {
			if err := first.kill(); err != nil {
				return stops, err
			}
			m.kills++
			break
		}
		if s.killAt == 0 {
			if err := m.rival(ctx); err != nil {
				return stops, fmt.Errorf("stop %d: %w", stops, err)
			}
		}
		if err := first.goOn(); err != nil {
			return stops, err
		}
	}
	stdout, stderr := over()
	m.say("%s%s", stdout, stderr)
	if s.killAt == 0 {
		var report childReport
		if err := json.Unmarshal(stdout, &report); err != nil {
			return stops, fmt.Errorf("%w: %s", err, stderr)
		}
		if report.State != rotation.StateDone || report.Error != "" {
			return stops, fmt.Errorf("the first engine ended with %s %s", report.State, report.Error)
		}
	} else if stops < s.killAt {
		return stops, errors.New("it was over before")
	}
	m.Timeout = time.Second
	return stops, errors.Join(m.inspect(ctx), m.finish(ctx))
}

// rival runs a second engine beside one that holds the job's lock.
func (m *machine) rival(ctx context.Context) error {
	calls := m.calls.Load()
	cmd, err := m.command(ctx, nil)
	if err != nil {
		return err
	}
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	m.say("%s%s", out, stderr.Bytes())
	var report childReport
	if err == nil {
		err = json.Unmarshal(out, &report)
	}
	switch {
	case err != nil:
		return fmt.Errorf("%w: %s", err, stderr.Bytes())
	case report.Error != "busy":
		return fmt.Errorf("a second engine ended with %s %s beside the first", report.State, report.Error)
	case m.calls.Load() != calls:
		return errors.New("a second engine has made a call beside the first")
	}
	return nil
}

// TestTwoEngines stops an engine at every call, before and after it, and at
// some steps of the disk, and starts a second one beside it; and it kills the
// stopped one.
func TestTwoEngines(t *testing.T) {
	t.Parallel()
	start, dir := time.Now(), t.TempDir()
	var mu sync.Mutex
	most := make(map[strategyName]int)
	var stories []rivalStory
	for _, s := range strategies {
		if s == paired || s == swap || soak() {
			stories = append(stories, rivalStory{strategy: s})
		}
	}
	inParallel(t, stories, func(s rivalStory) error {
		stops, err := s.tell(t.Context(), dir)
		mu.Lock()
		most[s.strategy] = stops
		mu.Unlock()
		return err
	})
	require.False(t, t.Failed())
	rivals := 0
	var killed []rivalStory
	for _, s := range stories {
		rivals += most[s.strategy]
		stride := pick(max(1, most[s.strategy]/4), 1)
		for k := stride; k <= most[s.strategy]; k += stride {
			killed = append(killed, rivalStory{s.strategy, k})
		}
	}
	inParallel(t, killed, func(s rivalStory) error {
		_, err := s.tell(t.Context(), dir)
		return err
	})
	t.Logf("%d stops with a second engine, %d stops with a kill, in %s", rivals, len(killed), time.Since(start).Round(time.Millisecond))
	assert.Positive(t, rivals)
}

// journalStory is a machine whose processes rotate without an end and are
// killed after a random time.
type journalStory struct {
	seed  uint64
	kills int
}

func (s journalStory) String() string { return fmt.Sprintf("seed %d", s.seed) }

func (s journalStory) tell(ctx context.Context, dir string) (rotations int, err error) {
	m, err := newMachine(dir, paired, faults[0])
	if err != nil {
		return 0, err
	}
	defer m.close()
	// All that a dead process has sent has arrived before the next one starts.
	m.Settle = 5 * time.Millisecond
	rng := rand.New(rand.NewPCG(s.seed, 1))
	for range s.kills {
		if err := m.killAfter(ctx, time.Duration(1000+rng.IntN(39_000))*time.Microsecond); err != nil {
			return 0, fmt.Errorf("kill %d: %w", m.kills, err)
		}
	}
	engine, err := rotation.Open(m.journal())
	if err != nil {
		return 0, err
	}
	status, err := engine.Status(ctx, "app")
	if err != nil {
		return 0, err
	}
	m.Goal = status.Generation + 1
	if err := m.finish(ctx); err != nil {
		return status.Generation, err
	}
	return status.Generation, m.sweep(ctx)
}

// killAfter runs a child that rotates without an end, and kills it.
func (m *machine) killAfter(ctx context.Context, d time.Duration) error {
	cmd, err := m.command(ctx, func(c *childSettings) { c.Goal = 0 })
	if err != nil {
		return err
	}
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	// It says that it has started, and nothing else.
	said := make([]byte, len("started\n"))
	_, err = io.ReadFull(stdout, said)
	if err == nil {
		pass(ctx, d)
	}
	killErr := cmd.Process.Kill()
	more, readErr := io.ReadAll(stdout)
	waitErr := cmd.Wait()
	m.say("%s%s", more, stderr.Bytes())
	switch {
	case err != nil || killErr != nil || readErr != nil:
		return errors.Join(err, killErr, readErr)
	case !wasKilled(waitErr):
		return fmt.Errorf("it ended by itself: %w: %s %s", waitErr, more, stderr.Bytes())
	}
	m.kills++
	return m.inspect(ctx)
}

// sweep makes what was left behind old, and rotates once more: all of it
// goes.
func (m *machine) sweep(ctx context.Context) error {
	app := filepath.Dir(m.token())
	entries, err := os.ReadDir(app)
	if err != nil {
		return err
	}
	long := time.Now().Add(-2 * time.Hour)
	for _, e := range entries {
		if err := os.Chtimes(filepath.Join(app, e.Name()), long, long); err != nil {
			return err
		}
	}
	m.kills = 0
	m.Goal++
	return m.finish(ctx)
}

// TestJournalKills kills processes that rotate without an end, at any moment
// and in the middle of calls.
func TestJournalKills(t *testing.T) {
	t.Parallel()
	const machines = 2
	start, seed := time.Now(), newSeed(t)
	stories := make([]journalStory, machines)
	kills := pick(100, 500)
	for i := range stories {
		stories[i] = journalStory{seed + uint64(i), kills / machines}
	}
	var rotations atomic.Int64
	dir := t.TempDir()
	inParallel(t, stories, func(s journalStory) error {
		n, err := s.tell(t.Context(), dir)
		rotations.Add(int64(n))
		return err
	})
	t.Logf("%d kills, %d rotations finished between them, in %s", kills, rotations.Load(), time.Since(start).Round(time.Millisecond))
}
