//go:build unix

package sink_test

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/keywright/keywright"
	"github.com/keywright/keywright/rotation/sink"
)

// script is a sink that is a shell script.
func script(text string, opts ...sink.ExecOption) sink.Sink {
	return sink.Exec("store", []string{"sh", "-c", text, "sh"}, opts...)
}

func TestExec(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	name := filepath.Join(t.TempDir(), "got")
	s := sink.Exec("store", []string{"sh", "-c", `cat >"$1"; echo to nobody`, "sh", name})
	require.Equal(t, "exec store", s.Name())
	traits := s.Traits()
	require.False(t, traits.Readable)
	require.Equal(t, sink.GradeAcknowledged, traits.Grade)
	require.NotEmpty(t, traits.Guarantee)
	require.NoError(t, s.(sink.Tester).Test(ctx))
	got, err := s.Read(ctx)
	require.NoError(t, err)
	require.Equal(t, sink.Reading{}, got)
	mustFail(t, s.Confirm(ctx, secret(newToken)), sink.ErrTemporary, "write it again")
	require.NoError(t, s.CompareAndWrite(ctx, got, secret(newToken)))
	b, err := os.ReadFile(name)
	require.NoError(t, err)
	require.Equal(t, newToken+"\n", string(b))
	require.NoError(t, s.Confirm(ctx, secret(newToken)))
	mustFail(t, s.Confirm(ctx, secret(oldToken)), sink.ErrTemporary, "write it again")

	// After a failure nobody knows what it holds.
	s = sink.Exec("store", []string{"sh", "-c", `[ ! -e "$1" ] && : >"$1"`, "sh", name + ".once"})
	require.NoError(t, s.CompareAndWrite(ctx, got, secret(oldToken)))
	require.NoError(t, s.Confirm(ctx, secret(oldToken)))
	require.Error(t, s.CompareAndWrite(ctx, got, secret(newToken)))
	mustFail(t, s.Confirm(ctx, secret(oldToken)), sink.ErrTemporary, "write it again")

	require.Equal(t, time.Minute, script("", sink.WithLag(time.Minute)).Traits().Lag)
	require.NoError(t, script("exit 0").CompareAndWrite(ctx, got, secret(newToken)), "it need not read its input")
}

func TestExecEnvironment(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	name := filepath.Join(t.TempDir(), "env")
	s := sink.Exec("store", []string{"sh", "-c", `env >"$1"`, "sh", name}, sink.WithEnv("TMPDIR", "KEYWRIGHT_NONE", "GOPATH"))
	require.NoError(t, s.CompareAndWrite(ctx, sink.Reading{}, secret(newToken)))
	b, err := os.ReadFile(name)
	require.NoError(t, err)
	require.NotContains(t, string(b), newToken)
	allowed := []string{"PATH", "HOME", "LANG", "TMPDIR", "GOPATH", "PWD", "OLDPWD", "SHLVL", "_"} // the last are the shell's own
	for line := range strings.Lines(string(b)) {
		key, _, _ := strings.Cut(line, "=")
		require.Contains(t, allowed, key)
	}
	require.Contains(t, string(b), "PATH="+os.Getenv("PATH")+"\n")
}

func TestExecFails(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	for text, c := range map[string]struct {
		class  error
		reason string
	}{
		"exit 75":             {sink.ErrTemporary, "exit code 75"},
		"echo no >&2; exit 3": {nil, "exit code 3: no"},
		"cat >&2; exit 1":     {nil, "exit code 1: [REDACTED]"},
		`t=$(cat); printf '%s%s' "$t" "$t" >&2; exit 1`: {nil, "[REDACTED][REDACTED]"},
		"base64 >&2; exit 1":                            {nil, "[REDACTED]"},
		"kill -9 $$":                                    {nil, "killed by a signal"},
		`printf 'a\001\n\tb' >&2; exit 1`:               {nil, "exit code 1: a b"},
	} {
		s := script(text)
		err := s.CompareAndWrite(ctx, sink.Reading{Token: secret(oldToken)}, secret(newToken))
		var e *sink.Error
		require.ErrorAs(t, err, &e, text)
		require.Contains(t, e.Reason, c.reason)
		require.NotContains(t, err.Error(), "canary")
		require.NotContains(t, err.Error(), base64.StdEncoding.EncodeToString([]byte(newToken))[:12])
		require.Equal(t, c.class == sink.ErrTemporary, errors.Is(err, sink.ErrTemporary), text)
		mustFail(t, s.Confirm(ctx, secret(newToken)), sink.ErrTemporary, "write it again")
	}
	for _, argv := range [][]string{nil, {"/no/such/command"}, {"no-such-command-anywhere"}, {"/"}} {
		s := sink.Exec("store", argv)
		mustFail(t, s.CompareAndWrite(ctx, sink.Reading{}, secret(newToken)), sink.ErrRefused, "command")
		mustFail(t, s.(sink.Tester).Test(ctx), sink.ErrRefused, "command")
	}
	mustFail(t, script("").CompareAndWrite(ctx, sink.Reading{}, keywright.Secret{}), sink.ErrRefused, "no token")
	mustFail(t, script("").CompareAndWrite(ctx, sink.Reading{}, secret("a\nb")), sink.ErrRefused, "control character")
}

// However much is said, and wherever it is cut, no part of the token is told.
func TestExecTellsNoToken(t *testing.T) {
	t.Parallel()
	token := strings.Repeat("canary-", 500)
	for _, text := range []string{
		`t=$(cat); i=0; while [ $i -lt 40 ]; do printf '%s\n' "$t"; i=$((i+1)); done >&2; exit 1`,
		`t=$(cat); i=0; while [ $i -lt 40 ]; do printf '%s' "$t"; i=$((i+1)); done | base64 >&2; exit 1`,
		`printf 'user:' | cat - /dev/stdin | base64 | tr -d '\n' >&2; exit 1`,
		`printf 'x' | cat - /dev/stdin | base64 | tr -d '\n' >&2; exit 1`,
	} {
		err := script(text).CompareAndWrite(t.Context(), sink.Reading{}, secret(token))
		var e *sink.Error
		require.ErrorAs(t, err, &e)
		require.LessOrEqual(t, len(e.Reason), 250)
		require.NotContains(t, e.Reason, "canary")
		require.NotContains(t, e.Reason, "anary-c")
		for shift := range 3 {
			code := base64.StdEncoding.EncodeToString([]byte(strings.Repeat("x", shift) + token))
			require.NotContains(t, strings.ReplaceAll(e.Reason, " ", ""), code[20:32], text)
		}
	}
}

// The end of ctx ends the command and what it started.
func TestExecKilled(t *testing.T) {
	t.Parallel()
	name := filepath.Join(t.TempDir(), "pid")
	ctx, cancel := context.WithCancel(t.Context())
	s := script(fmt.Sprintf("sh -c 'echo $$ >%[1]s.tmp; mv %[1]s.tmp %[1]s; exec sleep 60' & wait", name))
	result := make(chan error)
	go func() { result <- s.CompareAndWrite(ctx, sink.Reading{}, secret(newToken)) }()
	var pid int
	require.Eventually(t, func() bool {
		b, err := os.ReadFile(name)
		if err == nil {
			pid, err = strconv.Atoi(strings.TrimSpace(string(b)))
		}
		return err == nil
	}, 10*time.Second, 5*time.Millisecond)
	cancel()
	mustFail(t, <-result, context.Canceled, "was killed")
	require.Eventually(t, func() bool { return gone(pid) }, 10*time.Second, 5*time.Millisecond)
	_, err := s.Read(ctx)
	mustFail(t, err, context.Canceled, "gave up")
	mustFail(t, s.Confirm(ctx, secret(newToken)), context.Canceled, "gave up")
}

// gone reports whether a process is dead, if only nobody has buried it yet.
func gone(pid int) bool {
	if syscall.Kill(pid, 0) != nil {
		return true
	}
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return err == nil && strings.Contains(string(b), ") Z ")
}

// What a dotenv sink writes means the token to a shell.
func TestDotenvIsReadBySh(t *testing.T) {
	t.Parallel()
	name := filepath.Join(t.TempDir(), ".env")
	all := strings.Builder{}
	for c := byte('!'); c <= '~'; c++ {
		all.WriteByte(c)
	}
	for _, style := range []string{"TOKEN=old\n", "TOKEN='old'\n", "export TOKEN=\"old\"\n", ""} {
		for _, token := range []string{newToken, all.String(), "a'b", `a"b`, "a$HOME", "a`id`", `a\`, `\`, "'", `'"$` + "`\\", "#a", "a#b", "~", "a!b", "$(id)", "a;b&c|d", "=a", "*"} {
			require.NoError(t, os.WriteFile(name, []byte(style), 0o600))
			s := sink.Dotenv(name, "TOKEN")
			previous, err := s.Read(t.Context())
			require.NoError(t, err)
			require.NoError(t, s.CompareAndWrite(t.Context(), previous, secret(token)))
			out, err := exec.CommandContext(t.Context(), "sh", "-c", `. "$1"; printf %s "$TOKEN"`, "sh", name).CombinedOutput()
			require.NoError(t, err)
			require.Equal(t, token, string(out), "%q", style)
		}
	}
}
