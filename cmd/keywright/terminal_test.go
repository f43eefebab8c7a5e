//go:build unix

package main

import (
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/creack/pty"
	"github.com/mattn/go-runewidth"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.yaml.in/yaml/v3"

	"github.com/keywright/keywright/keywrighttest"
)

// names are of credentials, as a provider may send them.
var names = []string{
	"plain",
	"機械学習の鍵です", "热门的密钥", "비밀 열쇠", "clé naïve", "e\u0301t\u00e9", "👩‍👩‍👧 family", "ünïcödé",
	"red \x1b[31malert\x1b[0m", "title \x1b]0;owned\x07", "clip \x1b]52;c;aGk=\x07", "\u009b31m C1", "arabic \u061cmark", "bell\a back\b\b\b\b", "line\r\nkeywright: all is well", "tab\tbed",
	"right \u202egnp.exe", "isolate \u2066abc\u2069", "zero\u200bwidth", "mark\u200f", "line\u2028separator", "bom\ufeff", "invalid \ufffd",
	strings.Repeat("long ", 20), "  blanks  ", "",
}

// hostileCharacters are those that a terminal acts on.
var hostileCharacters = regexp.MustCompile("[\x00-\x09\x0b-\x1f\x7f\u0080-\u009f\u061c\u200b\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069\ufeff]")

// namedSite is a site whose provider sends hostile names.
func namedSite(t *testing.T) *site {
	t.Helper()
	s := newSite(t)
	s.acedata(t)
	s.ad.AddCredentials(len(names))
	s.env = append(s.env, "TERM=xterm", "LANG=en_US.UTF-8", "NO_COLOR=1")
	n := 0
	s.ad.Inject(keywrighttest.Fault{Op: "credential.list", When: keywrighttest.AfterApply, Times: -1, Edit: func(body []byte) []byte {
		return nameField.ReplaceAllFunc(body, func([]byte) []byte {
			n++
			return []byte(`"name":` + quotedJSON(names[(n-1)%len(names)]))
		})
	}})
	return s
}

// nameField is the name of a credential; the fixture's services have titles.
var nameField = regexp.MustCompile(`"name":(null|"[^"]*")`)

// quotedJSON escapes only what JSON does not allow, so that everything else
// arrives raw.
func quotedJSON(s string) string {
	var b strings.Builder
	for _, r := range s {
		if r < 0x20 || r == '"' || r == '\\' {
			fmt.Fprintf(&b, `\u%04x`, r)
		} else {
			b.WriteRune(r)
		}
	}
	return `"` + b.String() + `"`
}

// TestHostileNames lists things with names that a terminal would act on: it
// gets none of that raw, and columns stay aligned.
func TestHostileNames(t *testing.T) {
	t.Parallel()
	var stories []story
	for _, cols := range []uint16{40, 80, 300, 1000} {
		for _, format := range []string{"table", "json", "yaml", "name"} {
			stories = append(stories, story{fmt.Sprintf("%s in %d columns", format, cols), func(t *testing.T) {
				s := namedSite(t)
				cmd := s.command(t.Context(), "acedata", "credential", "list", "--output", format)
				screen, err := onTerminal(cmd, &pty.Winsize{Cols: cols, Rows: 24}, "")
				e := end(t, err, screen, "")
				require.Equal(t, 0, e.code, "%s", e)
				assert.True(t, utf8.ValidString(screen))
				assert.NotRegexp(t, hostileCharacters, screen)
				if format != "name" {
					assert.Contains(t, screen, "機械学習の鍵です")
				}
				if format == "table" && (cols == 40 || cols == 300) {
					golden(t, screen, fmt.Sprintf("terminal/names-%d.txt", cols))
				}
				if format == "table" && cols >= 300 {
					aligned(t, screen)
				}
			}})
		}
	}
	for _, format := range []string{"table", "json", "yaml", "name"} {
		stories = append(stories, story{format + " in a file", func(t *testing.T) {
			e := namedSite(t).must(t, 0, "acedata", "credential", "list", "--output", format)
			assert.NotRegexp(t, hostileCharacters, e.stdout)
			if format == "json" || format == "yaml" { // what was sent can be read again
				var list []struct {
					Name string `yaml:"name"`
				}
				require.NoError(t, yaml.Unmarshal([]byte(e.stdout), &list))
				for i, want := range names {
					assert.Equal(t, want, list[i].Name)
				}
			}
		}})
	}
	atOnce(t, stories)
}

// TestHostileErrors has providers send errors that a terminal would act on.
func TestHostileErrors(t *testing.T) {
	t.Parallel()
	const text = `\u001b]0;owned\u0007 \u009b31m \u202egnp\r\nkeywright: all is well`
	bodies := []string{
		`{"error": "` + text + `", "message": "` + text + `"}`,
		`{"detail": "` + text + `", "code": "` + text + `", "error": {"` + text + `": "` + text + `"}}`,
		`{"name": ["` + text + `"], "` + text + `": ["` + text + `"]}`,
		"\x1b]0;owned\x07 no JSON \x9b31m \u202e", "[]", "null", `"` + text + `"`,
	}
	var stories []story
	for i, body := range bodies {
		for _, status := range []int{200, 400, 401, 403, 404, 429, 500} {
			stories = append(stories, story{fmt.Sprintf("%d with body %d", status, i), func(t *testing.T) {
				s := newSite(t)
				s.ricloud(t)
				s.acedata(t)
				s.env = append(s.env, "NO_COLOR=1", "TERM=xterm", "RICLOUD_MAX_RETRIES=0")
				for _, f := range []interface {
					Inject(...keywrighttest.Fault)
				}{s.rc, s.ad} {
					f.Inject(keywrighttest.Fault{
						Do: keywrighttest.Answer, Status: status, Body: body, Times: -1,
						Header: http.Header{"X-Request-Id": {"\x1b]0;owned\x07"}, "Content-Type": {"text/\u202ehtml"}},
					})
				}
				for _, line := range []string{"ricloud key list -v", "acedata credential create --application-id " + s.ad.ApplicationID() + " --reveal --settle-time 1ms --attempts 1 -v"} {
					screen, err := onTerminal(s.command(t.Context(), strings.Fields(line)...), &pty.Winsize{Cols: 80, Rows: 24}, "")
					e := end(t, err, screen, "")
					assert.NotRegexp(t, hostileCharacters, screen, "%s: %s", line, e)
					assert.NotRegexp(t, `(?m)^keywright: all is well`, screen)
				}
			}})
		}
	}
	atOnce(t, stories)
}

// aligned checks that a table's second column begins in the same place in each
// line.
func aligned(t *testing.T, table string) {
	t.Helper()
	lines := strings.Split(strings.TrimSpace(table), "\n")
	before, _, ok := strings.Cut(lines[0], "TYPE")
	require.True(t, ok, "%s", lines[0])
	at := runewidth.StringWidth(before)
	for _, line := range lines[1:] {
		width := 0
		rest := strings.TrimLeftFunc(line, func(r rune) bool {
			if width >= at {
				return false
			}
			width += runewidth.RuneWidth(r)
			return true
		})
		assert.Regexp(t, `^(Token|Identity) `, rest, line)
	}
}

// golden compares a text with a file in testdata/golden.
func golden(t *testing.T, text, name string) {
	t.Helper()
	text = uuids.ReplaceAllString(text, "00000000-0000-4000-8000-000000000010")
	text = times.ReplaceAllString(text, "2026-01-02T03:04:05Z")
	path := filepath.Join(goldenDir, name)
	if *update {
		require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o755))
		require.NoError(t, os.WriteFile(path, []byte(text), 0o644))
		return
	}
	want, err := os.ReadFile(path)
	require.NoError(t, err)
	assert.Equal(t, string(want), text)
}

// TestEnvironments runs commands where much of the usual environment is absent.
func TestEnvironments(t *testing.T) {
	t.Parallel()
	lines := []string{
		"--help", "version", "config view", "ricloud key list", "ricloud key create --token-file new.token --force", "rotate plan", "rotate run", "rotate status",
	}
	var stories []story
	for name, c := range map[string]struct{ unset, set []string }{
		"no home":     {unset: []string{"HOME"}},
		"empty home":  {set: []string{"HOME="}},
		"home gone":   {set: []string{"HOME=/nonexistent/home"}},
		"no path":     {unset: []string{"PATH"}},
		"LANG=C":      {set: []string{"LANG=C", "LC_ALL=C"}},
		"no TMPDIR":   {unset: []string{"TMPDIR"}},
		"TMPDIR gone": {set: []string{"TMPDIR=/nonexistent/tmp"}},
		"strange":     {set: []string{"COLUMNS=none", "LINES=-1", "TERM=none-such", "XDG_STATE_HOME=relative", "NO_COLOR=", "SOURCE_DATE_EPOCH=0"}},
		"garbage":     {set: []string{"A", "=B", "\xff=\xff", "COLUMNS=99999999999999999999"}},
	} {
		stories = append(stories, story{name, func(t *testing.T) {
			s := jobSite(t, "ricloud-paired", "")
			// Without a PATH the shell of the command finds no mv.
			s.write(t, "deliver", "#!/bin/sh\nread -r token && echo \"$token\" >'"+s.path("delivered")+"'\n")
			for _, line := range lines {
				cmd := s.command(t.Context(), strings.Fields(line)...)
				var env []string
				for _, v := range cmd.Env {
					name, _, _ := strings.Cut(v, "=")
					if !slices.Contains(c.unset, name) && !slices.ContainsFunc(c.set, func(s string) bool { return strings.HasPrefix(s, name+"=") }) {
						env = append(env, v)
					}
				}
				cmd.Env = append(env, c.set...)
				var stdout, stderr strings.Builder
				cmd.Stdout, cmd.Stderr = &stdout, &stderr
				err := cmd.Run()
				e := end(t, err, stdout.String(), stderr.String())
				assert.Equal(t, 0, e.code, "%s: %s", line, e)
				assert.NotContains(t, e.stdout+e.stderr, "\x1b")
			}
			s.agrees(t, ended{})
		}})
	}
	stories = append(stories, story{"no working directory", func(t *testing.T) {
		s := jobSite(t, "ricloud-paired", "")
		require.NoError(t, os.Mkdir(s.path("gone"), 0o700))
		for _, line := range []string{"--help", "version", "config view", "ricloud key list", "rotate run --file " + s.path("keywright.yaml")} {
			require.NoError(t, os.MkdirAll(s.path("gone"), 0o700))
			cmd := exec.CommandContext(t.Context(), "/bin/sh", append([]string{"-c", `cd gone && rmdir "$PWD" && exec "$@"`, "sh", program}, strings.Fields(line)...)...)
			cmd.Dir, cmd.Env = s.dir, s.command(t.Context()).Env
			out, err := cmd.CombinedOutput()
			e := end(t, err, "", string(out))
			assert.Equal(t, 0, e.code, "%s: %s", line, e)
		}
		s.agrees(t, ended{})
	}})
	for name, c := range map[string]struct {
		env     []string
		colours bool
	}{
		"a terminal":     {[]string{"TERM=xterm"}, true},
		"no TERM":        {nil, true},
		"NO_COLOR empty": {[]string{"TERM=xterm", "NO_COLOR="}, true},
		"NO_COLOR":       {[]string{"TERM=xterm", "NO_COLOR=1"}, false}, // a bar moves all the same
		"TERM=dumb":      {[]string{"TERM=dumb"}, false},
	} {
		stories = append(stories, story{"colours: " + name, func(t *testing.T) {
			s := jobSite(t, "ricloud-paired", "")
			s.env = append(s.env, c.env...)
			for _, line := range []string{"ricloud key list", "rotate run", "rotate status", "nonsense", "rotate run --all"} {
				screen, err := onTerminal(s.command(t.Context(), strings.Fields(line)...), &pty.Winsize{Cols: 200, Rows: 24}, "")
				e := end(t, err, screen, "")
				switch found := escapes.FindAllString(screen, -1); {
				case name == "TERM=dumb":
					assert.NotContains(t, screen, "\x1b", "%s: %s", line, e)
				case c.colours:
					assert.Contains(t, screen, "\x1b[", "%s: %s", line, e)
				default:
					assert.Empty(t, found, "%s: %s", line, e)
				}
			}
		}})
	}
	atOnce(t, stories)
}

// escapes set colours.
var escapes = regexp.MustCompile(`\x1b\[[0-9;]*m`)
