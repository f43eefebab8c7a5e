//go:build unix

package main

import (
	"encoding/json"
	"os"
	"strings"
	"testing"

	"github.com/creack/pty"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// TestBadInputs runs the rows of testdata/bad-inputs.tsv about the command
// line: each is refused as the table says.
func TestBadInputs(t *testing.T) {
	t.Parallel()
	// How to say on the command line what a row describes.
	lines := map[string]string{
		"280": "rotat", "281": "ricloud key create --tokn x", "285": "ricloud storage-config delete 1",
		"286": "ricloud key list --auth-file -", "287": "ricloud key list --output xml",
		"288": "ricloud key create --token-file existing", "289": "ricloud key list --timeout 5", "290": "ricloud key list",
	}
	b, err := os.ReadFile("../../testdata/bad-inputs.tsv")
	require.NoError(t, err)
	tried := 0
	for row := range strings.Lines(string(b)) {
		f := strings.Split(strings.TrimRight(row, "\n"), "\t")
		if f[1] != "cli" {
			continue
		}
		tried++
		t.Run(f[0], func(t *testing.T) {
			t.Parallel()
			var input string
			require.NoError(t, json.Unmarshal([]byte(f[2]), &input))
			require.NotEmpty(t, lines[f[0]], "row %s: nobody says how to try %q", f[0], input)
			assert.Equal(t, "tested", f[6])
			args := strings.Fields(lines[f[0]])
			s := newSite(t)
			s.ricloud(t)
			s.write(t, "existing", "kept")
			if f[0] == "290" {
				for output := range badOutputs {
					e := s.runInto(t, output, args...)
					assert.LessOrEqual(t, e.code, 1, "%s", e)
				}
				return
			}
			text, exit := strings.CutSuffix(f[4], " (exit 2)")
			require.True(t, exit)
			var e ended
			if strings.Contains(input, "on a terminal") {
				s.env = append(s.env, "NO_COLOR=1")
				cmd := s.command(t.Context(), args...)
				screen, err := onTerminal(cmd, &pty.Winsize{Cols: 80, Rows: 24}, "")
				e = end(t, err, "", screen)
			} else {
				e = s.run(t, args...)
				assert.Empty(t, e.stdout)
			}
			assert.Equal(t, 2, e.code, "%s", e)
			assert.Contains(t, e.stderr, "keywright: "+text+"\n")
			assert.Empty(t, s.rc.Requests(), "something was sent")
			assert.Equal(t, "kept", s.read("existing"))
		})
	}
	assert.Equal(t, len(lines), tried)
}
