//go:build unix

package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/creack/pty"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/keywright/keywright/keywrighttest"
)

// badOutputs are standard outputs that take nothing.
var badOutputs = map[string]func(*testing.T) *os.File{
	"closed": func(*testing.T) *os.File { return nil }, // see runInto
	"nobody reads": func(t *testing.T) *os.File {
		r, w, err := os.Pipe()
		require.NoError(t, err)
		require.NoError(t, r.Close())
		return w
	},
	"disk full": func(t *testing.T) *os.File {
		f, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
		if err != nil {
			t.Skip("there is no /dev/full here")
		}
		return f
	},
}

// runInto runs the program with a bad standard output.
func (s *site) runInto(t *testing.T, output string, args ...string) ended {
	t.Helper()
	cmd := s.command(t.Context(), args...)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	if f := badOutputs[output](t); f != nil {
		defer f.Close()
		cmd.Stdout = f
	} else { // a shell can close it, and exec.Cmd cannot
		shell := exec.CommandContext(t.Context(), "/bin/sh", append([]string{"-c", `exec "$@" >&-`, "sh", program}, args...)...)
		shell.Dir, shell.Env, shell.Stderr = cmd.Dir, cmd.Env, &stderr
		cmd = shell
	}
	return end(t, cmd.Run(), "", stderr.String())
}

// TestOutputFails runs commands whose output nobody takes.
func TestOutputFails(t *testing.T) {
	t.Parallel()
	var stories []story
	for output := range badOutputs {
		stories = append(stories, story{output, func(t *testing.T) {
			s := jobSite(t, "ricloud-paired", "")
			for _, line := range []string{
				"ricloud key list", "ricloud key list -o json", "ricloud key get 1 -o yaml", "--help", "ricloud key --help",
				"version", "completion bash", "config view", "doctor", "rotate plan", "rotate run", "rotate status", "rotate schema", "nonsense",
			} {
				e := s.runInto(t, output, strings.Fields(line)...)
				switch want := e.code; {
				case line == "nonsense":
					assert.Equal(t, 2, want, "%s: %s", line, e)
				case line == "rotate run" && output != "closed": // it has changed something
					assert.Equal(t, 3, want, "%s: %s", line, e)
					assert.Contains(t, e.stderr, "what was asked for is done; only its output has failed")
				default:
					assert.LessOrEqual(t, want, 1, "%s: %s", line, e)
				}
				if output == "nobody reads" && line != "rotate run" && line != "nonsense" {
					assert.Empty(t, e.stderr, line)
				}
				if output == "disk full" && !strings.HasSuffix(line, "--help") && line != "nonsense" {
					assert.Contains(t, e.stderr, "no space left on device", line)
					assert.NotZero(t, e.code, line)
				}
			}
			s.agrees(t, ended{})
		}})
	}
	atOnce(t, stories)
}

var recovered = regexp.MustCompile(`the secret was issued and is in (/\S+\.token)`)

// TestRevealIsNotLost prints secrets where nobody takes them: they are in a
// file then, or on the terminal.
func TestRevealIsNotLost(t *testing.T) {
	t.Parallel()
	places := []struct {
		name string
		env  []string // for %s the site's directory
		dir  string   // that the file is in, below the site's
		gone bool     // the working directory is removed
	}{
		{name: "home", dir: ".local/state/keywright"},
		{name: "state", env: []string{"XDG_STATE_HOME=%s/state"}, dir: "state/keywright"},
		{name: "state is not absolute", env: []string{"XDG_STATE_HOME=state"}, dir: ".local/state/keywright"},
		{name: "home is a file", env: []string{"HOME=/dev/null"}, dir: "work"},
		{name: "no home", env: []string{"HOME="}, dir: "work"},
		{name: "state is a file", env: []string{"XDG_STATE_HOME=/dev/null"}, dir: "work"},
		{name: "no working directory", env: []string{"HOME=/dev/null", "TMPDIR=%s/tmp"}, dir: "tmp", gone: true},
		{name: "nowhere", env: []string{"HOME=/dev/null", "TMPDIR=/dev/null"}, gone: true},
	}
	var stories []story
	for name := range issuing(t, newSite(t)) {
		for _, place := range places {
			for _, output := range []string{"nobody reads", "disk full"} {
				if name != "key rotate" && (place.name != "home" || output == "disk full") {
					continue
				}
				stories = append(stories, story{fmt.Sprintf("%s, %s, %s", name, place.name, output), func(t *testing.T) {
					s := newSite(t)
					c := issuing(t, s)[name]
					for _, d := range []string{"work", "tmp"} {
						require.NoError(t, os.Mkdir(s.path(d), 0o700))
					}
					for _, v := range place.env {
						s.env = append(s.env, strings.ReplaceAll(v, "%s", s.dir))
					}
					e := s.inDirectory(t, place.gone, output, append(c.args, "--reveal"))
					if place.dir == "" { // there would be no place: it does not begin
						assert.Equal(t, 2, e.code, "%s", e)
						assert.Contains(t, e.stderr, "nothing was sent")
						assert.Zero(t, fakeOf(s, c.op).Count(c.op))
						return
					}
					assert.Equal(t, 3, e.code, "%s", e)
					m := recovered.FindStringSubmatch(e.stderr)
					require.NotNil(t, m, "%s", e)
					assert.Equal(t, s.path(place.dir), filepath.Dir(m[1]))
					info, err := os.Stat(m[1])
					require.NoError(t, err)
					assert.Equal(t, os.FileMode(0o600), info.Mode().Perm())
					b, err := os.ReadFile(m[1])
					require.NoError(t, err)
					token := strings.TrimSuffix(string(b), "\n")
					assert.Contains(t, s.everything(t), token)
					assert.NotContains(t, e.stderr, token)
				}})
			}
		}
		// Where it is known before the call that nobody will see it, nothing is sent.
		stories = append(stories, story{name + ", output closed", func(t *testing.T) {
			s := newSite(t)
			c := issuing(t, s)[name]
			e := s.runInto(t, "closed", append(c.args, "--reveal")...)
			assert.Equal(t, 2, e.code, "%s", e)
			e = s.must(t, 2, append(c.args, "--reveal", "--output", "name")...)
			assert.Contains(t, e.stderr, "nothing was sent")
			assert.Zero(t, fakeOf(s, c.op).Count(c.op))
		}})
	}
	atOnce(t, stories)
}

// inDirectory runs the program in the directory work of a site, which may be
// gone by then. It has no terminal.
func (s *site) inDirectory(t *testing.T, gone bool, output string, args []string) ended {
	t.Helper()
	script := `cd "$0" && exec "$@"`
	if gone {
		script = `cd "$0" && rmdir "$0" && exec "$@"`
	}
	cmd := exec.CommandContext(t.Context(), "/bin/sh", append([]string{"-c", script, s.path("work"), program}, args...)...)
	cmd.Env = s.command(t.Context()).Env
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	var stderr strings.Builder
	cmd.Stderr = &stderr
	f := badOutputs[output](t)
	defer f.Close()
	cmd.Stdout = f
	return end(t, cmd.Run(), "", stderr.String())
}

// TestRevealOnTerminal has no place for a secret but the terminal, although
// standard output and standard error are not.
func TestRevealOnTerminal(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	c := issuing(t, s)["key rotate"]
	s.env = append(s.env, "HOME=/dev/null", "TMPDIR=/dev/null")
	require.NoError(t, os.Mkdir(s.path("work"), 0o700))
	cmd := exec.CommandContext(t.Context(), "/bin/sh", append([]string{"-c", `cd "$0" && rmdir "$0" && exec "$@" >/dev/full 2>"$OLDPWD/stderr"`, s.path("work"), program}, append(c.args, "--reveal")...)...)
	cmd.Dir, cmd.Env = s.dir, s.command(t.Context()).Env
	screen, err := onTerminal(cmd, &pty.Winsize{Cols: 80, Rows: 24}, "")
	e := end(t, err, screen, s.read("stderr"))
	assert.Equal(t, 3, e.code, "%s", e)
	token := strings.TrimSpace(screen[strings.LastIndex(strings.TrimSpace(screen), "\n")+1:])
	assert.Contains(t, s.rc.AcceptedTokens(1), token, "%s", e)
	assert.NotContains(t, e.stderr, token)
}

// TestTokenFile saves secrets in files that cannot be written, or that somebody
// else makes meanwhile.
func TestTokenFile(t *testing.T) {
	t.Parallel()
	refused := []struct {
		name, file string
		args       []string
		prepare    func(*testing.T, *site)
	}{
		{name: "a file that is there", file: "there", prepare: func(t *testing.T, s *site) { s.write(t, "there", "kept") }},
		{name: "a directory", file: "dir"},
		{name: "a directory, by force", file: "dir", args: []string{"--force"}},
		{name: "a symbolic link", file: "link"},
		{name: "a symbolic link, by force", file: "link", args: []string{"--force"}},
		{name: "a dangling link", file: "dangling"},
		{name: "no directory", file: "none/new.token"},
		{name: "a read-only directory", file: "readonly/new.token"},
		{name: "the proc file system", file: "/proc/new.token"},
		{name: "a file below a file", file: "there/new.token", prepare: func(t *testing.T, s *site) { s.write(t, "there", "kept") }},
		{name: "standard input", file: "-"},
		{name: "nothing", file: ""},
		{name: "a slash at the end", file: "new.token/"},
		{name: "a device", file: "/dev/null", args: []string{"--force"}},
	}
	var stories []story
	for _, r := range refused {
		stories = append(stories, story{r.name, func(t *testing.T) {
			if r.file == "readonly/new.token" && os.Getuid() == 0 {
				t.Skip("nothing is read-only to root")
			}
			s := newSite(t)
			s.ricloud(t)
			require.NoError(t, os.Mkdir(s.path("dir"), 0o700))
			require.NoError(t, os.Mkdir(s.path("readonly"), 0o500))
			s.write(t, "target", "kept")
			require.NoError(t, os.Symlink("target", s.path("link")))
			require.NoError(t, os.Symlink("nowhere", s.path("dangling")))
			if r.prepare != nil {
				r.prepare(t, s)
			}
			e := s.must(t, 2, append([]string{"ricloud", "key", "create", "--token-file", r.file}, r.args...)...)
			assert.Contains(t, e.stderr, "--token-file", "%s", e)
			assert.Zero(t, s.rc.Count("key.create"))
			assert.Equal(t, "kept", s.read("target"))
			if r.prepare != nil {
				assert.Equal(t, "kept", s.read("there"))
			}
			assert.Empty(t, s.hiddenFiles(t))
		}})
	}
	stories = append(stories,
		story{"a file that appears", func(t *testing.T) {
			appears(t, func(path string) error { return os.WriteFile(path, []byte("kept"), 0o600) }, "kept")
		}},
		story{"a link that appears", func(t *testing.T) { appears(t, func(path string) error { return os.Symlink("/dev/null", path) }, "") }},
		story{"a directory that appears", func(t *testing.T) { appears(t, func(path string) error { return os.Mkdir(path, 0o700) }, "") }},
		story{"a directory that appears, by force", func(t *testing.T) {
			appears(t, func(path string) error { return os.Mkdir(path, 0o700) }, "", "--force")
		}},
		story{"its directory goes away", func(t *testing.T) {
			appears(t, func(path string) error { return os.RemoveAll(filepath.Dir(path)) }, "")
		}},
		story{"its directory becomes another", func(t *testing.T) {
			appears(t, func(path string) error {
				dir := filepath.Dir(path)
				if err := os.Rename(dir, dir+".old"); err != nil {
					return err
				}
				return os.Mkdir(dir, 0o700)
			}, "")
		}},
		story{"a file, by force", func(t *testing.T) {
			s := newSite(t)
			s.ricloud(t)
			s.write(t, "there", "old")
			require.NoError(t, os.Chmod(s.path("there"), 0o644))
			s.must(t, 0, "ricloud", "key", "create", "--token-file", "there", "--force")
			assert.Equal(t, s.rc.TokenOf(2)+"\n", s.read("there"))
			info, err := os.Stat(s.path("there"))
			require.NoError(t, err)
			assert.Equal(t, os.FileMode(0o600), info.Mode().Perm())
			assert.Empty(t, s.hiddenFiles(t))
		}},
		story{"no room", func(t *testing.T) {
			s := newSite(t)
			s.ricloud(t)
			e := s.shell(t, "ulimit -f 0; exec keywright ricloud key create --token-file new.token")
			assert.Equal(t, 2, e.code, "%s", e)
			assert.Zero(t, s.rc.Count("key.create"))
			assert.Empty(t, s.hiddenFiles(t))
		}},
		story{"a full disk", func(t *testing.T) {
			s, e := onSmallDisk(t, "cat /dev/zero >disk/zeros 2>/dev/null; exec keywright ricloud key create --token-file disk/new.token")
			assert.Equal(t, 2, e.code, "%s", e)
			assert.Contains(t, e.stderr, "no space left on device")
			assert.Zero(t, s.rc.Count("key.create"))
		}},
		story{"a disk that is full then", func(t *testing.T) {
			s, e := onSmallDisk(t, "keywright ricloud key create --token-file disk/new.token && cat disk/new.token")
			assert.Equal(t, 0, e.code, "%s", e)
			assert.True(t, strings.HasSuffix(e.stdout, s.rc.TokenOf(2)+"\n"), "%s", e)
		}})
	atOnce(t, stories)
}

// appears changes what is at the path of --token-file while the call is under
// way: the secret is in another file then, and what is there is kept.
func appears(t *testing.T, change func(path string) error, content string, args ...string) {
	t.Helper()
	s := newSite(t)
	s.ricloud(t)
	require.NoError(t, os.Mkdir(s.path("tokens"), 0o700))
	s.rc.Inject(keywrighttest.Fault{Op: "key.create", Do: keywrighttest.Slow, Delay: 300 * time.Millisecond})
	p := s.start(t, append([]string{"ricloud", "key", "create", "--token-file", "tokens/new.token"}, args...)...)
	eventually(t, "the call arrives", func() bool { return s.rc.Count("key.create") == 1 })
	require.NoError(t, change(s.path("tokens/new.token")))
	e := p.wait()
	assert.Equal(t, 3, e.code, "%s", e)
	assert.Equal(t, content, s.read("tokens/new.token"))
	m := regexp.MustCompile(`the secret (?:was issued and )?is in (\S+)`).FindStringSubmatch(e.stderr)
	require.NotNil(t, m, "%s", e)
	path := m[1]
	if !filepath.IsAbs(path) {
		path = s.path(path)
	}
	b, err := os.ReadFile(path)
	require.NoError(t, err, "%s", e)
	assert.Equal(t, s.rc.TokenOf(2)+"\n", string(b))
	info, err := os.Stat(path)
	require.NoError(t, err)
	assert.Equal(t, os.FileMode(0o600), info.Mode().Perm())
}

// hiddenFiles returns what was left beside files.
func (s *site) hiddenFiles(t *testing.T) []string {
	t.Helper()
	var names []string
	for _, pattern := range []string{".*.issued-*", "*/.*.issued-*"} {
		found, err := filepath.Glob(s.path(pattern))
		require.NoError(t, err)
		names = append(names, found...)
	}
	return names
}

// shell runs a script.
func (s *site) shell(t *testing.T, script string) ended {
	t.Helper()
	c := s.command(t.Context())
	cmd := exec.CommandContext(t.Context(), "/bin/sh", "-c", script)
	cmd.Dir, cmd.Env = c.Dir, c.Env
	var stdout, stderr strings.Builder
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	return end(t, err, stdout.String(), stderr.String())
}

// onSmallDisk runs a script that finds in the directory disk a file system of
// its own, with room for a secret and no more.
func onSmallDisk(t *testing.T, script string) (*site, ended) {
	t.Helper()
	s := newSite(t)
	s.ricloud(t)
	require.NoError(t, os.Mkdir(s.path("disk"), 0o700))
	const mount = "mount -t tmpfs -o size=8k,mode=700 none disk"
	s.write(t, "script", mount+" && { "+script+"\n}")
	if exec.CommandContext(t.Context(), "unshare", "-m", "sh", "-c", "cd '"+s.dir+"' && "+mount).Run() != nil {
		t.Skip("no file system can be mounted here")
	}
	return s, s.shell(t, "exec unshare -m sh script")
}
