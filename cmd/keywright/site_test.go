//go:build unix

package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/keywright/keywright"
	"github.com/keywright/keywright/keywrighttest"
)

// bound is how long a program may run before a test gives up on it.
const bound = time.Minute

// ended is what a program has said, and its exit code.
type ended struct {
	stdout, stderr string
	code           int
}

func (e ended) String() string {
	return fmt.Sprintf("exit code %d\n--- stdout\n%s--- stderr\n%s", e.code, e.stdout, e.stderr)
}

// traces are what a program of Go says when it crashes.
var traces = regexp.MustCompile(`(?m)^goroutine \d+ |^panic: |^fatal error: |runtime error`)

// end checks that a program has ended of its own accord, without a stack trace,
// and returns what it has said.
func end(t *testing.T, err error, stdout, stderr string) ended {
	t.Helper()
	e := ended{stdout, stderr, 0}
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
		e.code = exit.ExitCode()
	} else {
		require.NoError(t, err, "%s", e)
	}
	require.NotEqual(t, -1, e.code, "ended by a signal: %v\n%s", err, e)
	require.NotRegexp(t, traces, stdout+stderr)
	return e
}

// site is a machine: a directory, an environment, and a provider.
type site struct {
	dir string
	env []string // beside PATH and HOME
	rc  *keywrighttest.Ricloud
	ad  *keywrighttest.AceData
	job // if there is one
}

// job is what a job file of a site describes.
type job struct {
	strategy   string
	credential string // the one that the job begins with
}

func newSite(t *testing.T) *site { return &site{dir: t.TempDir()} }

// ricloud gives a site a fake ricloud.
func (s *site) ricloud(t *testing.T, opts ...keywrighttest.Option) *keywrighttest.Ricloud {
	s.rc = keywrighttest.StartRicloud(t, opts...)
	s.env = append(s.env, "RICLOUD_URL="+s.rc.URL(), "RICLOUD_TOKEN="+s.rc.Token())
	return s.rc
}

// acedata gives a site a fake Ace Data Cloud.
func (s *site) acedata(t *testing.T, opts ...keywrighttest.Option) *keywrighttest.AceData {
	s.ad = keywrighttest.StartAceData(t, opts...)
	s.env = append(s.env, "PLATFORM_API_BASE_URL="+s.ad.URL(), "ACEDATACLOUD_PLATFORM_TOKEN="+s.ad.Token())
	return s.ad
}

func (s *site) path(name string) string { return filepath.Join(s.dir, name) }

func (s *site) write(t *testing.T, name, text string) {
	t.Helper()
	require.NoError(t, os.WriteFile(s.path(name), []byte(text), 0o600))
}

func (s *site) read(name string) string {
	b, _ := os.ReadFile(s.path(name)) // none: empty
	return string(b)
}

// command returns a command of the program, as a user would type it.
func (s *site) command(ctx context.Context, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Dir = s.dir
	cmd.Env = append([]string{
		"PATH=" + filepath.Dir(program) + string(os.PathListSeparator) + os.Getenv("PATH"), "HOME=" + s.dir, "PWD=" + s.dir,
	}, s.env...)
	return cmd
}

// run runs the program off a terminal.
func (s *site) run(t *testing.T, args ...string) ended {
	t.Helper()
	return s.start(t, args...).wait()
}

// must runs the program, which must exit with code.
func (s *site) must(t *testing.T, code int, args ...string) ended {
	t.Helper()
	e := s.run(t, args...)
	require.Equal(t, code, e.code, "keywright %s\n%s", strings.Join(args, " "), e)
	return e
}

// process is a program that runs.
type process struct {
	t      *testing.T
	cmd    *exec.Cmd
	cancel context.CancelFunc
	stdout bytes.Buffer
	lines  chan string // of standard error
	stderr strings.Builder
}

// start starts the program.
func (s *site) start(t *testing.T, args ...string) *process {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), bound)
	p := &process{t: t, cmd: s.command(ctx, args...), cancel: cancel, lines: make(chan string)}
	p.cmd.Stdout = &p.stdout
	pipe, err := p.cmd.StderrPipe()
	require.NoError(t, err)
	require.NoError(t, p.cmd.Start())
	go func() {
		defer close(p.lines)
		for r := bufio.NewReader(pipe); ; {
			line, err := r.ReadString('\n')
			if line != "" {
				p.lines <- line
			}
			if err != nil {
				return
			}
		}
	}()
	return p
}

// line returns the next line of standard error.
func (p *process) line() (line string, ok bool) {
	line, ok = <-p.lines
	p.stderr.WriteString(line)
	return line, ok
}

// until reads standard error up to a line with these words.
func (p *process) until(words string) (ok bool) {
	for {
		line, ok := p.line()
		if !ok || strings.Contains(line, words) {
			return ok
		}
	}
}

func (p *process) signal(sig os.Signal) { _ = p.cmd.Process.Signal(sig) } // it may have ended

// killed waits for the end of a program that is killed, and reports whether it
// was before it had ended by itself.
func (p *process) killed() bool {
	defer p.cancel()
	for {
		if _, ok := p.line(); !ok {
			break
		}
	}
	_ = p.cmd.Wait()
	status, _ := p.cmd.ProcessState.Sys().(syscall.WaitStatus)
	return status.Signaled()
}

// wait waits for the end of the program.
func (p *process) wait() ended {
	p.t.Helper()
	defer p.cancel()
	for {
		if _, ok := p.line(); !ok {
			break
		}
	}
	return end(p.t, p.cmd.Wait(), p.stdout.String(), p.stderr.String())
}

// eventually waits until something is so.
func eventually(t *testing.T, what string, is func() bool) {
	t.Helper()
	require.Eventually(t, is, 20*time.Second, 2*time.Millisecond, what)
}

// strategies are those of job files.
var strategies = []string{"ricloud-paired", "ricloud-overlap", "acedata-swap", "acedata-in-place"}

// interrupts reports whether a strategy interrupts service.
func (j job) interrupts() bool { return j.strategy == "acedata-in-place" }

// deliver is a command that keeps the token that it gets.
const deliver = "#!/bin/sh\nread -r token && printf '%s\\n' \"$token\" > delivered.$$ && mv delivered.$$ delivered\n"

// jobSite returns a site with a job "billing" and its three sinks: a file, a
// variable, and a command. What is called policy goes into the job file.
func jobSite(t *testing.T, strategy, policy string, opts ...keywrighttest.Option) *site {
	t.Helper()
	s := newSite(t)
	s.strategy = strategy
	var token, own string
	if strings.HasPrefix(strategy, "ricloud") {
		s.ricloud(t, opts...)
		token = s.rc.Token()
		own = "key: 1"
		if strategy == "ricloud-paired" {
			s.rc.AddKeys(1)
			own = "keys: [1, 2]"
		}
	} else {
		s.acedata(t, opts...)
		s.ad.AddCredentials(1)
		c := s.credentials(t)[0]
		token, s.credential = c.Token.Reveal(), string(c.ID)
		own = "credential: " + s.credential
		if strategy == "acedata-swap" {
			own += "\n    idle_for: never"
		} else {
			own += "\n    accept_outage: true"
		}
	}
	if policy == "" {
		policy = "{settle_time: 600ms, verify_for: 5s, resolve_for: 5s, distribute_for: 5s}"
	}
	s.write(t, "keywright.yaml", fmt.Sprintf(`version: 1
ricloud: {token_file: app.token, timeout: 300ms}
acedata: {timeout: 300ms}
policy: %s
jobs:
  - name: billing
    strategy: %s
    %s
    sinks:
      - {type: file, path: app.token, lag: 20ms}
      - {type: dotenv, path: app.env, variable: TOKEN, lag: 20ms}
      - {type: exec, name: deliver, command: [./deliver], lag: 20ms}
`, policy, strategy, own))
	s.write(t, "app.token", token+"\n")
	s.write(t, "app.env", "A=1\nTOKEN="+token+"\n")
	s.write(t, "delivered", token+"\n")
	s.write(t, "deliver", "#!/bin/sh\ncd '"+s.dir+"' || exit 1\n"+strings.TrimPrefix(deliver, "#!/bin/sh\n"))
	require.NoError(t, os.Chmod(s.path("deliver"), 0o700))
	return s
}

// credentials returns the credentials of Ace Data Cloud.
func (s *site) credentials(t *testing.T) []*keywright.Credential {
	t.Helper()
	c, err := keywright.NewAceData(keywright.WithoutEnvironment(), keywright.WithBaseURL(s.ad.URL()), keywright.WithToken(s.ad.Token()))
	require.NoError(t, err)
	var all []*keywright.Credential
	for c, err := range c.Credential.All(t.Context(), keywright.CredentialListParams{}) {
		require.NoError(t, err)
		all = append(all, c)
	}
	return all
}

// accepted returns the tokens that the provider takes of the job's keys.
func (s *site) accepted(t *testing.T) []string {
	t.Helper()
	if s.rc != nil {
		return append(s.rc.AcceptedTokens(1), s.rc.AcceptedTokens(2)...)
	}
	s.ad.ClearFaults()
	var tokens []string
	for _, c := range s.credentials(t) {
		tokens = append(tokens, s.ad.AcceptedTokens(string(c.ID))...)
	}
	return tokens
}

// held returns the tokens in the sinks.
func (s *site) held() []string {
	_, variable, _ := strings.Cut(s.read("app.env"), "TOKEN=")
	return []string{strings.TrimSpace(s.read("app.token")), strings.TrimSpace(variable), strings.TrimSpace(s.read("delivered"))}
}

// works checks that every sink holds a token that the provider accepts.
func (s *site) works(t *testing.T, e ended) {
	t.Helper()
	if s.interrupts() {
		return
	}
	accepted := s.accepted(t)
	for i, token := range s.held() {
		assert.True(t, slices.Contains(accepted, token), "what sink %d holds is not accepted\n%s", i, e)
	}
}

// agrees checks that all sinks hold one token that the provider accepts.
func (s *site) agrees(t *testing.T, e ended) {
	t.Helper()
	held := s.held()
	assert.Len(t, slices.Compact(slices.Clone(held)), 1, "the sinks hold different tokens\n%s", e)
	assert.True(t, slices.Contains(s.accepted(t), held[0]), "what the sinks hold is not accepted\n%s", e)
}

// interrupt is what a terminal sends for Ctrl-C.
var interrupt os.Signal = syscall.SIGINT

// hintedCommand is a command in what a program says.
var hintedCommand = regexp.MustCompile(`keywright (rotate (?:run|resume)[^\n]*)`)

// next returns the command that a program says to run next.
func (e ended) next(t *testing.T) []string {
	t.Helper()
	m := hintedCommand.FindStringSubmatch(e.stderr)
	require.NotNil(t, m, "it does not say what to run next\n%s", e)
	return strings.Fields(m[1])
}

// story is a subtest.
type story struct {
	name string
	tell func(*testing.T)
}

// atOnce runs stories, more at once than there are processors, because most of
// the time they wait.
func atOnce(t *testing.T, stories []story) {
	t.Helper()
	const workers = 5
	work := make(chan story)
	var group sync.WaitGroup
	for range workers {
		group.Go(func() {
			for s := range work {
				t.Run(s.name, s.tell)
			}
		})
	}
	for _, s := range stories {
		work <- s
	}
	close(work)
	group.Wait()
}
