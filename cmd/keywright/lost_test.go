//go:build unix

package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/keywright/keywright/keywrighttest"
)

// TestOrphans lets the provider answer with a new secret in a way that cannot be
// taken for the one that was asked for. The secret is kept.
func TestOrphans(t *testing.T) {
	t.Parallel()
	const orphan = "orphan-token-0123456789-0123456789"
	answer := func(edit func(map[string]any)) string {
		var key map[string]any
		require.NoError(t, json.Unmarshal(keywrighttest.Fixture("ricloud/key.json"), &key))
		key["id"], key["token"] = 1, orphan
		edit(key)
		b, err := json.Marshal(key)
		require.NoError(t, err)
		return string(b)
	}
	other := answer(func(key map[string]any) { key["id"] = 2 })
	noID := answer(func(key map[string]any) { delete(key, "id") })
	var stories []story
	for name, c := range map[string]struct {
		op, body string
		when     keywrighttest.Moment
		args     []string
		variants []keywrighttest.Option
	}{
		"rotated, another key":         {"key.rotate", other, keywrighttest.AfterApply, []string{"rotate", "1", "--yes"}, nil},
		"not rotated, another key":     {"key.rotate", other, keywrighttest.BeforeApply, []string{"rotate", "1", "--yes"}, nil},
		"masked, another key":          {"key.rotate", other, keywrighttest.AfterApply, []string{"rotate", "1", "--yes"}, []keywrighttest.Option{keywrighttest.WithMaskedTokens()}},
		"created, masked, without id":  {"key.create", noID, keywrighttest.AfterApply, []string{"create"}, []keywrighttest.Option{keywrighttest.WithMaskedTokens()}},
		"created, readable without id": {"key.create", noID, keywrighttest.AfterApply, []string{"create"}, nil},
	} {
		stories = append(stories, story{name, func(t *testing.T) {
			s := newSite(t)
			s.ricloud(t, c.variants...)
			s.rc.Inject(keywrighttest.Fault{Op: c.op, When: c.when, Do: keywrighttest.Answer, Status: 200, Body: c.body})
			e := s.run(t, append(append([]string{"ricloud", "key"}, c.args...), "--token-file", "token", "--settle-time", "300ms")...)
			assert.Equal(t, 3, e.code, "%s", e)
			assert.NotContains(t, e.stderr, "nothing has changed")
			assert.NotContains(t, e.stderr, orphan)
			m := recovered.FindStringSubmatch(e.stderr)
			require.NotNil(t, m, "%s", e)
			b, err := os.ReadFile(m[1])
			require.NoError(t, err)
			assert.Equal(t, orphan+"\n", string(b))
			assert.NoFileExists(t, s.path("token"))
		}})
	}
	atOnce(t, stories)
}

// TestOneTokenFile makes two keys at once whose tokens shall replace one file.
func TestOneTokenFile(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.ricloud(t)
	s.rc.Inject(keywrighttest.Fault{Op: "key.create", Do: keywrighttest.Slow, Delay: 300 * time.Millisecond, Times: 2})
	first := s.start(t, "ricloud", "key", "create", "--token-file", "token", "--force")
	second := s.start(t, "ricloud", "key", "create", "--token-file", "token", "--force")
	codes := []int{first.wait().code, second.wait().code}
	assert.ElementsMatch(t, []int{0, 3}, codes, "one of them finds that the file is another")
	// Both tokens are in a file.
	var held []string
	files, err := filepath.Glob(filepath.Join(s.dir, "*token*"))
	require.NoError(t, err)
	for _, name := range files {
		b, err := os.ReadFile(name)
		require.NoError(t, err)
		held = append(held, strings.TrimSpace(string(b)))
	}
	assert.ElementsMatch(t, []string{s.rc.TokenOf(2), s.rc.TokenOf(3)}, held)
}

// TestQuit sends what Ctrl-\ sends: it is an interrupt, and loses nothing.
func TestQuit(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.ricloud(t)
	s.rc.Inject(keywrighttest.Fault{Op: "key.create", When: keywrighttest.AfterApply, Do: keywrighttest.Slow, Delay: 300 * time.Millisecond})
	p := s.start(t, "ricloud", "key", "create", "--token-file", "token")
	eventually(t, "the call is under way", func() bool { return s.rc.Count("key.create") > 0 })
	p.signal(syscall.SIGQUIT)
	e := p.wait()
	assert.Equal(t, 0, e.code, "%s", e)
	assert.Equal(t, s.rc.TokenOf(2)+"\n", s.read("token"))
}

// TestLeftovers reserves a file beside one that a killed command has left, which
// goes away if it is old and empty.
func TestLeftovers(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.ricloud(t)
	old := time.Now().Add(-2 * time.Hour)
	for name, content := range map[string]string{
		".token.issued-1": strings.Repeat("\x00", 4097), // killed
		".token.issued-2": strings.Repeat("\x00", 4097), // at work
		".token.issued-3": "a-secret\n",                 // could not be placed
		".other.issued-4": strings.Repeat("\x00", 4097), // another's
	} {
		s.write(t, name, content)
		if name != ".token.issued-2" {
			require.NoError(t, os.Chtimes(s.path(name), old, old))
		}
	}
	s.must(t, 0, "ricloud", "key", "create", "--token-file", "token")
	assert.NoFileExists(t, s.path(".token.issued-1"))
	for _, name := range []string{".token.issued-2", ".token.issued-3", ".other.issued-4"} {
		assert.FileExists(t, s.path(name))
	}
}
