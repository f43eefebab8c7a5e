//go:build unix

package main

import (
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/creack/pty"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/keywright/keywright"
	"github.com/keywright/keywright/keywrighttest"
)

// goesOn checks what a run that was interrupted has left, does what it says to
// do next, and checks that the rotation is done then. It reports whether it was
// not over before.
func (s *site) goesOn(t *testing.T, e ended) (interrupted bool) {
	t.Helper()
	s.fakes().ClearFaults()
	s.works(t, e)
	switch e.code {
	case 0: // it was over
		s.agrees(t, e)
		return false
	case 130:
	default:
		require.Failf(t, "another exit code", "%s", e)
	}
	assert.Contains(t, e.stderr, "interrupted", "%s", e)
	next := s.must(t, 0, e.next(t)...)
	assert.Regexp(t, `(?m)^state +DONE$`, next.stdout, "%s\nand then\n%s", e, next)
	s.agrees(t, next)
	return true
}

// fakes returns the site's provider.
func (s *site) fakes() interface {
	Inject(...keywrighttest.Fault)
	ClearFaults()
	Requests() []keywrighttest.Request
} {
	if s.rc != nil {
		return s.rc
	}
	return s.ad
}

// spoken returns how many lines a rotation says on standard error, and how many
// calls it makes.
func spoken(t *testing.T, strategy string) (lines, calls int) {
	t.Helper()
	s := jobSite(t, strategy, "")
	before := len(s.fakes().Requests())
	e := s.must(t, 0, "rotate", "run")
	calls = len(s.fakes().Requests()) - before
	s.agrees(t, e)
	return strings.Count(e.stderr, "\n"), calls
}

// TestInterruptAtEachLine interrupts rotations at each line that they say.
func TestInterruptAtEachLine(t *testing.T) {
	t.Parallel()
	var stories []story
	var interrupted atomic.Int64
	for _, strategy := range strategies {
		lines, _ := spoken(t, strategy)
		require.Greater(t, lines, 10)
		for n := 1; n <= lines; n++ {
			for name, signals := range map[string][]os.Signal{
				"SIGINT": {interrupt}, "SIGTERM": {syscall.SIGTERM}, "SIGINT twice": {interrupt, interrupt},
			} {
				if name != "SIGINT" && n%4 != 0 {
					continue
				}
				stories = append(stories, story{fmt.Sprintf("%s at line %d of %s", name, n, strategy), func(t *testing.T) {
					s := jobSite(t, strategy, "")
					p := s.start(t, "rotate", "run")
					for range n {
						p.line()
					}
					for _, sig := range signals {
						p.signal(sig)
					}
					if s.goesOn(t, p.wait()) {
						interrupted.Add(1)
					}
				}})
			}
		}
	}
	atOnce(t, stories)
	t.Logf("%d of %d were interrupted", interrupted.Load(), len(stories))
	assert.Greater(t, int(interrupted.Load()), len(stories)/2)
}

// TestInterruptInCalls interrupts rotations while the provider is being asked:
// it has done what it was asked for, or not.
func TestInterruptInCalls(t *testing.T) {
	t.Parallel()
	var stories []story
	for _, strategy := range strategies {
		_, calls := spoken(t, strategy)
		require.Greater(t, calls, 4)
		for n := range calls {
			for name, when := range map[string]keywrighttest.Moment{"done": keywrighttest.AfterApply, "not done": keywrighttest.BeforeApply} {
				stories = append(stories, story{fmt.Sprintf("call %d of %s, %s", n+1, strategy, name), func(t *testing.T) {
					s := jobSite(t, strategy, "")
					s.inCall(t, n, keywrighttest.Fault{When: when, Do: keywrighttest.Stall})
					before := len(s.fakes().Requests())
					p := s.start(t, "rotate", "run")
					eventually(t, "the call arrives", func() bool { return len(s.fakes().Requests()) > before+n })
					p.signal(interrupt)
					assert.True(t, s.goesOn(t, p.wait()), "it was over")
				}})
			}
		}
	}
	atOnce(t, stories)
}

// inCall makes a request go wrong after n that do not.
func (s *site) inCall(t *testing.T, n int, fault keywrighttest.Fault) {
	t.Helper()
	if n > 0 {
		s.fakes().Inject(keywrighttest.Fault{When: keywrighttest.AfterApply, Times: n}) // answers as it would
	}
	s.fakes().Inject(fault)
}

// TestInterruptOnTerminal types Ctrl-C while a command gets the token.
func TestInterruptOnTerminal(t *testing.T) {
	t.Parallel()
	s := jobSite(t, "ricloud-paired", "")
	script := s.read("deliver")
	s.write(t, "deliver", "#!/bin/sh\n: >'"+s.path("reached")+"'\nexec sleep 60\n")
	cmd := s.command(t.Context(), "rotate", "run")
	tty, err := pty.Start(cmd)
	require.NoError(t, err)
	defer tty.Close()
	typed := make(chan error, 1)
	go func() {
		for tick := time.NewTicker(time.Millisecond); !exists(s.path("reached")); <-tick.C {
			if t.Context().Err() != nil {
				typed <- t.Context().Err()
				return
			}
		}
		_, err := tty.WriteString("\x03")
		typed <- err
	}()
	screen, _ := io.ReadAll(tty) // its error is the end of the program
	require.NoError(t, <-typed)
	e := end(t, cmd.Wait(), "", strings.ReplaceAll(string(screen), "\r\n", "\n"))
	require.Equal(t, 130, e.code, "%s", e)
	s.write(t, "deliver", script)
	s.goesOn(t, e)
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// TestKilledCommand kills the program at random moments, and has it go on.
func TestKilledCommand(t *testing.T) {
	t.Parallel()
	seed := rand.Uint64()
	if text := os.Getenv("KEYWRIGHT_SEED"); text != "" {
		var err error
		seed, err = strconv.ParseUint(text, 10, 64)
		require.NoError(t, err)
	}
	t.Logf("KEYWRIGHT_SEED=%d", seed)
	rng := rand.New(rand.NewPCG(seed, 0))
	var kills atomic.Int64
	var stories []story
	for n := range 20 {
		strategy, after := strategies[n%len(strategies)], time.Duration(rng.IntN(90_000))*time.Microsecond
		stories = append(stories, story{fmt.Sprintf("%s after %v", strategy, after), func(t *testing.T) {
			s := jobSite(t, strategy, "")
			p := s.start(t, "rotate", "run")
			timer := time.AfterFunc(after, func() { p.signal(os.Kill) })
			defer timer.Stop()
			if !p.killed() {
				return // it was over before
			}
			kills.Add(1)
			s.works(t, ended{stderr: p.stderr.String()})
			e := s.must(t, 0, "rotate", "resume")
			if !strings.Contains(e.stdout, "DONE") { // it had not begun
				assert.Contains(t, e.stdout, "IDLE", "%s", e)
				e = s.must(t, 0, "rotate", "run")
			}
			assert.Contains(t, e.stdout, "DONE", "%s", e)
			s.agrees(t, e)
		}})
	}
	atOnce(t, stories)
	t.Logf("%d kills", kills.Load())
	assert.Positive(t, kills.Load())
}

// TestTwoRuns runs a job twice at the same time.
func TestTwoRuns(t *testing.T) {
	t.Parallel()
	var stories []story
	var beside atomic.Int64 // the second came while the first was at it
	for n := range 20 {
		strategy := strategies[n%len(strategies)]
		stories = append(stories, story{fmt.Sprintf("round %d: %s", n+1, strategy), func(t *testing.T) {
			s := jobSite(t, strategy, "{settle_time: 600ms, min_interval: 1h}")
			first, second := s.start(t, "rotate", "run"), s.start(t, "rotate", "run")
			two := []ended{first.wait(), second.wait()}
			slices.SortFunc(two, func(a, b ended) int { return a.code - b.code })
			require.Equal(t, 0, two[0].code, "%s\n%s", two[0], two[1])
			require.Equal(t, 1, two[1].code, "%s\n%s", two[0], two[1])
			assert.Regexp(t, `another run|has the lock|is rotating|the last rotation was over`, two[1].stderr)
			if !strings.Contains(two[1].stderr, "the last rotation was over") {
				beside.Add(1)
			}
			assert.Contains(t, two[0].stdout, "DONE")
			s.agrees(t, two[0])
			if strategy == "ricloud-paired" {
				assert.Equal(t, 2, s.rc.Applied("key.rotate"), "one issue, one burn")
			}
		}})
	}
	atOnce(t, stories)
	t.Logf("%d ran beside another", beside.Load())
	assert.Positive(t, beside.Load())
}

// issuing are the commands that have the provider issue a secret.
func issuing(t *testing.T, s *site) map[string]struct {
	op   string
	args []string
} {
	t.Helper()
	s.ricloud(t)
	s.acedata(t)
	s.ad.AddCredentials(1)
	id := string(s.credentials(t)[0].ID)
	return map[string]struct {
		op   string
		args []string
	}{
		"key rotate":        {"key.rotate", []string{"ricloud", "key", "rotate", "1", "--yes"}},
		"key create":        {"key.create", []string{"ricloud", "key", "create"}},
		"credential create": {"credential.create", []string{"acedata", "credential", "create", "--application-id", s.ad.ApplicationID()}},
		"credential rotate": {"credential.rotate", []string{"acedata", "credential", "rotate", id, "--yes"}},
		"platform create":   {"platform_token.create", []string{"acedata", "platform-token", "create"}},
	}
}

// everything returns all secrets that the providers of a site accept.
func (s *site) everything(t *testing.T) (tokens []string) {
	t.Helper()
	for id := range int64(4) {
		tokens = append(tokens, s.rc.AcceptedTokens(id)...)
	}
	for _, c := range s.credentials(t) {
		tokens = append(tokens, s.ad.AcceptedTokens(string(c.ID))...)
	}
	c, err := keywright.NewAceData(keywright.WithoutEnvironment(), keywright.WithBaseURL(s.ad.URL()), keywright.WithToken(s.ad.Token()))
	require.NoError(t, err)
	for p, err := range c.PlatformToken.All(t.Context(), keywright.PlatformTokenListParams{}) {
		require.NoError(t, err)
		tokens = append(tokens, p.Token.Reveal())
	}
	return tokens
}

// TestInterruptOneCall interrupts commands whose call is under way. The first
// interrupt waits for the answer; the second gives up, and says so.
func TestInterruptOneCall(t *testing.T) {
	t.Parallel()
	var stories []story
	for name := range issuing(t, newSite(t)) {
		for _, sig := range []os.Signal{interrupt, syscall.SIGTERM, syscall.SIGHUP} {
			stories = append(stories, story{name + ", " + sig.String() + " once", func(t *testing.T) {
				s := newSite(t)
				c := issuing(t, s)[name]
				f := fakeOf(s, c.op)
				f.Inject(keywrighttest.Fault{Op: c.op, Do: keywrighttest.Slow, Delay: 300 * time.Millisecond})
				p := s.start(t, append(c.args, "--token-file", "new.token")...)
				eventually(t, "the call arrives", func() bool { return f.Count(c.op) == 1 })
				p.signal(sig)
				require.True(t, p.until("waiting for the answer"))
				e := p.wait()
				assert.Equal(t, 0, e.code, "%s", e)
				assert.Contains(t, s.everything(t), strings.TrimSpace(s.read("new.token")), "%s", e)
			}})
		}
		stories = append(stories, story{name + ", the terminal goes away", func(t *testing.T) {
			s := newSite(t)
			c := issuing(t, s)[name]
			f := fakeOf(s, c.op)
			f.Inject(keywrighttest.Fault{Op: c.op, Do: keywrighttest.Slow, Delay: 300 * time.Millisecond})
			cmd := s.command(t.Context(), append(c.args, "--reveal")...)
			tty, err := pty.Start(cmd)
			require.NoError(t, err)
			eventually(t, "the call arrives", func() bool { return f.Count(c.op) == 1 })
			require.NoError(t, tty.Close())
			e := end(t, cmd.Wait(), "", "")
			assert.Equal(t, 3, e.code)
			saved, err := filepath.Glob(s.path(".local/state/keywright/*.token"))
			require.NoError(t, err)
			require.Len(t, saved, 1)
			b, err := os.ReadFile(saved[0])
			require.NoError(t, err)
			assert.Contains(t, s.everything(t), strings.TrimSpace(string(b)))
		}}, story{name + ", twice", func(t *testing.T) {
			s := newSite(t)
			c := issuing(t, s)[name]
			f := fakeOf(s, c.op)
			f.Inject(keywrighttest.Fault{Op: c.op, When: keywrighttest.AfterApply, Do: keywrighttest.Stall})
			p := s.start(t, append(c.args, "--reveal")...)
			eventually(t, "the call arrives", func() bool { return f.Count(c.op) == 1 })
			p.signal(interrupt)
			require.True(t, p.until("waiting for the answer"))
			p.signal(interrupt)
			e := p.wait()
			assert.Equal(t, 3, e.code, "%s", e)
			assert.Contains(t, e.stderr, "find out what happened: keywright "+strings.Join(c.args[:2], " "), "%s", e)
		}})
	}
	atOnce(t, stories)
}

// TestInterruptBeforeCall interrupts a command that has changed nothing yet.
func TestInterruptBeforeCall(t *testing.T) {
	t.Parallel()
	atOnce(t, []story{
		{"while the key is read", func(t *testing.T) {
			s := newSite(t)
			s.ricloud(t)
			s.rc.Inject(keywrighttest.Fault{Op: "key.retrieve", Do: keywrighttest.Stall})
			p := s.start(t, "ricloud", "key", "rotate", "1", "--yes", "--token-file", "new.token")
			eventually(t, "the call arrives", func() bool { return s.rc.Count("key.retrieve") == 1 })
			p.signal(interrupt)
			e := p.wait()
			assert.Equal(t, 130, e.code, "%s", e)
			assert.Contains(t, e.stderr, "interrupted")
			assert.Zero(t, s.rc.Count("key.rotate"))
			assert.Empty(t, s.hiddenFiles(t))
			assert.False(t, exists(s.path("new.token")))
		}},
		{"at a question", func(t *testing.T) {
			s := newSite(t)
			s.ricloud(t)
			screen, err := onTerminal(s.command(t.Context(), "ricloud", "key", "rotate", "1", "--token-file", "new.token"), &pty.Winsize{Cols: 80, Rows: 24}, "\x03")
			e := end(t, err, screen, "")
			assert.Equal(t, 130, e.code, "%s", e)
			assert.Empty(t, s.rc.Requests())
			assert.Empty(t, s.hiddenFiles(t))
		}},
		{"while it waits for a token", func(t *testing.T) {
			s := newSite(t)
			s.ricloud(t)
			require.NoError(t, syscall.Mkfifo(s.path("fifo"), 0o600))
			p := s.start(t, "ricloud", "key", "list", "--auth-file", "fifo")
			var w *os.File
			eventually(t, "it reads the file", func() (ok bool) { // before that it cannot be opened
				var err error
				w, err = os.OpenFile(s.path("fifo"), os.O_WRONLY|syscall.O_NONBLOCK, 0)
				return err == nil
			})
			defer w.Close()
			p.signal(interrupt)
			e := p.wait()
			assert.Equal(t, 130, e.code, "%s", e)
			assert.Empty(t, s.rc.Requests())
		}},
		{"three times, which ends anything", func(t *testing.T) {
			s := newSite(t)
			s.ricloud(t)
			require.NoError(t, syscall.Mkfifo(s.path("fifo"), 0o600))
			p := s.start(t, "ricloud", "key", "list", "--config", "fifo")
			said := make(chan bool, 1)
			go func() { said <- p.until("gave up at once") }()
			tick := time.NewTicker(10 * time.Millisecond)
			defer tick.Stop()
			for over := false; !over; {
				select {
				case ok := <-said:
					over = true
					assert.True(t, ok)
				case <-tick.C: // two at once may count as one
					if w, err := os.OpenFile(s.path("fifo"), os.O_WRONLY|syscall.O_NONBLOCK, 0); err == nil {
						defer w.Close() // it reads the file
						p.signal(interrupt)
					}
				}
			}
			assert.Equal(t, 130, p.wait().code)
		}},
		{"at the question for a token", func(t *testing.T) {
			s := newSite(t)
			s.ricloud(t)
			// The shell tells whether what is typed is shown again afterwards.
			cmd := exec.CommandContext(t.Context(), "/bin/sh", "-c", "trap : INT; keywright ricloud key list --auth-prompt; echo code $?; stty -a")
			c := s.command(t.Context())
			cmd.Dir, cmd.Env = c.Dir, c.Env
			screen, err := onTerminal(cmd, &pty.Winsize{Cols: 80, Rows: 24}, "\x03")
			e := end(t, err, screen, "")
			assert.Contains(t, screen, "code 130", "%s", e)
			assert.Regexp(t, `[ ;]echo[ ;]`, screen)
			assert.Empty(t, s.rc.Requests())
		}},
	})
}

// TestInterruptFleet interrupts a run of many jobs after each of them.
func TestInterruptFleet(t *testing.T) {
	t.Parallel()
	const jobs = 6
	var stories []story
	for n := 1; n < jobs; n++ {
		stories = append(stories, story{fmt.Sprintf("after %d", n), func(t *testing.T) {
			s := newSite(t)
			s.ricloud(t)
			s.rc.AddKeys(2 * jobs)
			file := "version: 1\nricloud: {timeout: 300ms}\npolicy: {settle_time: 600ms}\njobs:\n"
			for i := range jobs {
				file += fmt.Sprintf("  - {name: job%d, strategy: ricloud-paired, keys: [%d, %d], sinks: [{type: file, path: %d.token, lag: 10ms}]}\n", i, 2+2*i, 3+2*i, i)
				s.write(t, fmt.Sprintf("%d.token", i), s.rc.TokenOf(int64(2+2*i))+"\n")
			}
			s.write(t, "keywright.yaml", file)
			p := s.start(t, "rotate", "run", "--all", "--width", "1", "--campaign", "one")
			require.True(t, p.until(fmt.Sprintf("(%d of %d)", n, jobs)))
			p.signal(interrupt)
			e := p.wait()
			require.Equal(t, 130, e.code, "%s", e)
			next := s.must(t, 0, e.next(t)...)
			assert.Contains(t, next.stderr, "6 done, 0 waiting, 0 failed, 0 not begun")
			for i := range jobs {
				token := strings.TrimSpace(s.read(fmt.Sprintf("%d.token", i)))
				assert.Equal(t, s.rc.TokenOf(int64(3+2*i)), token, "job %d", i)
				assert.Contains(t, s.rc.AcceptedTokens(int64(3+2*i)), token)
			}
			assert.Equal(t, 2*jobs, s.rc.Applied("key.rotate"), "one issue and one burn for each\n%s\n%s", e, next)
		}})
	}
	atOnce(t, stories)
}

// TestInterruptRollback interrupts a rotation being taken back, at each line
// that it says.
func TestInterruptRollback(t *testing.T) {
	t.Parallel()
	var stories []story
	for _, strategy := range []string{"ricloud-paired", "acedata-swap"} {
		for n := 1; n <= 7; n++ {
			stories = append(stories, story{fmt.Sprintf("%s at line %d", strategy, n), func(t *testing.T) {
				s := jobSite(t, strategy, "")
				before, script := s.held()[0], s.read("deliver")
				s.write(t, "deliver", "#!/bin/sh\nexit 1\n")
				s.must(t, 7, "rotate", "run")
				assert.NotEqual(t, before, s.held()[0])
				s.write(t, "deliver", script)
				p := s.start(t, "rotate", "rollback", "billing", "--yes")
				for range n {
					p.line()
				}
				p.signal(interrupt)
				e := p.wait()
				s.works(t, e)
				if e.code != 0 { // it was not over
					require.Equal(t, 130, e.code, "%s", e)
					e = s.must(t, 0, e.next(t)...)
				}
				assert.Contains(t, e.stdout, "ROLLED_BACK", "%s", e)
				s.agrees(t, e)
				assert.Equal(t, before, s.held()[0], "%s", e)
			}})
		}
	}
	atOnce(t, stories)
}

func fakeOf(s *site, op string) interface {
	fake
	Requests() []keywrighttest.Request
} {
	if strings.HasPrefix(op, "key.") {
		return s.rc
	}
	return s.ad
}
