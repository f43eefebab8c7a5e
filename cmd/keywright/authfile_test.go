//go:build unix

package main

import (
	"io"
	"os"
	"os/exec"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// TestAuthFileIsInterrupted waits for a token that nobody writes: the first
// signal ends it.
func TestAuthFileIsInterrupted(t *testing.T) {
	t.Parallel()
	var stories []story
	for name, sig := range map[string]syscall.Signal{"SIGINT": syscall.SIGINT, "SIGTERM": syscall.SIGTERM} {
		for _, args := range [][]string{
			{"ricloud", "key", "list", "--auth-file", "fifo"},
			{"ricloud", "key", "list", "--auth-file", "-"},
			{"config", "init", "--auth-file", "fifo"},
			{"config", "init", "--secret-file", "-"},
		} {
			stories = append(stories, story{name + " " + args[0] + " " + args[len(args)-2] + args[len(args)-1], func(t *testing.T) {
				s := newSite(t)
				s.ricloud(t)
				require.NoError(t, syscall.Mkfifo(s.path("fifo"), 0o600))
				cmd := s.command(t.Context(), args...)
				stdin, err := cmd.StdinPipe()
				require.NoError(t, err)
				defer stdin.Close()
				stderr, err := cmd.StderrPipe()
				require.NoError(t, err)
				require.NoError(t, cmd.Start())
				time.Sleep(time.Second) // nothing tells that it waits
				require.NoError(t, cmd.Process.Signal(sig))
				said, err := io.ReadAll(stderr)
				require.NoError(t, err)
				_ = cmd.Wait()
				assert.Equal(t, 130, cmd.ProcessState.ExitCode(), "%s", said)
				assert.Contains(t, string(said), "interrupted")
				assert.Empty(t, s.rc.Requests())
			}})
		}
	}
	atOnce(t, stories)
}

// TestAuthFileIsAProcess reads a token from a process, as shells write it:
// --auth-file <(pass ricloud).
func TestAuthFileIsAProcess(t *testing.T) {
	t.Parallel()
	bash, err := exec.LookPath("bash")
	if err != nil {
		t.Skip("there is no bash here")
	}
	s := newSite(t)
	s.ricloud(t)
	c := s.command(t.Context())
	cmd := exec.CommandContext(t.Context(), bash, "-c", `keywright ricloud key current --output name --auth-file <(sleep 0.1; echo "$GOOD")`)
	cmd.Dir, cmd.Env = c.Dir, append(c.Env, "GOOD="+s.rc.Token(), "RICLOUD_TOKEN=bad-token-0123456789")
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s", out)
	assert.Equal(t, "1\n", string(out))
}

// TestAuthFileIsNotShown gives a token by mistake where a file is wanted.
func TestAuthFileIsNotShown(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.ricloud(t)
	require.NoError(t, os.Mkdir(s.path("secret-directory"), 0o700))
	for _, path := range []string{"secret-token-0123456789", "secret-directory"} {
		e := s.must(t, 2, "ricloud", "key", "list", "--auth-file", s.path(path))
		assert.Contains(t, e.stderr, "--auth-file: ")
		assert.NotContains(t, e.stderr, "secret-", path)
	}
}
