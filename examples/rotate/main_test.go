package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/keywright/keywright"
	"github.com/keywright/keywright/keywrighttest"
)

func TestEmbedded(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	path := filepath.Join(t.TempDir(), "ricloud.token")
	require.NoError(t, embedded(t.Context(), &out, path))
	lines := strings.Split(strings.TrimSpace(out.String()), "\n")
	for i, want := range []string{
		"started a fake ricloud", "key 1 is active", "can be written", "rotated", "saved to " + path + " (mode 0600)",
		"accepted: the new token", "accepted: the old token, until", "six hours later", "refused: the old token", "accepted: the token in the file",
	} {
		assert.Contains(t, lines[i], want)
	}
}

// A token that cannot be put in its place is rescued.
func TestRescue(t *testing.T) {
	t.Setenv("TMPDIR", t.TempDir())
	err := rescue(keywright.NewSecret("a-token-0123456789"))
	require.ErrorContains(t, err, "keywright-rescued-")
	assert.NotContains(t, err.Error(), "a-token-0123456789")
	path := err.Error()[strings.Index(err.Error(), "/"):]
	saved, rerr := os.ReadFile(path)
	require.NoError(t, rerr)
	assert.Equal(t, "a-token-0123456789\n", string(saved))
}

// The same against a provider that is named by the environment, with the
// answer to the rotation lost.
func TestAtProvider(t *testing.T) {
	fake := keywrighttest.StartRicloud(t)
	t.Setenv("RICLOUD_TOKEN", fake.Token())
	t.Setenv("RICLOUD_URL", fake.URL())
	fake.Inject(keywrighttest.Fault{Op: "key.rotate", When: keywrighttest.AfterApply, Do: keywrighttest.Drop})
	path := filepath.Join(t.TempDir(), "ricloud.token")
	require.NoError(t, os.WriteFile(path, []byte("the token before"), 0o644))
	var out bytes.Buffer
	require.NoError(t, atProvider(t.Context(), &out, path))
	assert.Contains(t, out.String(), "the answer was lost; reading the key back")
	saved, err := os.ReadFile(path)
	require.NoError(t, err)
	assert.Equal(t, fake.Token()+"\n", string(saved))
	info, err := os.Stat(path)
	require.NoError(t, err)
	assert.Equal(t, os.FileMode(0o600), info.Mode().Perm())
	assert.NotContains(t, out.String(), fake.Token())
	left, err := os.ReadDir(filepath.Dir(path))
	require.NoError(t, err)
	assert.Len(t, left, 1, "no temporary file is left")
	assert.Equal(t, 1, fake.Applied("key.rotate"))

	// Nothing is rotated if the token could not be saved.
	require.Error(t, atProvider(t.Context(), &out, filepath.Join(t.TempDir(), "missing", "ricloud.token")))
	assert.Equal(t, 1, fake.Count("key.rotate"))
}
