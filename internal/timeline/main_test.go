package main

import (
	"encoding/xml"
	"errors"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/keywright/keywright/rotation"
)

// TestPictures performs the rotations, all of which must end in DONE, and
// draws both pictures.
func TestPictures(t *testing.T) {
	t.Parallel()
	done, err := rotations(t.Context())
	require.NoError(t, err)
	require.Len(t, done, len(scenes))
	names := make(map[string]bool)
	for _, r := range done {
		names[r.traits.Name] = true
		assert.Equal(t, rotation.StateDone, r.changes[len(r.changes)-1].to, r.title)
		assert.Len(t, r.writes, 2, r.title)
		resolved := strings.Contains(r.String(), string(rotation.StateResolving))
		assert.Equal(t, r.fault != nil, resolved, r.title)
		assert.Equal(t, r.fault != nil, r.calls[0].lost, r.title)
	}
	assert.Len(t, names, 4, "strategies")
	for _, picture := range []string{timelinePicture(done), statesPicture()} {
		wellFormed(t, picture)
		for _, r := range done {
			for _, m := range r.moments {
				for _, token := range m.accepted {
					require.NotContains(t, picture, token)
				}
			}
		}
	}
}

// TestFiles writes the pictures as the command does.
func TestFiles(t *testing.T) {
	t.Parallel()
	require.ErrorIs(t, run(t.Context(), filepath.Join(t.TempDir(), "none")), os.ErrNotExist)
	dir := t.TempDir()
	require.NoError(t, run(t.Context(), dir))
	for _, name := range []string{"rotation-states.svg", "rotation-timeline.svg"} {
		b, err := os.ReadFile(filepath.Join(dir, name))
		require.NoError(t, err)
		wellFormed(t, string(b))
	}
}

// TestStates checks that the table names every state once, and that the
// picture in the repository is the one of this table.
func TestStates(t *testing.T) {
	t.Parallel()
	seen := make(map[rotation.State]int)
	for _, b := range states {
		seen[b.state]++
	}
	all := []rotation.State{
		rotation.StateIdle, rotation.StatePlanned, rotation.StateIntent, rotation.StateResolving, rotation.StateIssued,
		rotation.StateVerified, rotation.StateDistributing, rotation.StateConverging, rotation.StateRetiring, rotation.StateDone,
		rotation.StateRollingBack, rotation.StateRolledBack, rotation.StateStuck,
	}
	assert.Len(t, states, len(all))
	for _, s := range all {
		assert.Equal(t, 1, seen[s], s)
		assert.NotEmpty(t, colours[s], s)
	}
	for _, e := range edges {
		assert.Contains(t, seen, e.from)
		assert.Contains(t, seen, e.to)
	}
	assert.True(t, drawn(rotation.StateIssued, rotation.StateStuck))
	assert.False(t, drawn(rotation.StateIdle, rotation.StateIntent))
	b, err := os.ReadFile("../../docs/rotation-states.svg")
	require.NoError(t, err)
	assert.Equal(t, statesPicture(), string(b), "run go run ./internal/timeline")
}

// wellFormed checks that a picture is XML, and that its text is large enough
// to be read.
func wellFormed(t *testing.T, picture string) {
	t.Helper()
	d := xml.NewDecoder(strings.NewReader(picture))
	for {
		_, err := d.Token()
		if errors.Is(err, io.EOF) {
			break
		}
		require.NoError(t, err)
	}
	for _, m := range regexp.MustCompile(`font-size="(\d+)"`).FindAllStringSubmatch(picture, -1) {
		size, err := strconv.Atoi(m[1])
		require.NoError(t, err)
		assert.GreaterOrEqual(t, size, 12)
	}
}
