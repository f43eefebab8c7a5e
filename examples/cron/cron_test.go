//go:build unix

// Package cron holds the tests of the scripts in this folder.
package cron

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
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

// scratch is a directory of all tests.
var scratch string

// program builds the program, and returns the directory that it is in.
var program = sync.OnceValues(func() (string, error) {
	dir := filepath.Join(scratch, "bin")
	said, err := exec.Command("go", "build", "-o", filepath.Join(dir, "keywright"), "../../cmd/keywright").CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("%w: %s", err, said)
	}
	return dir, nil
})

func TestMain(m *testing.M) {
	var err error
	if scratch, err = os.MkdirTemp("", "keywright-cron-"); err != nil {
		panic(err)
	}
	code := m.Run()
	_ = os.RemoveAll(scratch)
	os.Exit(code)
}

// script is a copy of rotate.sh in a directory of its own, as cron would run
// it: with an environment that holds next to nothing.
type script struct {
	dir string // of rotate.sh and keywright.yaml
	bin string // first in PATH
	env []string
}

func newScript(t *testing.T, bin string) *script {
	t.Helper()
	s := &script{dir: t.TempDir(), bin: t.TempDir()}
	// What goes to the system's log goes to a file here.
	write(t, filepath.Join(s.bin, "logger"), "#!/bin/sh\necho \"$@\" >>'"+s.dir+"/log'\ncat >>'"+s.dir+"/log'\n", 0o700)
	s.env = []string{"PATH=" + s.bin + ":" + bin + ":/usr/bin:/bin", "HOME=" + s.dir, "LOGNAME=nobody", "SHELL=/bin/sh"}
	for _, name := range []string{"rotate.sh", "keywright.yaml"} {
		b, err := os.ReadFile(name)
		require.NoError(t, err)
		write(t, filepath.Join(s.dir, name), string(b), 0o700)
	}
	return s
}

func write(t *testing.T, path, text string, mode os.FileMode) {
	t.Helper()
	require.NoError(t, os.WriteFile(path, []byte(text), mode))
}

func (s *script) read(t *testing.T, name string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(s.dir, name))
	require.NoError(t, err)
	return strings.TrimSuffix(string(b), "\n")
}

// command returns a run of the script, in a process group of its own.
func (s *script) command(ctx context.Context) (*exec.Cmd, *strings.Builder) {
	said := new(strings.Builder)
	cmd := exec.CommandContext(ctx, filepath.Join(s.dir, "rotate.sh"))
	cmd.Dir, cmd.Env, cmd.Stdout, cmd.Stderr = "/", s.env, said, said
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	return cmd, said
}

// run runs the script. said is what it has said, there and in the log.
func (s *script) run(t *testing.T) (code int, said string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	cmd, out := s.command(ctx)
	err := cmd.Run()
	log, _ := os.ReadFile(filepath.Join(s.dir, "log")) // there may be no system log
	said = out.String() + string(log)
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return exit.ExitCode(), said
	}
	require.NoError(t, err, said)
	return 0, said
}

// TestExitCodes runs the script with a program that only has an exit code.
func TestExitCodes(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		run, check int
		want       int
		says       string
	}{
		{0, 0, 0, "the program's words"},
		{0, 3, 0, "the program's words"}, // a job waits
		{1, 0, 1, "exit code 1; the next run tries again"},
		{2, 2, 2, "exit code 2"},
		{3, 3, 0, "the next run goes on"},
		{4, 0, 4, "exit code 4"},
		{5, 0, 5, "exit code 5"},
		{6, 0, 0, "the next run goes on"},
		{7, 7, 7, "is stuck and needs a person"},
		{1, 7, 7, "is stuck and needs a person"},
		{3, 7, 7, "is stuck and needs a person"},
		{130, 3, 0, "the next run goes on"},
	} {
		t.Run(fmt.Sprintf("%d and %d", test.run, test.check), func(t *testing.T) {
			t.Parallel()
			bin := t.TempDir()
			write(t, filepath.Join(bin, "keywright"), fmt.Sprintf(
				"#!/bin/sh\necho \"the program's words\" >&2\necho a table\n[ \"$2\" = run ] && exit %d\nexit %d\n", test.run, test.check), 0o700)
			code, said := newScript(t, bin).run(t)
			assert.Equal(t, test.want, code, said)
			assert.Contains(t, said, test.says)
			assert.Contains(t, said, "the program's words")
			assert.NotContains(t, said, "a table")
		})
	}
}

// fakes are the two providers, and a script with keys of theirs to rotate.
type fakes struct {
	*script
	rc         *keywrighttest.Ricloud
	ad         *keywrighttest.AceData
	client     *keywright.AceData
	credential *keywright.Credential // before it was rotated
	first      string                // token of ricloud, before it was rotated
}

func newFakes(t *testing.T, opts ...keywrighttest.Option) *fakes {
	t.Helper()
	bin, err := program()
	require.NoError(t, err)
	f := &fakes{script: newScript(t, bin), rc: keywrighttest.StartRicloud(t, opts...), ad: keywrighttest.StartAceData(t)}
	f.rc.AddKeys(1)
	f.first = f.rc.Token()
	f.client, err = keywright.NewAceData(keywright.WithoutEnvironment(), keywright.WithBaseURL(f.ad.URL()), keywright.WithToken(f.ad.Token()))
	require.NoError(t, err)
	f.credential, err = f.client.Credential.Create(t.Context(), keywright.CredentialCreateParams{ApplicationID: keywright.ApplicationID(f.ad.ApplicationID())})
	require.NoError(t, err)
	f.env = append(f.env, "RICLOUD_URL="+f.rc.URL(), "PLATFORM_API_BASE_URL="+f.ad.URL(), "CAMPAIGN=2027-01")
	for name, text := range map[string]string{
		"ricloud.token":          f.first + "\n",
		"billing.env":            "RICLOUD_TOKEN=" + f.first + "\n",
		"search.token":           f.credential.Token.Reveal() + "\n",
		"acedata-platform.token": f.ad.Token() + "\n",
		"keywright.yaml":         strings.Replace(f.read(t, "keywright.yaml"), "00000000-0000-4000-8000-000000000000", string(f.credential.ID), 1),
	} {
		write(t, filepath.Join(f.dir, name), text, 0o600)
	}
	return f
}

// requireSearch checks that the credential was rotated.
func (f *fakes) requireSearch(t *testing.T) {
	t.Helper()
	var accepted []string
	for c, err := range f.client.Credential.All(t.Context(), keywright.CredentialListParams{}) {
		require.NoError(t, err)
		accepted = append(accepted, f.ad.AcceptedTokens(string(c.ID))...)
	}
	require.Equal(t, []string{f.read(t, "search.token")}, accepted)
	require.NotEqual(t, f.credential.Token.Reveal(), f.read(t, "search.token"))
}

// requireNoTokens checks that no token was said.
func (f *fakes) requireNoTokens(t *testing.T, said string) {
	t.Helper()
	for _, secret := range []string{
		f.first, f.rc.TokenOf(1), f.rc.TokenOf(2), f.read(t, "ricloud.token"),
		f.credential.Token.Reveal(), f.read(t, "search.token"), f.ad.Token(),
	} {
		require.NotContains(t, said, secret)
	}
}

// TestKilled kills a run when the token of a key was issued and nobody has it,
// and runs it again.
func TestKilled(t *testing.T) {
	t.Parallel()
	f := newFakes(t)
	f.rc.Inject(keywrighttest.Fault{Op: "key.rotate", When: keywrighttest.AfterApply, Do: keywrighttest.Stall})
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	cmd, said := f.command(ctx)
	require.NoError(t, cmd.Start())
	assert.Eventually(t, func() bool { return f.rc.Applied("key.rotate") == 1 }, 2*time.Minute, 10*time.Millisecond)
	cancel() // with SIGKILL, the script and all that it runs
	require.Error(t, cmd.Wait(), said.String())
	require.Equal(t, f.first, f.read(t, "ricloud.token"), "it was killed too late")

	code, again := f.run(t)
	require.Zero(t, code, again)
	token := f.read(t, "ricloud.token")
	require.NotEqual(t, f.first, token)
	require.Equal(t, "RICLOUD_TOKEN="+token, f.read(t, "billing.env"))
	require.Contains(t, f.rc.AcceptedTokens(2), token)
	require.NotContains(t, f.rc.AcceptedTokens(1), f.first)
	f.requireSearch(t)

	calls := f.rc.Applied("key.rotate")
	code, more := f.run(t) // another hour of the same month
	require.Zero(t, code, more)
	require.Equal(t, calls, f.rc.Applied("key.rotate"))
	require.Equal(t, token, f.read(t, "ricloud.token"))
	f.requireNoTokens(t, said.String()+again+more)
}

// TestStuck has ricloud refuse to end the old token: the other key is rotated
// all the same, somebody is told, and what they did is seen.
func TestStuck(t *testing.T) {
	t.Parallel()
	f := newFakes(t)
	f.rc.Inject(
		keywrighttest.Fault{Op: "key.rotate", Do: keywrighttest.Slow, Delay: time.Millisecond},
		keywrighttest.Fault{Op: "key.rotate", Do: keywrighttest.Answer, Status: 403, Body: "{}", Times: -1})
	code, said := f.run(t)
	require.Equal(t, 7, code, said)
	require.Contains(t, said, "a rotation is stuck and needs a person")
	token := f.read(t, "ricloud.token")
	require.NotEqual(t, f.first, token)
	require.Contains(t, f.rc.AcceptedTokens(2), token)
	f.requireSearch(t)
	f.requireNoTokens(t, said)
}

// TestTry runs try.sh, and sees that it leaves nothing behind.
func TestTry(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute) // it builds, perhaps without a cache
	defer cancel()
	temp := t.TempDir()
	cmd := exec.CommandContext(ctx, "./try.sh")
	cmd.Env = append(os.Environ(), "TMPDIR="+temp)
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = 10 * time.Second
	b, err := cmd.CombinedOutput()
	said := string(b)
	require.NoError(t, err, said)
	assert.True(t, strings.HasSuffix(said, "done: the old tokens are refused, the new ones are where they belong\n"), said)
	assert.NotRegexp(t, regexp.MustCompile(`[A-Za-z0-9]{40,}|platform-v1-`), said, "that looks like a token")
	left, err := os.ReadDir(temp)
	require.NoError(t, err)
	assert.Empty(t, left)
}

func TestCrontab(t *testing.T) {
	t.Parallel()
	b, err := os.ReadFile("crontab")
	require.NoError(t, err)
	var lines []string
	for line := range strings.Lines(string(b)) {
		if line = strings.TrimSuffix(line, "\n"); line != "" && line[0] != '#' && !regexp.MustCompile(`^[A-Z]+=`).MatchString(line) {
			lines = append(lines, line)
		}
	}
	assert.Equal(t, []string{"23 * * * * /etc/keywright/rotate.sh"}, lines)
	assert.True(t, strings.HasSuffix(string(b), "\n"), "cron ignores a last line without an end")
}

func TestSystemd(t *testing.T) {
	t.Parallel()
	if _, err := exec.LookPath("systemd-analyze"); err != nil {
		t.Skip("left out: systemd-analyze is not in PATH")
	}
	dir := t.TempDir()
	var units []string
	for _, name := range []string{"keywright-rotate.service", "keywright-rotate.timer"} {
		b, err := os.ReadFile(filepath.Join("systemd", name))
		require.NoError(t, err)
		// What is started must be there.
		write(t, filepath.Join(dir, name), strings.ReplaceAll(string(b), "ExecStart=/etc/keywright/rotate.sh", "ExecStart=/bin/true"), 0o600)
		units = append(units, filepath.Join(dir, name))
	}
	said, err := exec.CommandContext(t.Context(), "systemd-analyze", append([]string{"verify", "--man=no"}, units...)...).CombinedOutput()
	assert.NoError(t, err, string(said))
	assert.NotContains(t, string(said), "keywright-rotate", string(said))
}

func TestShellcheck(t *testing.T) {
	t.Parallel()
	scripts := []string{"rotate.sh", "try.sh", "../kubernetes/try.sh"}
	for _, script := range scripts {
		said, err := exec.CommandContext(t.Context(), "sh", "-n", script).CombinedOutput()
		assert.NoError(t, err, string(said))
	}
	if _, err := exec.LookPath("shellcheck"); err != nil {
		t.Skip("left out: shellcheck is not in PATH")
	}
	said, err := exec.CommandContext(t.Context(), "shellcheck", scripts...).CombinedOutput()
	assert.NoError(t, err, string(said))
}
