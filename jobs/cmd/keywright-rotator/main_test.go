//go:build unix

package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/keywright/keywright/jobs/schedule"
	"github.com/keywright/keywright/jobs/store"
	"github.com/keywright/keywright/keywrighttest"
)

var update = flag.Bool("update", false, "write the golden files of testdata anew")

// program is the path of the program under test: what a user has installed.
var program string

func TestMain(m *testing.M) { os.Exit(testMain(m)) }

func testMain(m *testing.M) int {
	dir, err := os.MkdirTemp("", "keywright-rotator-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	program = filepath.Join(dir, "keywright-rotator")
	build := exec.Command("go", "build", "-trimpath", "-o", program, ".")
	build.Env = append(os.Environ(), "CGO_ENABLED=0") // as the Dockerfile does
	if out, err := build.CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "%v\n%s", err, out)
		return 1
	}
	return m.Run()
}

// pageToken is the token of page and metrics, where one is needed.
const pageToken = "canary-page-0123456789abcdef"

// world is a provider, a file of jobs with their sinks, and a database.
type world struct {
	t    *testing.T
	fake *keywrighttest.Ricloud
	dir  string // of keywright.yaml
	env  []string

	secrets []string // that must be seen nowhere
}

// newWorld has so many pairs of keys: those of job-0, job-1 and so on.
func newWorld(t *testing.T, pairs int) *world {
	t.Helper()
	w := &world{t: t, fake: keywrighttest.StartRicloud(t), dir: filepath.Join(t.TempDir(), "rotator")}
	require.NoError(t, os.Mkdir(w.dir, 0o700))
	w.fake.AddKeys(2*pairs - 1)
	w.env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + w.dir, "TMPDIR=" + t.TempDir()}
	for i := range pairs {
		w.write(fmt.Sprintf("token-%d", i), w.fake.TokenOf(int64(2*i+1))+"\n")
	}
	w.write("admin", w.fake.TokenOf(2)+"\n")
	w.write("page-token", pageToken+"\n")
	w.secrets = []string{pageToken}
	w.learn()
	w.config(pairs, "")
	return w
}

// learn notes the tokens that are accepted now.
func (w *world) learn() {
	for id := int64(1); ; id++ {
		tokens := w.fake.AcceptedTokens(id)
		if len(tokens) == 0 {
			return
		}
		w.secrets = append(w.secrets, tokens...)
	}
}

func (w *world) path(name string) string { return filepath.Join(w.dir, name) }

func (w *world) write(name, text string) {
	w.t.Helper()
	require.NoError(w.t, os.WriteFile(w.path(name), []byte(text), 0o600))
}

// token is what the sink of a job holds.
func (w *world) token(i int) string {
	w.t.Helper()
	b, err := os.ReadFile(w.path(fmt.Sprintf("token-%d", i)))
	require.NoError(w.t, err)
	return strings.TrimSpace(string(b))
}

// config writes keywright.yaml. more are lines of its top.
func (w *world) config(pairs int, more string) {
	w.t.Helper()
	var b strings.Builder
	fmt.Fprintf(&b, "version: 1\nricloud: {url: %q, token_file: token-0, timeout: 5s, retries: 0}\n", w.fake.URL())
	b.WriteString("policy: {probes: 1, settle_time: 10s}\nschedule: {every: 30d}\n" + more + "jobs:\n")
	for i := range pairs {
		fmt.Fprintf(&b, "  - {name: job-%d, strategy: ricloud-paired, keys: [%d, %d], sinks: [{type: file, path: token-%d, lag: 0s}]}\n", i, 2*i+1, 2*i+2, i)
	}
	w.write("keywright.yaml", b.String())
}

// spec is the schedule's row of each job.
func spec(t *testing.T) string {
	s, err := schedule.Parse([]byte(`{"every":"30d"}`))
	require.NoError(t, err)
	b, err := json.Marshal(s)
	require.NoError(t, err)
	return string(b)
}

// sqlite opens the database beside keywright.yaml.
func (w *world) sqlite() *store.Store {
	w.t.Helper()
	st, err := store.OpenSQLite(w.t.Context(), w.path("keywright.db"))
	require.NoError(w.t, err)
	return st
}

// due makes jobs due: as if they had been known for sixty days.
func (w *world) due(st *store.Store, names ...string) {
	w.t.Helper()
	age, parameter := "created - 60 * 86400 * 1000000", "?"
	if st.Path() == "" {
		age, parameter = "created - interval '60 days'", "$1"
	}
	for _, name := range names {
		row := store.Schedule{Job: name, Due: time.Now().Add(-time.Second), Spec: spec(w.t)}
		require.NoError(w.t, st.Put(w.t.Context(), row))
		require.NoError(w.t, st.SetDue(w.t.Context(), name, row.Due))
		_, err := st.SQL().ExecContext(w.t.Context(), "UPDATE keywright_schedule SET created = "+age+" WHERE job = "+parameter, name)
		require.NoError(w.t, err)
	}
}

// dueAtStart makes jobs due that nobody works yet.
func (w *world) dueAtStart(names ...string) {
	w.t.Helper()
	st := w.sqlite()
	w.due(st, names...)
	require.NoError(w.t, st.Close())
}

// output is what a process says. It is safe for concurrent use.
type output struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.String()
}

// process is a daemon.
type process struct {
	w    *world
	cmd  *exec.Cmd
	log  output
	code chan int
	addr string
}

// command is the program with arguments.
func (w *world) command(args ...string) *exec.Cmd {
	cmd := exec.Command(program, args...)
	cmd.Dir, cmd.Env = w.dir, w.env
	return cmd
}

// run runs the program to its end.
func (w *world) run(args ...string) (code int, stdout, stderr string) {
	w.t.Helper()
	var out, err bytes.Buffer
	cmd := w.command(args...)
	cmd.Stdout, cmd.Stderr = &out, &err
	require.NoError(w.t, cmd.Start())
	timer := time.AfterFunc(time.Minute, func() { _ = cmd.Process.Kill() })
	defer timer.Stop()
	_ = cmd.Wait() // the code says it
	w.silent(out.String(), err.String())
	return cmd.ProcessState.ExitCode(), out.String(), err.String()
}

// start starts a daemon, on a port that is free.
func (w *world) start(args ...string) *process {
	w.t.Helper()
	p := &process{w: w, code: make(chan int, 1)}
	p.cmd = w.command(append([]string{"--sweep", "1s", "--listen", "127.0.0.1:0", "--log-level", "debug", "--worker-id", "w1"}, args...)...)
	p.cmd.Stdout, p.cmd.Stderr = &p.log, &p.log
	require.NoError(w.t, p.cmd.Start())
	go func() {
		_ = p.cmd.Wait() // the code says it
		p.code <- p.cmd.ProcessState.ExitCode()
	}()
	w.t.Cleanup(func() {
		_ = p.cmd.Process.Kill()
		w.learn()
		w.silent(p.log.String())
	})
	return p
}

// ready waits until the daemon works.
func (p *process) ready() *process {
	p.w.t.Helper()
	p.awaitLog("level=INFO msg=starting ")
	_, after, _ := strings.Cut(p.log.String(), " listen=")
	p.addr, _, _ = strings.Cut(after, "\n")
	cmdline, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", p.cmd.Process.Pid))
	if !errors.Is(err, os.ErrNotExist) { // not on Linux
		require.NoError(p.w.t, err)
		p.w.silent(string(cmdline))
	}
	if p.addr == "off" {
		p.awaitLog(`msg="rotation worker started"`)
		return p
	}
	p.await("it to be ready", func() bool { code, _, _ := p.get("/readyz"); return code == http.StatusOK })
	return p
}

// await waits for something of the daemon's.
func (p *process) await(what string, yes func() bool) {
	p.w.t.Helper()
	require.Eventually(p.w.t, yes, time.Minute, 20*time.Millisecond, "waited in vain for %s; it said:\n%s", what, (*lazy)(p))
}

// lazy is a process's output when it is shown, without River's.
type lazy process

// String returns the output.
func (l *lazy) String() string {
	var b strings.Builder
	for line := range strings.Lines(l.log.String()) {
		if !strings.Contains(line, "level=DEBUG") || strings.Contains(line, " job=") {
			b.WriteString(line)
		}
	}
	return b.String()
}

func (p *process) awaitLog(text string) {
	p.w.t.Helper()
	p.await("the log to say "+text, func() bool { return strings.Contains(p.log.String(), text) })
}

// get asks the daemon's server. Whatever it answers is silent about tokens.
func (p *process) get(path string, edit ...func(*http.Request)) (code int, header http.Header, body string) {
	p.w.t.Helper()
	req, err := http.NewRequestWithContext(p.w.t.Context(), http.MethodGet, "http://"+p.addr+path, nil)
	require.NoError(p.w.t, err)
	for _, f := range edit {
		f(req)
	}
	client := http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Do(req)
	if err != nil {
		return 0, nil, err.Error()
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	assert.NoError(p.w.t, err)
	p.w.silent(string(b), fmt.Sprint(resp.Header))
	return resp.StatusCode, resp.Header, string(b)
}

// signal sends a signal.
func (p *process) signal(s syscall.Signal) {
	p.w.t.Helper()
	require.NoError(p.w.t, p.cmd.Process.Signal(s))
}

// ended waits for the end, and returns the exit code.
func (p *process) ended() int {
	p.w.t.Helper()
	select {
	case code := <-p.code:
		p.code <- code
		return code
	case <-time.After(time.Minute):
		require.Fail(p.w.t, "the daemon does not end", "it said:\n%s", p.log.String())
		return 0
	}
}

// stop ends the daemon as systemd does.
func (p *process) stop() {
	p.w.t.Helper()
	p.signal(syscall.SIGTERM)
	require.Zero(p.w.t, p.ended(), p.log.String())
}

// silent checks that no secret is in texts.
func (w *world) silent(texts ...string) {
	w.t.Helper()
	for _, text := range texts {
		for _, secret := range w.secrets {
			if strings.Contains(text, secret) {
				assert.Fail(w.t, "a secret was shown")
			}
		}
	}
}

// rotated waits until jobs were rotated, and checks what came of it.
func (p *process) rotated(before []string, jobs ...int) {
	p.w.t.Helper()
	for _, i := range jobs {
		p.awaitLog(fmt.Sprintf(`msg="rotation finished" job=job-%d state=DONE`, i))
		now := p.w.token(i)
		require.NotEqual(p.w.t, before[i], now)
		require.Contains(p.w.t, append(p.w.fake.AcceptedTokens(int64(2*i+1)), p.w.fake.AcceptedTokens(int64(2*i+2))...), now)
	}
}

func withToken(r *http.Request) { r.Header.Set("Authorization", "Bearer "+pageToken) }

func withHost(host string) func(*http.Request) { return func(r *http.Request) { r.Host = host } }
