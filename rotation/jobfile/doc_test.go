package jobfile_test

import (
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/keywright/keywright/rotation/jobfile"
)

// TestManual parses every piece of a file that the manual shows.
func TestManual(t *testing.T) {
	t.Parallel()
	source, err := os.ReadFile("doc.go")
	require.NoError(t, err)
	var text strings.Builder
	for line := range strings.Lines(string(source)) {
		code, _ := strings.CutPrefix(line, "//\t")
		if code == line {
			code = "\n"
		}
		text.WriteString(code)
	}
	indent := func(s string) string { return strings.ReplaceAll(s, "\n", "\n  ") }
	const sinks = "sinks: [{type: file, path: a}]"
	var sinkTypes, strategies, others int
	for block := range strings.SplitSeq(text.String(), "\n\n") {
		block = strings.Trim(block, "\n")
		var file string
		switch {
		case strings.HasPrefix(block, "version:"):
			file = strings.Replace(block, "jobs: []", "jobs:\n- {name: a, strategy: ricloud-paired, keys: [1, 2], "+sinks+"}", 1)
		case strings.HasPrefix(block, "{strategy:"):
			file = head + "- {name: a, " + sinks + ", " + indent(block[1:])
			strategies++
		case strings.HasPrefix(block, "name:"):
			file = head + "- strategy: ricloud-paired\n  keys: [1, 2]\n  " + indent(strings.Replace(block, "sinks: []", sinks, 1))
		case strings.HasPrefix(block, "schedule:"):
			file = paired(indent("  " + block))
			others++
		case strings.HasPrefix(block, "journal:"):
			file = paired(block)
			others++
		case strings.HasPrefix(block, "{type:"):
			file = head + "- name: a\n  strategy: ricloud-paired\n  keys: [1, 2]\n  acknowledge: {command: [a]}\n  sinks:\n"
			for item := range strings.SplitSeq("\n"+block, "\n{") {
				if item != "" {
					file += "  - {" + indent(item) + "\n"
					sinkTypes++
				}
			}
		default:
			continue
		}
		_, err := jobfile.Parse("manual.yaml", []byte(file))
		assert.NoError(t, err, file)
	}
	assert.Equal(t, 4, strategies)
	assert.Equal(t, 9, sinkTypes)
	assert.Equal(t, 2, others)
}
