package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// ran is what a run of the program left behind.
type ran struct {
	code           int
	stdout, stderr string
}

func (r ran) all() string { return r.stdout + r.stderr }

// run runs the program off a terminal, in a directory of its own, with these
// variables, "NAME=VALUE", and no others.
func run(t *testing.T, env []string, args ...string) ran {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), program, args...)
	cmd.Dir = t.TempDir()
	cmd.Env = append([]string{"TMPDIR=" + cmd.Dir}, env...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	if exit := (*exec.ExitError)(nil); !errors.As(err, &exit) {
		require.NoError(t, err)
	}
	return ran{cmd.ProcessState.ExitCode(), stdout.String(), stderr.String()}
}

// badEnvironments returns the rows of testdata/bad-inputs.tsv about the
// environment: input and expected text, by number.
func badEnvironments(t *testing.T) map[int][2]string {
	t.Helper()
	b, err := os.ReadFile("../../testdata/bad-inputs.tsv")
	require.NoError(t, err)
	rows := make(map[int][2]string)
	for line := range strings.Lines(string(b)) {
		f := strings.Split(strings.TrimSuffix(line, "\n"), "\t")
		if f[1] != "env" || f[6] == "other" {
			continue
		}
		n, err := strconv.Atoi(f[0])
		require.NoError(t, err)
		var input string
		require.NoError(t, json.Unmarshal([]byte(f[2]), &input))
		rows[n] = [2]string{input, f[4]}
	}
	require.NotEmpty(t, rows)
	return rows
}

// closedPort returns an address on which nobody listens.
func closedPort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	require.NoError(t, l.Close())
	return l.Addr().String()
}

// What is wrong with the environment is told by doctor, and by any command that
// would send something, before it does, in the words of the table.
func TestBadEnvironment(t *testing.T) {
	t.Parallel()
	const token = "abcdefgh12345678"
	for n, row := range badEnvironments(t) {
		t.Run(strconv.Itoa(n), func(t *testing.T) {
			t.Parallel()
			input, want := row[0], row[1]
			env := []string{"HOME=" + t.TempDir(), "RICLOUD_TOKEN=" + token, "RICLOUD_URL=https://ricloud.example"}
			secrets := []string{token}
			code := 2 // of the command that is no doctor
			switch n {
			case 299:
				proxy := closedPort(t)
				env = append(env, "HTTPS_PROXY=http://proxy-user:proxy-password@"+proxy)
				secrets = append(secrets, "proxy-user", "proxy-password")
				want = strings.Replace(want, "proxy.example:3128", proxy, 1)
				code = 1
			case 301:
				env = nil
			default:
				name, value, ok := strings.Cut(input, "=")
				require.True(t, ok, input)
				if s, err := strconv.Unquote(value); err == nil {
					value = s
				}
				env = append(env, name+"="+value)
			}

			// The table leaves away what the place is called in between.
			place, reason, ok := strings.Cut(want, ": ")
			if !ok {
				place, reason = "", want
			}
			told := func(text string) {
				t.Helper()
				for line := range strings.Lines(text) {
					if i := strings.Index(line, place); i >= 0 && strings.Contains(line[i:], reason) {
						return
					}
				}
				assert.Fail(t, "not told", "%q in\n%s", want, text)
			}
			got := run(t, env, "ricloud", "key", "list")
			assert.Equal(t, code, got.code)
			assert.Empty(t, got.stdout)
			if n == 299 {
				assert.Contains(t, got.stderr, "connection refused")
			} else {
				told(got.stderr)
			}
			silent(t, got, secrets)
			for _, args := range [][]string{{"doctor"}, {"doctor", "ricloud", "--output", "json"}} {
				got = run(t, env, args...)
				assert.Equal(t, 2, got.code, got.all())
				told(got.stdout)
				silent(t, got, secrets)
			}
			if n <= 297 { // a setting
				got = run(t, env, "config", "view")
				assert.Equal(t, 2, got.code)
				told(got.stdout)
				told(got.stderr)
				silent(t, got, secrets)
			}
		})
	}
}

func silent(t *testing.T, got ran, secrets []string) {
	t.Helper()
	for _, s := range secrets {
		assert.NotContains(t, got.all(), s)
	}
	assert.NotContains(t, got.all(), "goroutine ")
}

// A variable that should hold a secret, or that may by mistake, is never shown.
func TestBadEnvironmentIsNotShown(t *testing.T) {
	t.Parallel()
	const canary = "canary0123456789"
	for _, variable := range []string{
		"RICLOUD_TOKEN=" + canary + "\n",
		"RICLOUD_TOKEN=Bearer " + canary,
		"RICLOUD_URL=https://user:" + canary + "@ricloud.example",
		"RICLOUD_URL=" + canary,
		"RICLOUD_DELTA=" + canary,
		"RICLOUD_MAX_RETRIES=" + canary,
		"RICLOUD_AWAIT_FOR=" + canary,
		"HTTPS_PROXY=::" + canary + "::",
		"HTTPS_PROXY=http://user:" + canary + "@:80",
		"HTTPS_PROXY=http://user:" + canary + "/x@127.0.0.1:1",
		"HTTPS_PROXY=http://" + canary + ":12345/x@127.0.0.1:1",
		"https_proxy=http://user:" + canary + "@127.0.0.1:1",
		"https_proxy=user:" + canary + "@127.0.0.1:1",
		"ACEDATACLOUD_PLATFORM_TOKEN=" + canary + " ",
		"PLATFORM_API_BASE_URL=" + canary,
	} {
		env := []string{"HOME=" + t.TempDir(), "RICLOUD_TOKEN=abcdefgh12345678", "RICLOUD_URL=https://ricloud.invalid", variable}
		for _, args := range [][]string{
			{"doctor"}, {"config", "view"}, {"config", "view", "--output", "json"},
			{"config", "init", "--no-check"},
		} {
			got := run(t, env, args...)
			assert.NotContains(t, got.all(), canary, "%s: %s", variable, args)
			assert.NotContains(t, got.all(), "goroutine ")
		}
	}
}

// Without a home directory every command says what it lacks, or does without.
func TestNoHome(t *testing.T) {
	t.Parallel()
	for _, home := range [][]string{nil, {"HOME="}} {
		for _, args := range [][]string{
			{"ricloud", "key", "list"}, {"ricloud", "organisation", "get"}, {"ricloud", "task", "list"},
			{"config", "init", "--no-check"}, {"doctor"}, {"doctor", "ricloud", "--offline"},
		} {
			got := run(t, home, args...)
			assert.Equal(t, 2, got.code, "%s", args)
			assert.Contains(t, got.all(), "no home directory; set the config path explicitly", "%s", args)
			assert.NotContains(t, got.all(), "goroutine ")
		}
		for _, args := range [][]string{
			{"config", "view"}, {"version"}, {"ricloud", "key", "--help"}, {"help"}, {"completion", "bash"},
		} {
			got := run(t, home, args...)
			assert.Zero(t, got.code, "%s: %s", args, got.stderr)
			assert.NotContains(t, got.all(), "goroutine ")
		}
		for _, args := range [][]string{{"acedata", "application", "list"}, {"rotate", "plan"}, {"rotate", "status"}} {
			got := run(t, home, args...)
			assert.Equal(t, 2, got.code, "%s: %s", args, got.stderr)
			assert.NotContains(t, got.all(), "goroutine ")
		}
		file := filepath.Join(t.TempDir(), "ricloud.ini")
		got := run(t, append(home, "RICLOUD_TOKEN=abcdefgh12345678"), "config", "init", "--no-check", "--config", file)
		assert.Zero(t, got.code, got.stderr)
		assert.FileExists(t, file)
	}
}
