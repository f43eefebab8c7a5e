package sink

import (
	"bytes"
	"cmp"
	"context"
	"encoding/base64"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/keywright/keywright"
)

// execTemporary is the exit code that says "try again later": EX_TEMPFAIL of
// sysexits.h.
const execTemporary = 75

const (
	execWait      = 2 * time.Second // how long descendants may keep stderr open
	maxExecOutput = 64 << 10        // how much of stderr is looked at
	maxExecText   = 200             // how much of that is told
)

// Exec returns a sink that is a command: it gets the token and a newline on
// its standard input, never as an argument or in its environment. Exit code 0
// says that it has the token, and 75 that it may work later. What it writes to
// stderr is told in errors, at most 200 bytes and without the token; its
// output is discarded. When ctx ends, it is killed with all that it started,
// on Unix.
//
// argv is the command and its arguments; no shell sees them. Of the
// environment it gets PATH, HOME and LANG; see [WithEnv].
//
// A command must be able to take the same token twice: one that was
// interrupted is run again. What it holds cannot be read, so that a token is
// confirmed only by the process that wrote it.
func Exec(name string, argv []string, opts ...ExecOption) Sink {
	s := &execSink{
		name: "exec " + name,
		argv: slices.Clone(argv),
		env:  []string{"PATH", "HOME", "LANG"},
		traits: Traits{
			Grade:     GradeAcknowledged,
			Guarantee: "The command said by its exit code that it has the token.",
		},
	}
	for _, o := range opts {
		o.applyExec(s)
	}
	return s
}

// WithEnv passes environment variables to the command, besides PATH, HOME and
// LANG.
func WithEnv(names ...string) ExecOption { return envOption(names) }

type envOption []string

func (names envOption) applyExec(s *execSink) { s.env = append(s.env, names...) }

type execSink struct {
	name    string
	argv    []string
	env     []string
	traits  Traits
	written keywright.Secret
}

func (s *execSink) Name() string { return s.name }

func (s *execSink) Traits() Traits { return s.traits }

// Read returns nothing: a command cannot be read.
func (s *execSink) Read(ctx context.Context) (Reading, error) {
	if err := ctx.Err(); err != nil {
		return Reading{}, s.fail("read", "gave up: "+err.Error(), err)
	}
	return Reading{}, nil
}

// CompareAndWrite runs the command, whatever was there before.
func (s *execSink) CompareAndWrite(ctx context.Context, previous Reading, token keywright.Secret) error {
	const op = "write"
	if p := writable(token); p != "" {
		return s.fail(op, string(p), ErrRefused)
	}
	if len(s.argv) == 0 {
		return s.fail(op, "no command is given", ErrRefused)
	}
	stderr := &head{limit: maxExecOutput}
	cmd := exec.CommandContext(ctx, s.argv[0], s.argv[1:]...)
	cmd.Stdin = strings.NewReader(token.Reveal() + "\n")
	cmd.Stderr = stderr
	cmd.Env = s.environment()
	cmd.WaitDelay = execWait
	killTogether(cmd)
	s.written = keywright.Secret{} // after an error nobody knows what it holds
	err := cmd.Run()
	var exit *exec.ExitError
	var lookup *exec.Error
	switch {
	case err == nil, errors.Is(err, exec.ErrWaitDelay): // a descendant lives on; the command itself has succeeded
		s.written = token
		return nil
	case ctx.Err() != nil:
		return s.fail(op, "the command was killed: "+ctx.Err().Error(), ctx.Err())
	case errors.As(err, &exit):
		reason := "the command was killed by a signal"
		if exit.Exited() {
			reason = "the command ended with exit code " + strconv.Itoa(exit.ExitCode())
		}
		if said := scrub(stderr.String(), stderr.full, token, previous.Token); said != "" {
			reason += ": " + said
		}
		if exit.ExitCode() == execTemporary {
			return s.fail(op, reason, ErrTemporary)
		}
		return s.fail(op, reason, exit)
	case errors.As(err, &lookup), errors.Is(err, fs.ErrNotExist), errors.Is(err, fs.ErrPermission):
		return s.fail(op, notRunnable, errors.Join(ErrRefused, err))
	}
	return s.fail(op, "the command cannot be run: "+scrub(err.Error(), false, token, previous.Token), nil)
}

// Confirm returns nil if this value wrote the token.
func (s *execSink) Confirm(ctx context.Context, token keywright.Secret) error {
	const op = "confirm"
	if err := ctx.Err(); err != nil {
		return s.fail(op, "gave up: "+err.Error(), err)
	}
	if token.IsZero() || !s.written.Equal(token) {
		return s.fail(op, writeAgain, ErrTemporary)
	}
	return nil
}

// writeAgain is why a sink that cannot be read does not confirm a token.
const writeAgain = "what it holds cannot be read, and this process has not written the token; write it again"

// Test implements [Tester]: it looks for the command.
func (s *execSink) Test(context.Context) error {
	const op = "test"
	if len(s.argv) == 0 {
		return s.fail(op, "no command is given", ErrRefused)
	}
	if _, err := exec.LookPath(s.argv[0]); err != nil {
		return s.fail(op, notRunnable, errors.Join(ErrRefused, err))
	}
	return nil
}

const notRunnable = "the command is not found or may not be run"

func (s *execSink) environment() []string {
	env := make([]string, 0, len(s.env)) // not nil: that would be all of ours
	for _, name := range s.env {
		if v, ok := os.LookupEnv(name); ok {
			env = append(env, name+"="+v)
		}
	}
	return env
}

func (s *execSink) fail(op, reason string, err error) error {
	return &Error{Sink: s.name, Op: op, Reason: reason, Err: err}
}

// head keeps the first bytes that are written to it.
type head struct {
	bytes.Buffer
	limit int
	full  bool // there were more
}

// Write never fails, so that the command is not stopped by what it says.
func (h *head) Write(b []byte) (int, error) {
	keep := b[:min(len(b), h.limit-h.Len())]
	h.full = h.full || len(keep) < len(b)
	h.Buffer.Write(keep)
	return len(b), nil
}

// scrub makes what somebody else said fit for an error: one line of at most
// maxExecText bytes without the secrets, in base64 neither. cut says that the
// end is missing, which may be the rest of a secret.
func scrub(said string, cut bool, secrets ...keywright.Secret) string {
	var hidden []string
	for _, s := range secrets {
		if !s.IsZero() {
			hidden = append(hidden, s.Reveal())
			hidden = append(hidden, inBase64(s.Reveal())...)
		}
	}
	// A secret that is a part of another must not uncover the rest of it.
	slices.SortFunc(hidden, func(a, b string) int { return cmp.Compare(len(b), len(a)) })
	for _, h := range hidden {
		said = strings.ReplaceAll(said, h, "[REDACTED]")
	}
	if cut && len(hidden) > 0 {
		said = said[:max(len(said)-len(hidden[0]), 0)]
	}
	said = strings.Map(func(r rune) rune {
		if r < 0x20 || r > 0x7e {
			return ' '
		}
		return r
	}, said)
	words := strings.Fields(said)
	// What is encoded is often broken into lines.
	together := strings.Join(words, "")
	if slices.ContainsFunc(hidden, func(h string) bool { return strings.Contains(together, h) }) {
		return "[REDACTED]"
	}
	said = strings.Join(words, " ")
	return said[:min(len(said), maxExecText)]
}

// inBase64 returns what a text is encoded to, alone or as a part of something
// longer, whatever comes before and behind it.
func inBase64(s string) (out []string) {
	for _, e := range []*base64.Encoding{base64.RawStdEncoding, base64.RawURLEncoding} {
		out = append(out, e.EncodeToString([]byte(s)))
		for shift := range 3 {
			b := append(make([]byte, shift), s...)
			code := e.EncodeToString(b[:len(b)/3*3])
			if first := (shift*8 + 5) / 6; len(code) >= first+8 { // fewer could be anything
				out = append(out, code[first:])
			}
		}
	}
	return out
}
